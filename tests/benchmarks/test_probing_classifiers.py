"""The probes themselves: they find what is there, and nothing that cannot be there."""

import random

import numpy as np
import probing_features
import pytest
import torch
import torch.nn.functional as F
from probing_classifiers import Split, code_length, majority, probe, shuffled
from probing_tasks import SPLITS, Group
from scipy import sparse

from fairseq_lambda.inspection.reader import Reader
from fairseq_lambda.modules import LambdaBert, LambdaBertOptions


def split_of(x, y, control=None):
    return Split(x, y, np.random.default_rng(0).permutation(y) if control is None else control)


def thirds(x, y):
    count = len(y)
    bounds = {"train": (0, count // 2), "dev": (count // 2, 3 * count // 4), "test": (3 * count // 4, count)}
    return {name: split_of(x[a:b], y[a:b]) for name, (a, b) in bounds.items()}


def test_a_probe_finds_what_is_there_and_not_what_is_not():
    draw = np.random.default_rng(0)
    x = draw.standard_normal((3000, 20)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    found = probe(thirds(x, y), 2, seed=1)
    assert found["test"] > 93 and abs(found["control"] - 50) < 12 and found["classifier"].startswith("logistic")
    assert found["compression"] > 1.8 and found["codelength"] == pytest.approx(1 / found["compression"], abs=1e-3)
    nothing = probe(thirds(x, draw.integers(0, 2, 3000)), 2, seed=1)
    assert abs(nothing["test"] - 50) < 10 and nothing["compression"] < 1.02
    wheel = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(int)  # no logistic regression can represent this
    hidden = probe(thirds(x[:, :4], wheel), 2, seed=1)
    assert hidden["classifier"] == "hidden 50" and hidden["test"] > 75


def test_many_classes_have_a_probe():
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((150, 40)).astype(np.float32)
    y = draw.integers(0, 150, 6000)
    x = (centres[y] + 0.7 * draw.standard_normal((6000, 40))).astype(np.float32)
    found = probe(thirds(x, y), 150, seed=1)
    assert found["classifier"].startswith("logistic") and found["test"] > 80 and found["control"] < 5
    assert found["compression"] > 1.5


def test_a_bag_of_words_is_probed_sparse():
    draw = np.random.default_rng(0)
    x = (draw.random((600, 40)) < 0.1).astype(np.float32)
    found = probe(thirds(sparse.csr_matrix(x), x[:, 3].astype(int)), 2, seed=1)
    assert found["test"] == 100 and found["dim"] == 40


def test_the_online_code_of_one_class_then_another():
    """A portion with an unseen class costs what the uniform part assigns; many classes and few examples work, too."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    x, y = np.zeros((1000, 1), dtype=np.float32), np.zeros(1000, dtype=int)
    bits = code_length(LogisticRegression, x, y, 2, seed=0)
    assert bits == pytest.approx((8 - 992 * np.log2(0.995)) / 1000)
    draw = np.random.default_rng(0)
    y = draw.integers(0, 30, 400)
    hidden = code_length(lambda: MLPClassifier((5,), early_stopping=True, max_iter=3), x[:400], y, 30, seed=0)
    assert np.log2(30) - 0.5 < hidden < np.log2(30) + 1.5


def test_controls():
    labels = {split: np.array([0] * 60 + [1] * 40) for split in SPLITS}
    control = shuffled(labels, {}, 1)
    assert all((control[split].sum(), len(control[split])) == (40, 100) for split in SPLITS)
    assert (control["test"] != labels["test"]).any() and majority(labels["train"], labels["test"]) == 60
    types = {split: [f"w{i % 7}" for i in range(100)] for split in SPLITS}
    control = shuffled(labels, types, 1)
    of_type = {
        (name, label) for split in SPLITS for name, label in zip(types[split], control[split].tolist(), strict=True)
    }
    assert len(of_type) == 7


K = 5  # words of each of three kinds, which take turns; and as many words that may be anywhere
MASK, FIRST = 3, 4


def sentence(draw, length=9):
    phase = draw.randrange(3)
    return [FIRST + K * ((i + phase) % 3) + draw.randrange(K) for i in range(length)]


@pytest.fixture(scope="module")
def language():
    """A model, without absolute positions, of a language in which order matters, and its features for two tasks."""
    draw = random.Random(0)
    torch.manual_seed(0)
    options = {"vocab_size": FIRST + 4 * K, "layers": 2, "embed_dim": 32, "ffn_embed_dim": 64, "heads": 4}
    core = LambdaBert(LambdaBertOptions(**options, dim_k=8, local_context=5))
    optimizer = torch.optim.Adam(core.parameters(), 3e-3)
    for _ in range(100):
        tokens = torch.tensor([[0, *sentence(draw), 2] for _ in range(64)])
        masked = (torch.rand(tokens.shape) < 0.2) & (tokens >= FIRST)
        source = torch.where(masked & (torch.rand(tokens.shape) < 0.7), MASK, tokens)
        loss = F.cross_entropy(core.lm_head(core(source).features[masked]), tokens[masked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shifted_, content = ([], []), ([], [])
    for _ in range(1600):
        words, label = sentence(draw), draw.randrange(2)
        at = draw.randrange(1, 7)
        if label:
            words[at], words[at + 1] = words[at + 1], words[at]
        shifted_[0].append(torch.tensor([0, *words, 2]))
        shifted_[1].append(label)
        words, label = sentence(draw), draw.randrange(K)
        words[draw.randrange(9)] = FIRST + 3 * K + label
        content[0].append(torch.tensor([0, *words, 2]))
        content[1].append(label)
    return {
        "shift": (features_of(core, shifted_[0]), shifted_[1]),
        "content": (features_of(core, content[0]), content[1]),
    }


def features_of(core, texts):
    found: dict[str, np.ndarray] = {}
    for _, rows, values in probing_features._read(Reader(core.eval(), None), Group("x", texts)):
        for name, tensor in values.items():
            found.setdefault(name, np.zeros((len(texts), *tensor.shape[1:]), np.float32))[rows] = tensor.numpy()
    return found


def score(language, task, feature, layer, classes):
    features, labels = language[task]
    return probe(thirds(features[feature][:, layer], np.array(labels)), classes, seed=1)["test"]


def test_layer_0s_content_lambda_knows_words_and_no_order_and_upper_states_know_order(language):
    """Without absolute positions it is a function of the bag of pieces, so its probe for order has nothing to find."""
    assert abs(score(language, "shift", "lambda", 0, 2) - 50) < 7.5  # three standard errors of 400 texts
    assert score(language, "content", "lambda", 0, K) > 100 / K + 20
    assert score(language, "shift", "mean", 2, 2) > 70
