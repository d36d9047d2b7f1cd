"""``lambda-bert predict`` and the hub on a fine-tuned folder: the file's label names, its order, flat memory."""

import io
import itertools
import json
import random
import shutil
import sys

import numpy as np
import pytest
from fine_tunings import predicted, topic, topics  # noqa: F401  a fixture
from test_hub_interface import trained  # noqa: F401  a fixture

from fairseq_lambda.commands import export, labelled, predict
from fairseq_lambda.finetuning.examples import Example
from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.batching import WINDOW


def test_label_names_are_those_of_the_file_on_every_line(topic, capsys):  # noqa: F811
    scores = json.loads((topic / "run" / "scores.json").read_text())
    assert scores["splits"]["test"]["accuracy"] == 1 and scores["splits"]["valid"]["texts"] == 30
    assert scores["labels"] == ["a", "b", "c"]
    rows = topics(40, seed=1)
    bert = LambdaBertModel.from_pretrained(topic / "run")
    assert [found.label for found in bert.classify([text for _, text in rows])] == [label for label, _ in rows]
    with pytest.raises(TypeError, match="classify takes texts .str., not int"):
        bert.classify([1])
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such file; - is standard input"):
        predict.main([str(topic / "run"), "nowhere", "--cpu"])
    lines = predicted(capsys, topic / "run", topic / "test.tsv")
    assert [line["label"] for line in lines] == [label for label, _ in rows]
    for line in lines:
        assert float(line["probability"]) == max(float(line[name]) for name in "abc") > 0.5


def test_an_exported_and_moved_folder_predicts_the_same_to_the_bit(topic, tmp_path):  # noqa: F811
    export.main([str(topic / "run"), "--dest", str(tmp_path / "model")])
    moved = shutil.move(tmp_path / "model", tmp_path / "moved")
    texts = [(text,) for _, text in topics(40, seed=2)]
    one, two = (LambdaBertModel.from_pretrained(folder).text_outputs(texts) for folder in (topic / "run", moved))
    assert np.array_equal(list(one), list(two))
    card = (tmp_path / "moved" / "README.md").read_text()
    assert "| labels | a, b, c |" in card and "| test | 40 | 0 | 100.0 % |" in card and "one label for a text" in card
    assert str(topic) not in (tmp_path / "moved" / "config.json").read_text()


def test_predictions_keep_the_order_whatever_the_lengths(topic, capsys, monkeypatch):  # noqa: F811
    rng = random.Random(3)
    texts = [" ".join(rng.choices("the river runs north of a town".split(), k=rng.randrange(60))) for _ in range(100)]
    monkeypatch.setattr("fairseq_lambda.models.batching.by_length.__defaults__", (256, 7))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO("\n".join(texts).encode()))))
    lines = predicted(capsys, topic / "run", "-")
    bert = LambdaBertModel.from_pretrained(topic / "run")
    assert len(lines) == 100
    for line, text in zip(lines, texts, strict=True):
        probabilities = bert.classify(text).probabilities
        assert [float(line[name]) for name in "abc"] == pytest.approx(list(probabilities.values()), abs=2e-5)


def test_prediction_reads_no_further_than_it_has_to(topic):  # noqa: F811
    """So that memory does not grow with the file."""
    bert, read = LambdaBertModel.from_pretrained(topic / "run"), 0

    def endless():
        nonlocal read
        for read in itertools.count(1):
            yield Example(read, ("river",))

    rows = list(itertools.islice(labelled.predictions(bert, endless(), "file"), 3000))
    assert [example.line for example, _ in rows] == list(range(1, 3001)) and read <= 2 * WINDOW


def test_predictions_as_json_in_a_file(topic, tmp_path, capsys):  # noqa: F811
    (tmp_path / "texts.txt").write_text("river of\n\ntown\n")
    predict.main(
        [str(topic / "run"), str(tmp_path / "texts.txt"), "--json", "--output", str(tmp_path / "out"), "--cpu"]
    )
    records = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [records[0]["label"], records[2]["label"]] == ["b", "c"] and len(records) == 3
    assert set(records[1]["probabilities"]) == {"a", "b", "c"}
    assert "1 text is empty (line 2), and read as such" in capsys.readouterr().err


def test_quotes_are_text(capsys):
    labels = Labels("tagging", ["a", 'b"'])
    write = predict._columns_writer(labels, sys.stdout)
    write(Example(1, (), ['"', "x\ty", '"z"\r\n']), np.array([[0.1, 0.9], [0.8, 0.2], [0.8, 0.2]]))
    lines = ["word\tlabel\tprobability", '"\tb"\t0.900000', "x y\ta\t0.800000", '"z"  \ta\t0.800000', "", ""]
    assert capsys.readouterr().out.split("\n") == lines


def test_the_file_to_read_is_not_written_over(topic, tmp_path, capsys):  # noqa: F811
    (tmp_path / "texts.txt").write_text("river\n")
    (tmp_path / "link").symlink_to("texts.txt")
    for output in ("texts.txt", "link"):
        with pytest.raises(SystemExit):
            predict.main([str(topic / "run"), str(tmp_path / "texts.txt"), "--output", str(tmp_path / output)])
        assert f"--output {tmp_path / output} is the file to read: choose another one" in capsys.readouterr().err
    assert (tmp_path / "texts.txt").read_text() == "river\n"


@pytest.mark.parametrize("file,message", [
    ("one\ttwo\n", "the model reads one text at a time"), (None, "there is no such file"),
])  # fmt: skip
def test_predict_refuses(topic, tmp_path, file, message):  # noqa: F811
    if file:
        (tmp_path / "a.txt").write_text(file)
    with pytest.raises((ValueError, OSError), match=message):
        predict.main([str(topic / "run"), str(tmp_path / "a.txt"), "--cpu", "--format", "text"])
