"""The task as fairseq drives it: options, errors, epochs through its iterators, checkpoints."""

import logging
import multiprocessing
import time
from argparse import ArgumentParser
from types import SimpleNamespace

import pytest
from conftest import make_dictionary, random_documents, write_split
from fairseq import tasks
from fairseq.dataclass.utils import gen_parser_from_dataclass
from omegaconf import OmegaConf

from fairseq_lambda.tasks import MaskedLMSOPConfig, MaskedLMSOPTask

WORDS = 50


def binarise(folder, documents):
    """Write the documents as both splits, and a dict.txt; return the folder."""
    folder.mkdir()
    make_dictionary(WORDS).save(str(folder / "dict.txt"))
    for split in ("train", "valid"):
        write_split(folder, split, documents)
    return folder


@pytest.fixture
def folder(tmp_path):
    return binarise(tmp_path / "data", random_documents(60))


def make_task(folder, **options):
    defaults = {"tokens_per_sample": 32, "seed": 1, "train_subset": "train", "required_seq_len_multiple": 1}
    return MaskedLMSOPTask.setup_task(MaskedLMSOPConfig(**{**defaults, "data": str(folder), **options}))


def iterator(task, split, epoch, workers, **options):
    options = {"max_tokens": 400, "seed": 1, "data_buffer_size": 10, **options}  # 10: fairseq-train's default
    return task.get_batch_iterator(
        task.dataset(split), max_positions=task.max_positions(), num_workers=workers, epoch=epoch, **options
    )


def content(batches):
    """Return the contents of a batch as plain lists."""
    batches = ({**batch, **batch["net_input"]} for batch in batches)
    return [[batch[key].tolist() for key in ("id", "src_tokens", "target", "sentence_target")] for batch in batches]


def as_fresh(folder, epoch):
    """Return the batches of an epoch from a task that has seen no other."""
    task = make_task(folder)
    task.load_dataset("train", epoch=epoch)
    return content(iterator(task, "train", epoch, 0).next_epoch_itr(shuffle=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_has_its_own_plan_in_all_processes(folder, workers):
    task = make_task(folder)
    task.load_dataset("train", combine=True)
    seen = []
    for epoch in (1, 2, 3):  # as fairseq-train does it
        batches = content(iterator(task, "train", epoch, workers).next_epoch_itr(shuffle=True))
        assert batches == as_fresh(folder, epoch)
        assert sorted(i for ids, *_ in batches for i in ids) == list(range(len(task.dataset("train"))))
        seen.append(batches)
    assert seen[0] != seen[1] != seen[2]


def test_workers_end_with_their_epoch(folder):
    task = make_task(folder)
    task.load_dataset("train")
    before = set(multiprocessing.active_children())
    for epoch in (1, 2):
        assert len(list(iterator(task, "train", epoch, 2).next_epoch_itr())) > 0
        deadline = time.monotonic() + 20
        while set(multiprocessing.active_children()) - before:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize(("workers", "buffer"), [(0, 0), (0, 10), (2, 10)])
def test_resuming_within_an_epoch_gives_the_samples_that_were_left(folder, workers, buffer):
    whole = as_fresh(folder, 2)
    task = make_task(folder)
    task.load_dataset("train")
    epoch_itr = iterator(task, "train", 2, workers, data_buffer_size=buffer)
    itr = epoch_itr.next_epoch_itr(shuffle=True)
    before = content([next(itr) for _ in range(3)])
    state = epoch_itr.state_dict()
    list(itr)  # lets threads and workers end

    task = make_task(folder)  # a new process: as fairseq.checkpoint_utils.load_checkpoint
    task.load_dataset("train", epoch=state["epoch"])
    epoch_itr = iterator(task, "train", state["epoch"], workers, data_buffer_size=buffer)
    assert len(epoch_itr.first_batch) > 0
    epoch_itr.load_state_dict(state)
    after = content(epoch_itr.next_epoch_itr(shuffle=True))
    assert before + after == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_is_the_same_every_time(folder, workers):
    task = make_task(folder)
    task.load_dataset("valid", epoch=1)
    first, second = (
        content(iterator(task, "valid", 1, workers).next_epoch_itr(shuffle=False, set_dataset_epoch=False))
        for _ in range(2)
    )
    assert first == second
    assert not task.dataset("valid").training


def test_shards_split_an_epoch(folder):
    task = make_task(folder)
    task.load_dataset("train")
    shards = [
        content(b for b in iterator(task, "train", 1, 0, num_shards=2, shard_id=i).next_epoch_itr() if b)
        for i in range(2)
    ]
    ids = [i for shard in shards for ids, *_ in shard for i in ids]
    assert sorted(ids) == list(range(len(task.dataset("train"))))


def test_folders_take_turns(tmp_path):
    one = binarise(tmp_path / "one", random_documents(10, seed=1))
    two = binarise(tmp_path / "two", random_documents(20, seed=2))
    task = make_task(f"{one}:{two}")
    assert task.has_sharded_data("train")
    paths = []
    for epoch in (1, 2, 3):
        task.load_dataset("train", epoch=epoch)
        paths.append(task.dataset("train").corpus.path)
        assert task.dataset("train").epoch == epoch
    assert paths == [str(one / "train"), str(two / "train"), str(one / "train")]


def test_train_subset_of_another_name_is_for_training(folder):
    task = make_task(folder, train_subset="valid")
    task.load_dataset("valid")
    assert task.dataset("valid").training


def test_log_counts_documents_sentences_and_pairs(tmp_path, caplog):
    documents = [[[5] * 5, [6] * 5, [7] * 5, [8] * 5], [[9] * 40], [[10, 11]], [[3, 12], [13]]]
    task = make_task(binarise(tmp_path / "data", documents), tokens_per_sample=24)
    with caplog.at_level(logging.INFO):
        task.load_dataset("valid")
    assert "4 documents, 8 sentences, 65 tokens, 1 of them <unk> (1.54%)" in caplog.text
    assert "1 sentences longer than a sample are cut into 2" in caplog.text
    assert "2 pairs" in caplog.text
    assert "1 chunks of one sentence, 2 pieces of long sentences" in caplog.text


def test_warns_of_a_split_without_pairs(tmp_path, caplog):
    task = make_task(binarise(tmp_path / "data", [[[5, 6]], [[7]]]))
    task.load_dataset("train")
    assert "has no sentence pairs" in caplog.text


def test_a_single_document(tmp_path, caplog):
    folder = binarise(tmp_path / "data", random_documents(1))
    make_task(folder).load_dataset("train")
    assert "is a single document" in caplog.text
    with pytest.raises(ValueError, match="single document and --sentence-objective nsp"):
        make_task(folder, sentence_objective="nsp").load_dataset("train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": ""}, "name a folder"),
        ({"sentence_objective": "sos"}, "--sentence-objective sos: choose one of sop, nsp, none"),
    ],
)
def test_options_that_argparse_would_refuse(folder, options, message):
    """tests/bad_inputs has what the command line refuses, and in which words."""
    with pytest.raises(ValueError, match=message):
        make_task(folder, **options)


