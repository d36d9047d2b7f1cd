"""The learning curve: read from a log of a real training, resumed, drawn, and refused where there is none."""

import logging

import pytest
from training import train, write_data

from fairseq_lambda.commands import curve


def test_the_curve_of_a_resumed_training(tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)  # as fairseq-train sets it in a process of its own
    data, log = write_data(tmp_path / "data"), tmp_path / "run/train.log"
    log.parent.mkdir()
    flags = ["--log-file", log, "--log-format", "simple", "--validate-interval-updates", "2"]
    train(data, log.parent, 3, *flags, of=6)
    train(data, log.parent, 6, *flags)
    training, validation = curve.read_curve(log.read_text())
    assert list(training) == [1, 2, 3, 4, 5, 6] and {2, 4, 6} <= set(validation)
    assert all(1 < perplexity < 500 for perplexity in (*training.values(), *validation.values()))

    curve.main([str(log), str(log), "--out", str(tmp_path / "curve.png")])
    assert (tmp_path / "curve.png").stat().st_size > 10_000 and "curve.png" in capsys.readouterr().out


def test_later_lines_count_and_the_title_says_where_it_ended():
    log = "epoch 001:  4 / 9 loss=1, mlm_ppl=50.5, wps=1, num_updates=4, lr=1\n"
    log += "epoch 001 | valid on 'valid' subset | loss 1 | mlm_ppl 40 | wps 1 | num_updates 4 | best 1\n"
    log += "epoch 001 | loss 13.75 | mlm_ppl 77 | num_updates 4 | lr 0\n" + log.replace("50.5", "49.5")
    assert curve.read_curve(log) == ({4: 49.5}, {4: 40.0})
    curves = {"a": ({4: 49.5}, {4: 40.0}), "b": ({4: 49.5}, {2: 80.0, 4: 30.0}), "c": ({1: 9.0}, {})}
    assert curve.title(curves) == "b: validation perplexity 30.0 after 4 updates"
    assert curve.title({"c": curves["c"]}) == "No validation yet"


def test_errors_name_the_remedy(tmp_path, capsys):
    (tmp_path / "empty.log").write_text("nothing")
    with pytest.raises(ValueError, match="empty.log has no training log.*--log-file"):
        curve.main([str(tmp_path / "empty.log"), "--out", str(tmp_path / "a.png")])
    with pytest.raises(SystemExit):
        curve.main([str(tmp_path / "empty.log"), "--out", "a.gif"])
    assert "--out a.gif: the name must end in .png" in capsys.readouterr().err
