"""docs/long-runs.md: its commands run on a small corpus."""

import re

import pytest
from pages import SHORT, Page, bash
from training import load

PAGE = Page("docs/long-runs.md")


@pytest.mark.slow
def test_every_command_of_the_page_runs(prepared, tmp_path):
    (tmp_path / "data-bin").mkdir()
    (tmp_path / "data-bin/wikitext-2").symlink_to(prepared)
    twice, processes = PAGE.commands()
    out = bash(twice, tmp_path, SHORT)
    assert out.count("num_updates 4") and out.count("has 4 updates: nothing left to do") == 1
    out = bash(processes, tmp_path, SHORT)
    assert "training on 2 devices" in out and load(tmp_path / "checkpoints/two")["extra_state"]["train_iterator"]


def test_what_is_not_run_needs_what_tests_lack():
    marked = [block for block in PAGE.blocks("bash") if block.needs]
    assert [block.needs for block in marked] == ["several GPUs", "several machines", "several machines"]
    # tests/distributed/test_two_ranks.py starts the second with two launchers on one machine
    (flags,) = re.findall('--torchrun "(.*)"', marked[1].text)
    assert flags == "--nnodes 2 --node-rank RANK --rdzv-backend c10d --rdzv-endpoint HOST:29500 --max-restarts 3"
