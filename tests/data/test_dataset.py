"""The dataset: samples follow the plan, are masked, and are the same in every process and order."""

import tempfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpora import EOS, number_tokens, random_shape, shapes, word_dictionary, write_corpus
from torch.utils.data import DataLoader
from training import differences

from fairseq_lambda import symbols
from fairseq_lambda.data.dataset import SentencePairDataset
from fairseq_lambda.data.masking import TokenMasker

BOS, PAD, UNK = 0, 1, 3
SHAPE = random_shape(3, documents=30, sentences=20, mean=6)
DICTIONARY = word_dictionary(sum(map(sum, SHAPE)))
MASK = DICTIONARY.index(symbols.MASK)


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "train", number_tokens(SHAPE))


def dataset(corpus, **options):
    options = {"tokens_per_sample": 40, "training": True, **options}
    return SentencePairDataset(corpus, TokenMasker(DICTIONARY, MASK), BOS, **options)


def items(data):
    return [data[i] for i in range(len(data))]


def test_literal_samples(tmp_path):
    corpus = write_corpus(tmp_path / "train", number_tokens([[2, 3], [4]]))
    data = SentencePairDataset(corpus, TokenMasker(DICTIONARY, MASK), BOS, tokens_per_sample=12)
    expected = {
        0: [BOS, 4, 5, EOS, EOS, 6, 7, 8, EOS],
        1: [BOS, 6, 7, 8, EOS, EOS, 4, 5, EOS],
    }
    assert data.tokens(0).tolist() == expected[data[0]["label"]]
    assert data.tokens(1).tolist() == [BOS, 9, 10, 11, 12, EOS]
    assert data[1]["label"] == -1
    data = SentencePairDataset(corpus, TokenMasker(DICTIONARY, MASK), BOS, "none", 12)
    # the sentences of a chunk lose their </s>, too
    assert data.tokens(0).tolist() == [BOS, 4, 5, 6, 7, 8, EOS]
    assert data.tokens(1).tolist() == [BOS, 9, 10, 11, 12, EOS]


