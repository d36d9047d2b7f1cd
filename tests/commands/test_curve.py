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


def test_numbers_of_any_form_are_read_and_a_curve_that_diverges_says_where(tmp_path, capsys):
    training = {1: "50.5", 2: "1e+06", 3: "nan", 4: "40", 5: "inf", 6: "nan"}
    lines = [f"epoch 001:  1 / 9 loss=1, mlm_ppl={p}, wps=1, num_updates={u}, lr=1\n" for u, p in training.items()]
    lines += [
        f"epoch 001 | valid on 'valid' subset | loss 1 | mlm_ppl {p} | wps 1 | num_updates {u} | best 1\n"
        for u, p in {2: "1.5e+06", 4: "30", 6: "nan"}.items()
    ]
    log, out = tmp_path / "a.log", tmp_path / "a.png"
    log.write_text("".join(lines))
    curves = curve.read_curve(log.read_text())
    assert [str(p) for p in curves[0].values()] == ["50.5", "1000000.0", "nan", "40.0", "inf", "nan"]
    assert curves[1][2] == 1.5e6 and list(curves[1]) == [2, 4, 6]
    assert curve.title({"a": curves, "b": (curves[0], {6: float("nan")})}) == (
        "a: validation perplexity 30.0 after 4 updates"
    )
    curve.main([str(log), "--out", str(out)])
    printed = capsys.readouterr().out
    assert "a: the perplexity of training is not a finite number from 5 updates on" in printed
    assert "a: the perplexity of validation is not a finite number from 6 updates on" in printed
    assert out.read_bytes().startswith(b"\x89PNG") and sorted(p.name for p in tmp_path.iterdir()) == ["a.log", "a.png"]

    log.write_text(lines[2])  # from the start
    curve.main([str(log), "--out", str(out)])
    assert "not a finite number from 3 updates on" in capsys.readouterr().out


def test_an_earlier_picture_stays_if_drawing_fails(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def fail(figure, file, **_):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space"):
        curve.draw({"a": ({1: 9.0}, {})}, tmp_path / "a.png")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]


def test_errors_name_the_remedy(tmp_path, capsys):
    (tmp_path / "empty.log").write_text("nothing")
    with pytest.raises(ValueError, match="empty.log has no training log.*--log-file"):
        curve.main([str(tmp_path / "empty.log"), "--out", str(tmp_path / "a.png")])
    with pytest.raises(SystemExit):
        curve.main([str(tmp_path / "empty.log"), "--out", "a.gif"])
    assert "--out a.gif: the name must end in .png" in capsys.readouterr().err
