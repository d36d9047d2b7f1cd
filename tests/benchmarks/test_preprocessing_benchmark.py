"""The preparation benchmark at toy size: it counts all processes, and reports what it measured."""

import json
import os
import signal
import subprocess
import sys

import preprocessing
import pytest
from preparing import as_text, plain_documents

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]


def test_rows_of_two_copies(tmp_path, capsys):
    (tmp_path / "text").mkdir()
    for split, count in {"train": 60, "valid": 9, "test": 8}.items():
        (tmp_path / "text" / f"{split}.txt").write_text(as_text(plain_documents(count, count)))
    flags = ["--copies", "2", "--vocab-size", "64", "--workers", "2", "--dest", tmp_path / "data", "--out", tmp_path]
    preprocessing.main([str(tmp_path / "text"), *map(str, flags)])
    (row,) = map(json.loads, (tmp_path / "preprocessing-2_copies.jsonl").read_text().splitlines())
    assert row["peak_rss"] >= row["peak_pss"] > 50e6 and row["seconds"] > 0 and row["cpu_seconds"] > 0
    assert sum(row["stage_seconds"].values()) == pytest.approx(row["seconds"], abs=1)
    report = json.loads((tmp_path / "data/report.json").read_text())
    assert report["splits"]["train"]["documents"] == 120
    assert "| text | 2 |" in capsys.readouterr().out


def test_memory_is_that_of_all_processes_of_the_group():
    sleep = "import time; x = b'1' * 50_000_000; print(flush=True); time.sleep(60)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleep!r}])"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
    try:
        process.stdout.readline()  # the child has allocated its 50 MB
        rss, pss = preprocessing.memory_of(process.pid)
        assert 60e6 < rss < 200e6 and 50e6 < pss <= rss
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_failure_is_not_a_measurement(tmp_path):
    with pytest.raises(SystemExit, match="has failed with code 1"):
        preprocessing.main([str(tmp_path / "absent"), "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