ANY_DATASET = {
    "objective": st.sampled_from(["sop", "nsp", "none"]),
    "tokens_per_sample": st.integers(8, 60),
    "seed": st.integers(0, 5),
    "short_sample_prob": st.sampled_from([0.0, 0.5]),
    "training": st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(
    shapes,
    st.fixed_dictionaries(ANY_DATASET),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([1, 2, 60]),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_any_corpus_gives_whole_samples_masked_and_again_the_same(shape, options, epoch, whole_words, kinds, blank):
    """The tokens are random, including ``<unk>``, or all ``<unk>``; test_pairs.py uses numbered tokens."""
    rng = np.random.default_rng(options["seed"])
    documents = [[rng.integers(UNK, UNK + kinds, size).tolist() for size in sizes] for sizes in shape]
    dictionary = word_dictionary(60, start=symbols.WORD_START)
    masker = TokenMasker(dictionary, dictionary.index(symbols.MASK), whole_words=whole_words)
    specials = {BOS, PAD, EOS, UNK, dictionary.index(symbols.MASK)}
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(f"{folder}/train", [[]] * blank[0] + documents + [[]] * blank[1])
        data = SentencePairDataset(corpus, masker, BOS, **options)
        for other in (epoch + 1, epoch):
            data.set_epoch(other)
        samples, unmasked = items(data), [data.tokens(i) for i in range(len(data))]
        np.random.seed(epoch)  # must not matter; nor must the order or earlier epochs
        again = SentencePairDataset(corpus, masker, BOS, epoch=epoch, **options)
        assert not differences([again[i] for i in reversed(range(len(again)))][::-1], samples)
        np.testing.assert_array_equal(data.num_tokens_vec(np.arange(len(data))[::-1]), data.sizes[::-1])

    text = []
    for i, (sample, tokens) in enumerate(zip(samples, unmasked, strict=True)):
        source, target, label = sample["source"].numpy(), sample["target"].numpy(), sample["label"]
        chosen = target != PAD
        assert len(tokens) == data.sizes[i] == data.size(i) == data.num_tokens(i) <= options["tokens_per_sample"]
        np.testing.assert_array_equal(np.where(chosen, target, source), tokens)
        assert not specials & set(target[chosen]) and not {BOS, PAD, EOS, UNK} & set(source[chosen])
        assert chosen.any() == (tokens > UNK).any()
        ends = np.flatnonzero(tokens == EOS).tolist()
        assert tokens[0] == BOS and ends[-1] == len(tokens) - 1
        assert ends[1:-1] == ([] if label == -1 else [ends[0] + 1])
        a, b = tokens[1 : ends[0]].tolist(), tokens[ends[0] + 2 : -1].tolist()
        assert a and bool(b) == (label >= 0)
        text += b + a if label == 1 else a + b
    if options["objective"] != "nsp":
        assert text == [token for document in documents for sentence in document for token in sentence]


def test_masks_differ_between_seeds_and_epochs_for_the_same_text(tmp_path):
    corpus = write_corpus(tmp_path / "train", number_tokens([[60]]))
    data = [dataset(corpus, tokens_per_sample=80, seed=seed, epoch=epoch) for seed in (1, 2) for epoch in (1, 2, 3)]
    assert len({tuple(each[0]["target"].tolist()) for each in data}) == 6


def test_set_epoch_is_cheap_when_it_is_the_same(corpus):
    data = dataset(corpus)
    plan = data.plan
    data.set_epoch(1)
    assert data.plan is plan
    data.set_epoch(2)
    assert data.plan is not plan


def test_evaluation_is_the_same_in_every_epoch(corpus):
    data = dataset(corpus, training=False, epoch=5)
    before, order = items(data), data.ordered_indices()
    data.set_epoch(2)
    assert not differences(items(data), before)
    np.testing.assert_array_equal(data.ordered_indices(), order)
    assert data.can_reuse_epoch_itr_across_epochs
    assert not dataset(corpus).can_reuse_epoch_itr_across_epochs
    assert not differences(items(dataset(corpus, training=False, epoch=1)), before)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_what_the_main_process_gives(corpus, context):
    data = dataset(corpus, epoch=2)
    loader = DataLoader(data, 8, collate_fn=data.collater, num_workers=2, multiprocessing_context=context)
    expected = [data.collater([data[i] for i in range(low, min(low + 8, len(data)))]) for low in range(0, len(data), 8)]
    assert not differences(list(loader), expected)


def test_order_is_by_size_random_among_equals_and_its_own(corpus):
    data = dataset(corpus)
    order = data.ordered_indices()
    assert sorted(order) == list(range(len(data)))
    assert (np.diff(data.sizes[order]) >= 0).all()
    np.random.seed(3)
    np.testing.assert_array_equal(data.ordered_indices(), order)
    assert (np.diff(order)[np.diff(data.sizes[order]) == 0] < 0).any()
    data.set_epoch(2)
    assert data.ordered_indices().tolist() != order.tolist()


def test_little_padding(corpus):
    data = dataset(corpus)
    batches = data.batch_by_size(data.ordered_indices(), max_tokens=400)
    real = sum(data.sizes[batch].sum() for batch in batches)
    padded = sum(data.sizes[batch].max() * len(batch) for batch in batches)
    assert sum(map(len, batches)) == len(data)
    assert real / padded > 0.9


def test_nothing_is_too_long_for_fairseq(corpus):
    data = dataset(corpus)
    indices, ignored = data.filter_indices_by_size(data.ordered_indices(), 40)
    assert len(indices) == len(data)
    assert ignored == []
    _, ignored = data.filter_indices_by_size(data.ordered_indices(), 39)
    assert (data.sizes[ignored] == 40).all() and len(ignored) > 0


@pytest.mark.parametrize(("objective", "multiple"), [("sop", 1), ("none", 1), ("nsp", 7)])
def test_collater(corpus, objective, multiple):
    """Batches up to each length, which is rounded up to the multiple, but not beyond the longest sample."""
    data = dataset(corpus, objective=objective, length_multiple=multiple)
    labels = {} if objective == "none" else {"sentence_target"}
    for longest in range(data.sizes.min(), 41):
        indices = np.flatnonzero(data.sizes <= longest)[-8:]
        samples, sizes = [data[i] for i in indices], data.sizes[indices]
        batch = data.collater(samples)
        assert set(batch) == {"id", "nsentences", "ntokens", "net_input", "target", "masked_positions", *labels}
        assert set(batch["net_input"]) == {"src_tokens", "src_lengths", "has_padding"}
        assert batch["id"].tolist() == indices.tolist()
        assert (batch["nsentences"], batch["ntokens"]) == (len(indices), sizes.sum())
        source, target = batch["net_input"]["src_tokens"], batch["target"]
        assert batch["net_input"]["src_lengths"].tolist() == sizes.tolist()
        assert batch["net_input"]["has_padding"] is source.eq(PAD).any().item()
        assert batch["masked_positions"].tolist() == target.flatten().ne(PAD).nonzero().flatten().tolist()
        for name, rows in (("source", source), ("target", target)):
            assert rows.shape == (len(indices), min(-(-sizes.max() // multiple) * multiple, 40))
            assert rows.dtype == torch.int64
            for row, sample in zip(rows, samples, strict=True):
                assert torch.equal(row[: len(sample[name])], sample[name])
                assert (row[len(sample[name]) :] == PAD).all()
        for name in labels:
            assert batch[name].dtype == torch.int64
            assert batch[name].tolist() == data.plan.labels[indices].tolist()
    idle = data.collater([])  # for a worker without samples
    assert (idle["nsentences"], idle["ntokens"], len(idle["id"])) == (0, 0, 0)
    assert idle["target"].eq(PAD).all() and idle["net_input"]["src_tokens"].eq(PAD).all()
    assert idle["net_input"]["has_padding"] and not idle["net_input"]["src_lengths"].any()
    assert idle.keys() == batch.keys()
