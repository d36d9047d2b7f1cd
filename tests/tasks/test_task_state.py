"""What a checkpoint holds of its task, and what is checked before training: dictionary, positions, folders, words."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import random_documents
from test_masked_lm_sop_task import binarise, make_task

from fairseq_lambda.tasks import MaskedLMSOPTask


@pytest.fixture
def folder(tmp_path):
    return binarise(tmp_path / "data", random_documents(60))


def test_state_makes_a_checkpoint_usable_alone(folder, tmp_path):
    assert make_task(folder).state_dict().keys() == {"symbols"}
    (folder / "sentencepiece.model").write_bytes(bytes(range(256)))
    task = make_task(folder)
    torch.save({"task_state": task.state_dict()}, tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["task_state"]
    assert bytes(state["sentencepiece"].numpy()) == bytes(range(256))

    dictionary = MaskedLMSOPTask.dictionary_from_state(state)
    assert dictionary == task.dictionary
    special = (dictionary.bos(), dictionary.pad(), dictionary.eos(), dictionary.unk())
    assert special == (0, 1, 2, 3)
    shutil.rmtree(folder)
    again = MaskedLMSOPTask.setup_task(task.cfg, dictionary=dictionary, from_checkpoint=True)
    again.load_state_dict(state)
    assert again.state_dict().keys() == {"symbols", "sentencepiece"}
    assert again.mask_idx == task.mask_idx


@pytest.mark.parametrize("state", [{}, {"symbols": []}, {"symbols": ["a", "b"]}])
def test_state_of_another_task(state):
    with pytest.raises(ValueError, match="task_state has no dictionary"):
        MaskedLMSOPTask.dictionary_from_state(state)


def test_checkpoint_of_another_dictionary(folder):
    task = make_task(folder)
    symbols = task.state_dict()["symbols"]
    for theirs, message in (
        (symbols[:7], "7 symbols, and the data has 55; the first difference is at 7, .* nothing"),
        ([*symbols, "x"], "56 symbols, .* at 55, where it has 'x' and the data nothing"),
        (symbols[::-1], "at 0, where it has '<mask>' and the data '<s>'"),
    ):
        with pytest.raises(ValueError, match=message):
            task.load_state_dict({"symbols": theirs})
    task.load_state_dict({})  # an older checkpoint


def test_model_with_too_few_positions(folder, monkeypatch):
    task = make_task(folder)
    model = SimpleNamespace(max_positions=lambda: 32)
    monkeypatch.setattr("fairseq.tasks.FairseqTask.build_model", lambda *_: model)
    assert task.build_model(None) is model
    model.max_positions = lambda: 31
    with pytest.raises(ValueError, match=r"--tokens-per-sample 32 .*--max-positions 31"):
        task.build_model(None)


def test_all_folders_are_checked_at_once(folder, tmp_path):
    other = binarise(tmp_path / "other", random_documents(20))
    assert make_task(f"{folder}:{other}").dictionary == make_task(folder).dictionary
    (other / "dict.txt").write_text("a 1\na 1\n")
    with pytest.raises(ValueError, match=r"other/dict\.txt is not a fairseq dictionary .*Duplicate"):
        make_task(f"{folder}:{other}")
    (other / "dict.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"other/dict\.txt is missing"):
        make_task(f"{folder}:{other}")


def test_a_split_of_unknown_words_only(tmp_path):
    folder = binarise(tmp_path / "data", [[[3, 3], [3]]] * 3)
    with pytest.raises(ValueError, match="only words that are not in the vocabulary"):
        make_task(folder).load_dataset("valid")
