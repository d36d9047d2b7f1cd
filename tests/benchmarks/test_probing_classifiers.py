"""The probes themselves: they find what is there, and nothing that cannot be there."""

import random

import numpy as np
import probing_features
import pytest
import torch
import torch.nn.functional as F
from probing_classifiers import Split, chance, control_labels, packed, probe, unpacked
from probing_code import code_length
from probing_examples import SPLITS, Group
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from fairseq_lambda.inspection.reader import Reader
from fairseq_lambda.modules import LambdaBert, LambdaBertOptions


def thirds(x, y):
    count = len(y)
    bounds = {"train": (0, count // 2), "dev": (count // 2, 3 * count // 4), "test": (3 * count // 4, count)}
    return {name: Split(x[a:b], y[a:b]) for name, (a, b) in bounds.items()}


def test_a_probe_finds_what_is_there_and_not_what_is_not():
    draw = np.random.default_rng(0)
    x = draw.standard_normal((3000, 20)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    found = probe(thirds(x, y), 2, seed=1)
    assert found["test"] > 93 and "control" not in found and found["classifier"].startswith("logistic")
    right = unpacked(found["right"], 750)
    assert found["test"] == round(100 * right.mean(), 2) and found["converged"] and 50 <= found["chance"] < 55
    assert found["compression"] > 1.8 and found["codelength"] == pytest.approx(1 / found["compression"], abs=1e-3)
    nothing = probe(thirds(x, draw.integers(0, 2, 3000)), 2, seed=1)
    assert abs(nothing["test"] - 50) < 10 and 0.97 < nothing["compression"] < 1.02
    wheel = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(int)  # no logistic regression can represent this
    hidden = probe(thirds(x[:, :4], wheel), 2, seed=1)
    assert hidden["classifier"] == "hidden 50" and hidden["test"] > 75


def test_many_classes_are_told_apart_in_directions_of_little_variance():
    """15 iterations of a logistic regression find nothing of what is there; a discriminant analysis finds it."""
    draw = np.random.default_rng(0)
    y = np.resize(np.arange(120), 6000)
    signal = 0.15 * draw.standard_normal((120, 100))[y] + 0.05 * draw.standard_normal((6000, 100))
    noise = draw.standard_normal((6000, 10)) @ (3 * draw.standard_normal((10, 100)))
    x = ((signal + noise) @ draw.standard_normal((100, 100))).astype(np.float32)
    found = probe(thirds(x, y), 120, seed=1)
    assert found["classifier"] == "LDA shrinkage=0.001" and found["edge"] and found["test"] > 90
    assert "compression" not in found and found["chance"] == pytest.approx(100 / 120, abs=0.1)
    weak = LogisticRegression(C=0.1, max_iter=15)
    mean, deviation = x[:3000].mean(0), x[:3000].std(0)
    weak.fit((x[:3000] - mean) / deviation, y[:3000])
    assert 100 * weak.score((x[4500:] - mean) / deviation, y[4500:]) < 5


def test_a_bag_of_words_is_probed_sparse():
    draw = np.random.default_rng(0)
    x = (draw.random((600, 40)) < 0.1).astype(np.float32)
    found = probe(thirds(sparse.csr_matrix(x), x[:, 3].astype(int)), 2, seed=1)
    assert found["test"] == 100 and found["dim"] == 40


def test_in_a_bag_of_words_rare_words_do_not_outweigh_frequent_ones():
    """Divided by their deviation, 3,000 rare words are as large as 30 times the frequent ones that tell the class."""
    draw = np.random.default_rng(0)
    frequent = draw.random((1600, 6)) < 0.5
    rare = draw.random((1600, 3000)) < 0.003
    y = (frequent.sum(1) > 2).astype(int)
    found = probe(thirds(sparse.csr_matrix(np.hstack([frequent, rare]).astype(np.float32)), y), 2, seed=1)
    assert found["classifier"].startswith("binary words") and found["test"] > 95


def test_the_online_code_of_one_class_then_another():
    """A portion with an unseen class costs what the uniform part assigns; many classes and few examples work, too."""
    from sklearn.neural_network import MLPClassifier

    x, y = np.zeros((1000, 1), dtype=np.float32), np.zeros(1000, dtype=int)
    bits = code_length([LogisticRegression()], x, y, 2, seed=0)
    assert bits == pytest.approx((8 - 992 * np.log2(0.995)) / 1000)
    draw = np.random.default_rng(0)
    y = draw.integers(0, 30, 400)
    hidden = code_length([MLPClassifier((5,), max_iter=3)], x[:400], y, 30, seed=0)
    assert np.log2(30) - 0.5 < hidden < np.log2(30) + 1.5


def test_the_code_of_a_solved_task_is_shorter_than_a_uniform_one():
    """The strength that is best for 4,000 examples overfits the first 38, and then the code is longer than uniform."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((2000, 1000)).astype(np.float32)
    y = (x[:, :100].sum(1) + 6 * draw.standard_normal(2000) > 0).astype(int)
    models = [LogisticRegression(C=c, max_iter=300) for c in (0.0001, 0.001, 0.1)]
    assert code_length(models, x, y, 2, seed=0) < 0.97 and code_length(models[2:], x, y, 2, seed=0) > 1.03
    nothing = draw.integers(0, 2, 2000)
    assert code_length(models, x, nothing, 2, seed=0) < 1.03


def test_controls():
    labels = {split: np.array([0] * 60 + [1] * 40) for split in SPLITS}
    types = {split: [f"w{i % 7}" for i in range(100)] for split in SPLITS}
    control = control_labels(labels, types, 1)
    of_type = {
        (name, label) for split in SPLITS for name, label in zip(types[split], control[split].tolist(), strict=True)
    }
    assert len(of_type) == 7


def test_chance_is_that_of_the_test_examples_or_a_guess():
    assert chance(np.array([1, 1, 1, 0]), 2) == 75  # also if 0 is the most frequent label of train
    assert chance(np.array([0, 1, 2, 3]), 4) == chance(np.array([0, 1]), 2) / 2 == 25
    right = np.random.default_rng(0).random(13) < 0.5
    assert (unpacked(packed(right), 13) == right).all() and len(packed(right)) == 4


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
