"""The example pretrains with transformers' Trainer on pairs and masks of this package, resumes, and saves a model."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", minversion="4.57")
pytest.importorskip("accelerate")

from conftest import make_dictionary, random_documents, write_split

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import transformers_pretraining as example
from transformers import AutoModelForPreTraining


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_dictionary().save(str(folder / "dict.txt"))
    for seed, split in enumerate(("train", "valid")):
        write_split(folder, split, random_documents(40, seed))
    return folder


@pytest.mark.parametrize("flags", [["--sop"], []])
def test_pretrains_and_resumes(data, flags, tmp_path, monkeypatch):
    argv = [str(data), "--output", str(tmp_path), "--size", "tiny", "--cpu", "--local-context-size", "7", *flags]
    assert example.main([*argv, "--updates", "20"])["updates"] == 20
    steps = []
    step = example.PairTrainer.training_step
    monkeypatch.setattr(
        example.PairTrainer, "training_step", lambda *given, **more: steps.append(1) or step(*given, **more)
    )
    result = example.main([*argv, "--updates", "22"])
    assert result["updates"] == 22 and len(steps) == 2 and 1 < result["mlm_ppl"] < 60
    model = AutoModelForPreTraining.from_pretrained(tmp_path)
    assert model.config.local_context == 7 and (tmp_path / "modeling_lambda_bert.py").is_file()
    assert model.config.fairseq["task"]["sentence_objective"] == ("sop" if flags else "nsp")


def test_one_process_of_several_saves_and_prints(data, tmp_path, monkeypatch, capsys):
    (data / "sentencepiece.model").write_bytes(b"")  # reading it would be an error
    monkeypatch.setattr(example.PairTrainer, "is_world_process_zero", lambda self: False)
    argv = [str(data), "--output", str(tmp_path), "--size", "tiny", "--cpu", "--updates", "2"]
    try:
        assert example.main(argv) == {} and "mlm_ppl" not in capsys.readouterr().out
    finally:
        (data / "sentencepiece.model").unlink()


def test_batches_are_the_datasets(data):
    options = example.MaskedLMSOPConfig(data=str(data), sentence_objective="sop", tokens_per_sample=32)
    options.seed, options.train_subset, options.required_seq_len_multiple = 1, "train", 1
    task = example.MaskedLMSOPTask.setup_task(options)
    task.load_dataset("train")
    dataset = task.dataset("train")
    batches = []
    for batch in example.Batches(dataset, 8):
        if dataset.epoch == 2:
            break
        batches.append(batch)
    dataset.set_epoch(1)
    assert sum(len(batch["input_ids"]) for batch in batches) == len(dataset)
    expected = {tuple(dataset[i]["source"].tolist()) for i in range(len(dataset))}
    assert expected == {tuple(row[row.ne(1)].tolist()) for batch in batches for row in batch["input_ids"]}
    shares = [list(zip(range(3), example.Batches(dataset, 8, rank, 2), strict=False)) for rank in (0, 1)]
    assert not torch.equal(shares[0][0][1]["input_ids"], shares[1][0][1]["input_ids"])


def test_a_folder_that_is_no_data_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        example.main([str(tmp_path), "--output", str(tmp_path / "out")])
    assert "holds no dict.txt" in capsys.readouterr().err
