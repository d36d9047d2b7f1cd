"""A small model and tokenizer in a folder for transformers, made without fairseq; processes without this package."""

import functools
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", minversion="4.57")

import sentencepiece

from fairseq_lambda.huggingface import LambdaBertConfig, LambdaBertForPreTraining, LambdaBertModel
from fairseq_lambda.huggingface.tokenizer import MASK, SPECIALS, fast_tokenizer, save_tokenizer

WORDS = "the a film team city river was is released won lost built in on of near and not 1997 2004 , . ( ) - s".split()
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "dim_k": 4}
SHAPE |= {"local_context": 5}


def sentences(count, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 12))).capitalize() for _ in range(count)]


@functools.cache
def pieces(**options):
    """A serialised SentencePiece model."""
    model = io.BytesIO()
    special = {"pad_id": 3, "control_symbols": [MASK], "minloglevel": 2, "hard_vocab_limit": False, "vocab_size": 120}
    lines = iter(sentences(200))
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, **(special | options))
    return model.getvalue()


def symbols(model):
    """The symbols of fairseq's dictionary for these pieces."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    kept = [i for i in range(sp.get_piece_size()) if not sp.is_control(i) and not sp.is_unknown(i)]
    return [*SPECIALS, *map(sp.id_to_piece, kept), MASK]


def tokenizer(**options):
    model = pieces(**options)
    return fast_tokenizer(model, symbols(model))


def config(**options):
    own = {"vocab_size": len(symbols(pieces())), "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return LambdaBertConfig(**(SHAPE | own | options))


def perturbed(model):
    """The model with every weight and running statistic changed, so that none has its initial value."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}.values():
            tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return model.eval()


def small(cls=LambdaBertModel, **options):
    torch.manual_seed(0)
    return perturbed(cls(config(**options)))


def batch(rows=3, length=12, seed=0, vocabulary=None):
    """Ids of pairs, the last two rows padded on the right, and their attention mask."""
    vocabulary = vocabulary or config().vocab_size
    ids = torch.randint(4, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 0], ids[:, 4], ids[:, 5], ids[:, -1] = 0, 2, 2, 2
    ids[-1, 9:], ids[-2, 8:] = 1, 1
    return ids, ids.ne(1).long()


def labelled():
    """The batch, and the labels of some of its tokens."""
    ids, mask = batch()
    labels = torch.where(mask.bool() & ids.ge(4) & ids.remainder(2).eq(0), ids, -100)
    return ids, mask, labels


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A pretrained hybrid with its tokenizer, as the conversion writes it."""
    path = tmp_path_factory.mktemp("port") / "small-bert"
    model = LambdaBertForPreTraining(config(lambda_layers="0", attention_rotary=True))
    perturbed(model).save_pretrained(path)
    save_tokenizer(tokenizer(), path)
    return path


HIDDEN = """
import sys
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("fairseq_lambda", "fairseq"):
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


def alone(code, folder: Path):
    """Run code in a fresh process, offline and without this package and fairseq; return what it prints as JSON."""
    variables = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **variables, "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-W", "ignore", "-c", HIDDEN + code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])
