"""The plan of an epoch: complete, in order, correctly labelled, with labels that lengths do not give away."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpora import FIRST_WORD, number_tokens, random_shape, shapes, write_corpus

from fairseq_lambda.corpora.documents import read_documents, read_lines
from fairseq_lambda.corpora.layout import detect_layout
from fairseq_lambda.data.pairs import exchange, plan_samples


def segments(corpus, plan):
    """Return (A, B, label, length) of every sample, A and B as lists of ids."""
    read = lambda start, size: [corpus.read(*run).tolist() for run in zip(start, size, strict=True)]  # noqa: E731
    a, b = read(plan.a_start, plan.a_size), read(plan.b_start, plan.b_size)
    return list(zip(a, b, plan.labels.tolist(), plan.lengths.tolist(), strict=True))


def sentences_of(documents):
    """Return document and sentence number of every token."""
    numbered = ((d, s, sentence) for d, document in enumerate(documents) for s, sentence in enumerate(document))
    return {token: (d, s) for d, s, sentence in numbered for token in sentence}


plans = {
    "tokens_per_sample": st.integers(8, 80),
    "seed": st.integers(0, 5),
    "epoch": st.integers(1, 5),
    "short_prob": st.sampled_from([0.0, 0.3, 1.0]),
    "short_first": st.booleans(),
}


@settings(max_examples=80, deadline=None)
@given(shapes, st.fixed_dictionaries(plans), st.sampled_from(["sop", "none"]))
def test_every_token_once_and_in_order_but_for_the_swap(shape, options, objective):
    documents = number_tokens(shape)
    where = sentences_of(documents)
    budget = options["tokens_per_sample"] - (4 if objective == "sop" else 2)
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(f"{folder}/train", documents)
        samples = segments(corpus, plan_samples(corpus, objective, **options))
        assert segments(corpus, plan_samples(corpus, objective, **options)) == samples
    seen = []
    for a, b, label, length in samples:
        assert length == len(a) + len(b) + (4 if b else 2)
        assert length <= options["tokens_per_sample"]
        assert label in ((0, 1) if b else (-1,))
        text = b + a if label == 1 else a + b
        seen += text
        assert len({where[t][0] for t in text}) == 1  # from one document
        if b:  # split between sentences: none is on both sides
            assert not {where[t] for t in a} & {where[t] for t in b}
            assert len(text) <= budget
        elif objective == "sop":
            assert len({where[t] for t in text}) == 1  # only a single sentence is not a pair
    # tokens are numbered along the corpus: they stay in order, and none is lost or doubled
    assert seen == list(range(FIRST_WORD, FIRST_WORD + sum(map(sum, shape))))


@settings(max_examples=80, deadline=None)
@given(shapes, st.fixed_dictionaries(plans))
def test_nsp_continues_or_comes_from_another_document(shape, options):
    documents = number_tokens(shape)
    where = sentences_of(documents)
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(f"{folder}/train", documents)
        samples = segments(corpus, plan_samples(corpus, "nsp", **options))
        assert segments(corpus, plan_samples(corpus, "nsp", **options)) == samples
        in_order = segments(corpus, plan_samples(corpus, "sop", **options))
    for (a, b, label, length), (x, y, swapped, other_length) in zip(samples, in_order, strict=True):
        front, back = (y, x) if swapped == 1 else (x, y)  # the same draws give the same splits
        assert a == front
        assert length == len(a) + len(b) + (4 if b else 2) <= options["tokens_per_sample"]
        assert label in ((0, 1) if b else (-1,))
        if label == 1:
            assert where[b[0]][0] != where[a[0]][0]
            assert len(b) <= len(back)
            assert length <= other_length
        else:
            assert b == back


def test_nsp_is_balanced_and_reuses_hardly_any_segment(tmp_path):
    corpus = write_corpus(tmp_path / "train", number_tokens(random_shape(0)), dtype=np.uint32)
    plan = plan_samples(corpus, "nsp", 128, seed=1, epoch=1)
    negatives = plan.labels == 1
    pairs = np.count_nonzero(plan.labels >= 0)
    assert abs(np.count_nonzero(negatives) / pairs - 0.5) < 5 * 0.5 / pairs**0.5
    _, uses = np.unique(plan.b_start[negatives], return_counts=True)
    assert (uses == 1).mean() > 0.95


def test_exchange_against_a_search():
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 50):
        for kinds in (1, 2, 10):
            lengths = rng.integers(1, 12, size=count)
            documents = rng.integers(0, kinds, size=count)
            giver = exchange(lengths, documents, np.random.default_rng(1))
            for i, g in enumerate(giver):
                others = lengths[(documents != documents[i]) & (lengths < lengths[i])]
                if g >= 0:
                    assert documents[g] != documents[i]
                    assert lengths[g] <= lengths[i]
                    assert lengths[g] >= others.max(initial=0)
                else:
                    assert len(others) == 0


def test_literal_example(tmp_path):
    # documents of two sentences, of one sentence over the budget of 6, of one short sentence
    documents = number_tokens([[2, 3], [13], [4]])
    corpus = write_corpus(tmp_path / "train", documents)
    rest = [
        ([9, 10, 11, 12], [], -1, 6),
        ([13, 14, 15, 16], [], -1, 6),
        ([17, 18, 19, 20, 21], [], -1, 7),
        ([22, 23, 24, 25], [], -1, 6),
    ]
    orders = {0: ([4, 5], [6, 7, 8], 0, 9), 1: ([6, 7, 8], [4, 5], 1, 9)}
    labels = set()
    for epoch in range(1, 20):
        plan = plan_samples(corpus, "sop", 10, seed=1, epoch=epoch)
        label = int(plan.labels[0])
        assert segments(corpus, plan) == [orders[label], *rest]
        assert (plan.long_sentences, plan.pieces, plan.single_sentences) == (1, 3, 1)
        labels.add(label)
    assert labels == {0, 1}


def test_splits_are_uniform_and_the_coin_is_fair_at_each(tmp_path):
    corpus = write_corpus(tmp_path / "train", number_tokens([[2] * 5] * 4000), dtype=np.uint32)
    plan = plan_samples(corpus, "sop", 14, seed=1, epoch=1)
    front = np.where(plan.labels == 1, plan.b_size, plan.a_size) // 3 + 1  # sentences before it
    for split in (1, 2, 3, 4):
        here = front == split
        assert abs(here.mean() - 0.25) < 5 * (0.25 * 0.75 / 4000) ** 0.5
        assert abs(plan.labels[here].mean() - 0.5) < 5 * 0.5 / 1000**0.5


def test_seeds_and_epochs_differ(tmp_path):
    draws = [{"seed": 1, "epoch": 1}, {"seed": 1, "epoch": 2}, {"seed": 2, "epoch": 1}]
    corpus = write_corpus(tmp_path / "train", number_tokens(random_shape(0, 40, mean=8)))
    plans = [segments(corpus, plan_samples(corpus, "sop", 64, short_first=True, **draw)) for draw in draws]
    first, *others = ({tuple(sorted(a + b)) for a, b, *_ in plan} for plan in plans)
    assert all(len(first & other) < 0.5 * len(first) for other in others)  # boundaries move
    corpus = write_corpus(tmp_path / "pairs", number_tokens([[3, 3]] * 50))  # here they cannot move, but labels differ
    assert len({tuple(plan_samples(corpus, "sop", 64, **draw).labels) for draw in draws}) == 3


def best_length_rule(plans) -> float:
    """Return the accuracy of the best rule that knows lengths only."""
    labels, a, b = [], [], []
    for plan, corpus in plans:
        pairs = plan.labels >= 0
        labels.append(plan.labels[pairs])
        for sizes, start, size in ((a, plan.a_start, plan.a_size), (b, plan.b_start, plan.b_size)):
            read = zip(start[pairs], size[pairs], strict=True)
            sizes.append([len(corpus.read(x, y)) for x, y in read])
    labels, a, b = (np.concatenate(x).astype(int) for x in (labels, a, b))
    best = 0.0
    for feature in (b > a, a, b, a + b, a - b):
        order = np.argsort(feature, kind="stable")  # the best threshold follows from the counts of both labels below it
        below = np.cumsum(2 * labels[order] - 1)
        change = np.append(np.diff(feature[order].astype(int)) != 0, True)
        hits = np.abs(below[change] * 2 - below[-1]).max()
        best = max(best, 0.5 + hits / (2 * len(labels)))
    return best


def test_the_length_rule_finds_what_there_is_to_find(tmp_path):
    corpus = write_corpus(tmp_path / "train", number_tokens([[2, 9]] * 500))
    assert best_length_rule([(plan_samples(corpus, "sop", 20, 1, 1), corpus)]) == 1.0


@pytest.mark.parametrize("objective", ["sop", "nsp"])
@pytest.mark.parametrize("short_prob", [0.0, 0.2])
def test_length_does_not_give_the_label_away(tmp_path, objective, short_prob):
    corpus = write_corpus(tmp_path / "x", number_tokens(random_shape(1)), dtype=np.uint32)
    plans = [plan_samples(corpus, objective, 128, seed, 1, short_prob) for seed in range(12)]
    assert best_length_rule([(plan, corpus) for plan in plans]) < 0.53


@pytest.mark.skipif("WIKITEXT_DIR" not in os.environ, reason="WIKITEXT_DIR is not set")
@pytest.mark.parametrize("objective", ["sop", "nsp"])
def test_length_does_not_give_the_label_away_in_wikitext(tmp_path, objective):
    path, ids = Path(os.environ["WIKITEXT_DIR"]) / "wiki.valid.tokens", {}
    documents = [
        [[ids.setdefault(token, len(ids) + FIRST_WORD) for token in sentence.split()] for sentence in document]
        for document in read_documents(read_lines(path), detect_layout(read_lines(path)), keep_moses=True)
    ]
    assert len(documents) == 60
    corpus = write_corpus(tmp_path / "valid", documents)
    plans = [plan_samples(corpus, objective, 128, seed, 1) for seed in range(12)]
    assert best_length_rule([(plan, corpus) for plan in plans]) < 0.53
