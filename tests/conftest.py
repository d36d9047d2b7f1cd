"""Shared builders: a dictionary, a task, a batch, a binarised toy corpus."""

import logging

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder, index_file_path

from fairseq_lambda.models.lambda_bert_config import LambdaBertConfig
from fairseq_lambda.tasks.masked_lm_sop import MaskedLMSOPConfig, MaskedLMSOPTask


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _logging_restored():
    """Commands set the logging of their process up; a test that runs one here must not silence the tests after it."""
    disabled, level = logging.root.manager.disable, logging.root.level
    yield
    logging.disable(disabled)
    logging.root.setLevel(level)


def make_dictionary(words=50):
    dictionary = Dictionary()
    for i in range(words):
        dictionary.add_symbol(f"\u2581w{i}")
    return dictionary


def make_task(objective="sop", tokens=32, data="nowhere", **options):
    cfg = MaskedLMSOPConfig(data=str(data), sentence_objective=objective, tokens_per_sample=tokens, **options)
    cfg.seed, cfg.train_subset, cfg.required_seq_len_multiple = 1, "train", 1
    return MaskedLMSOPTask(cfg, make_dictionary())


def make_model(task=None, **options):
    from fairseq_lambda.models import LambdaBertModel

    shape = {"encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2}
    shape |= {"lambda_key_depth": 4, "lambda_local_context": 5, "dropout": 0.0}
    return LambdaBertModel.build_model(LambdaBertConfig(**(shape | options)), task or make_task())


def write_split(folder, split, documents, dtype=np.uint16):
    """Binarise documents, lists of sentences, lists of token ids, as fairseq-preprocess would."""
    prefix = str(folder / split)
    builder = MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for i, document in enumerate(documents):
        for sentence in [[]] * (i > 0) + list(document):
            builder.add_item(torch.tensor([*sentence, 2]))
    builder.finalize(index_file_path(prefix))


def random_documents(count=6, seed=0, words=50):
    rng = np.random.default_rng(seed)
    return [
        [rng.integers(4, 4 + words, rng.integers(1, 12)).tolist() for _ in range(rng.integers(2, 9))]
        for _ in range(count)
    ]


def random_batch(task, batch=6, length=20, seed=0):
    """Pairs of random words with padding, one sample without a label."""
    g = torch.Generator().manual_seed(seed)
    d = task.source_dictionary
    tokens = torch.randint(4, len(d) - 1, (batch, length), generator=g)
    tokens[:, 0], tokens[:, 8], tokens[:, 9], tokens[:, -1] = d.bos(), d.eos(), d.eos(), d.eos()
    tokens[0, 15:], tokens[1, 12:] = d.pad(), d.pad()
    masked = (torch.rand(batch, length, generator=g) < 0.3) & tokens.ge(4)
    target = torch.where(masked, tokens, d.pad())
    source = torch.where(masked, task.mask_idx, tokens)
    labels = torch.randint(0, 2, (batch,), generator=g)
    labels[2] = -1
    lengths = tokens.ne(d.pad()).sum(1)
    return {
        "id": torch.arange(batch),
        "nsentences": batch,
        "ntokens": int(tokens.ne(d.pad()).sum()),
        "net_input": {"src_tokens": source, "src_lengths": lengths, "has_padding": bool(lengths.lt(length).any())},
        "target": target,
        "masked_positions": target.flatten().ne(d.pad()).nonzero().squeeze(1),
        "sentence_target": labels,
    }


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    """A binarised toy corpus: 84 samples of at most 32 tokens."""
    from training import write_data  # which imports this module

    return write_data(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture(scope="session")
def toy_run(toy_data, tmp_path_factory):
    """A folder with ``checkpoint_1_4.pt``, ``checkpoint_1_8.pt``, and the best and last checkpoint, of 10 updates."""
    from training import train

    folder = tmp_path_factory.mktemp("toy") / "run"
    train(toy_data, folder, 10, "--save-interval-updates", 4, of=40)
    return folder


@pytest.fixture
def corpus(tmp_path):
    """A folder with three splits of Moses-tokenised articles."""
    from preparing import write_corpus

    return write_corpus(tmp_path / "corpus")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """The same corpus, prepared; tests must not change it."""
    from preparing import prepare, write_corpus

    folder = tmp_path_factory.mktemp("prepared")
    assert prepare(write_corpus(folder / "corpus"), "--dest", folder / "out") == 0
    return folder / "out"
