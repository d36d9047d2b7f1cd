"""Binarised text compared with fairseq's own encoding of the same pieces, and with its own files."""

from collections import Counter

import numpy as np
import pytest
import torch
from fairseq.data.indexed_dataset import MMapIndexedDataset, make_builder
from preparing import learned

from fairseq_lambda.corpora import binarise as module
from fairseq_lambda.corpora import indexed_files
from fairseq_lambda.corpora.binarise import binarise
from fairseq_lambda.corpora.encoding import PieceEncoder
from fairseq_lambda.corpora.indexed_files import IndexedFiles
from fairseq_lambda.corpora.shared_vocabulary import Vocabulary
from fairseq_lambda.symbols import UNK


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "model"
    learned(["ba ke. li mo."] * 20, 20, path)
    return Vocabulary.learned(path.read_bytes())


def write(path, documents):
    path.write_text("\n".join("".join(f"{line}\n" for line in document) for document in documents), encoding="utf-8")
    return path


def by_fairseq(vocabulary, lines):
    dictionary, encoder = vocabulary.dictionary(), PieceEncoder(vocabulary.model)
    encoded = encoder.encode(lines)
    return [dictionary.encode_line(" ".join(e.pieces), add_if_not_exist=False).tolist() for e in encoded]


@pytest.mark.parametrize("block", [1, 12, 1 << 20])
@pytest.mark.parametrize("workers", [0, 2])
def test_ids_are_those_of_fairseq_and_no_empty_line_divides_a_document(
    tmp_path, vocabulary, monkeypatch, block, workers
):
    monkeypatch.setattr(module, "_BYTES_PER_CALL", block)
    # U+2028 on its own has no pieces, wherever it is
    documents = [["\u2028"], ["ba ke.", "\u2028", "li."], ["\u2028"], ["mo <unk> \u6f22."], ["\u2028", "ba."]]
    text = write(tmp_path / "text", documents)
    counts, pieces = binarise(text, tmp_path / "split", vocabulary, workers)
    assert (counts.documents, counts.sentences, counts.literal_unknowns, counts.encoder_unknowns) == (3, 4, 1, 1)
    assert counts.tokens == pieces.total() + 2 and UNK not in pieces
    expected = by_fairseq(vocabulary, ["ba ke.", "li.", "", "mo <unk> \u6f22.", "", "ba."])
    assert [line.tolist() for line in MMapIndexedDataset(str(tmp_path / "split"))] == expected
    counted = Counter(token for line in expected for token in line if token > 3)
    assert counted == {vocabulary.dictionary().index(piece): n for piece, n in pieces.items() if n}


def test_pieces_in_the_order_of_a_given_dictionary(tmp_path, vocabulary):
    reverse = Vocabulary.given(vocabulary.model, ["<s>", "<pad>", *reversed(vocabulary.symbols), "<mask>"], "a model")
    assert reverse.symbols == vocabulary.symbols[::-1] and reverse.digest != vocabulary.digest
    binarise(write(tmp_path / "text", [["ba ke."], ["li mo."]]), tmp_path / "split", reverse, 0)
    data = MMapIndexedDataset(str(tmp_path / "split"))
    assert [line.tolist() for line in data] == by_fairseq(reverse, ["ba ke.", "", "li mo."])


@pytest.mark.parametrize("symbols", [100, 70_000])
def test_the_files_are_those_of_fairseqs_builder(tmp_path, monkeypatch, symbols):
    monkeypatch.setattr(indexed_files, "_LINES", 7)
    rng = np.random.default_rng(0)
    lines = [rng.integers(0, symbols, rng.integers(1, 9)) for _ in range(40)]
    builder = make_builder(str(tmp_path / "theirs.bin"), "mmap", vocab_size=symbols)
    for line in lines:
        builder.add_item(torch.from_numpy(line))
    builder.finalize(str(tmp_path / "theirs.idx"))
    with IndexedFiles(tmp_path / "ours", symbols) as ours:
        for part in (lines[:13], lines[13:14], lines[14:]):
            ours.add(np.concatenate(part), np.array([len(line) for line in part]))
    for end in ("bin", "idx"):
        assert (tmp_path / f"ours.{end}").read_bytes() == (tmp_path / f"theirs.{end}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.bin", "ours.idx", "theirs.bin", "theirs.idx"]