def test_mask_is_added_once(folder):
    task = make_task(folder)
    assert task.mask_idx == 4 + WORDS == len(task.dictionary) - 1
    assert task.source_dictionary is task.target_dictionary is task.dictionary
    again = MaskedLMSOPTask.setup_task(task.cfg, dictionary=task.dictionary, from_checkpoint=True)
    assert (again.mask_idx, len(again.dictionary)) == (task.mask_idx, 5 + WORDS)
    task.dictionary.save(str(folder / "dict.txt"))  # one that has it already
    assert make_task(folder).mask_idx == task.mask_idx


def test_packed_documents(folder, caplog):
    task = make_task(folder, sentence_objective="none", pack_documents=True, tokens_per_sample=200)
    with caplog.at_level(logging.INFO):
        task.load_dataset("train")
    assert "the samples are packed with 60 texts of" in caplog.text and "% full" in caplog.text
    assert len(task.dataset("train")) < 20
    (batch, *_) = iterator(task, "train", 1, 2).next_epoch_itr(shuffle=True)
    net_input = batch["net_input"]
    assert [sum(row) for row in net_input["document_lengths"]] == net_input["src_lengths"].tolist()
    task.load_dataset("valid")
    assert len(task.dataset("valid")) < 20


def test_packed_documents_need_a_model_that_keeps_them_apart(folder, monkeypatch):
    task = make_task(folder, sentence_objective="none", pack_documents=True)
    encoder = SimpleNamespace(forward=lambda src_tokens, **unused: None)
    model = SimpleNamespace(max_positions=lambda: 32, encoder=encoder)
    monkeypatch.setattr("fairseq.tasks.FairseqTask.build_model", lambda *_: model)
    with pytest.raises(ValueError, match="--pack-documents with --arch roberta_base: only a lambda_bert"):
        task.build_model(SimpleNamespace(_name="roberta_base"))
    encoder.forward = lambda src_tokens, document_lengths=None, **unused: None
    assert task.build_model(None) is model


@pytest.mark.parametrize("objective", ["sop", "nsp", "none"])
def test_command_line_and_yaml(folder, objective):
    parser = ArgumentParser()
    gen_parser_from_dataclass(parser, MaskedLMSOPConfig())
    flags = ["--sentence-objective", objective, "--tokens-per-sample", "24", "--mask-whole-words"]
    args = parser.parse_args([str(folder), *flags])
    args.task, args.seed, args.train_subset, args.required_seq_len_multiple = "masked_lm_sop", 3, "train", 8
    task = tasks.setup_task(args)
    assert task.sentence_objective == objective
    assert type(task.sentence_objective) is str
    assert task.max_positions() == 24

    yaml = f"_name: masked_lm_sop\ndata: {folder}\nsentence_objective: {objective}\nseed: 3"
    task = tasks.setup_task(OmegaConf.create(f"{yaml}\ntrain_subset: train\nrequired_seq_len_multiple: 1"))
    assert task.sentence_objective == objective
    task.load_dataset("train")

    # what a checkpoint holds of the options, and back
    saved = OmegaConf.to_container(task.cfg, resolve=True, enum_to_str=True)
    assert saved["sentence_objective"] == objective
    again = tasks.setup_task(OmegaConf.create(saved), from_checkpoint=True)
    assert again.sentence_objective == objective
