"""Binarised text against fairseq's own encoding of the same pieces."""

from collections import Counter

from fairseq.data.indexed_dataset import MMapIndexedDataset

from fairseq_lambda.corpora.binarise import binarise, write_documents
from fairseq_lambda.corpora.vocabulary import PieceEncoder, train_sentencepiece
from fairseq_lambda.symbols import UNK


def test_ids_are_those_of_fairseq_and_no_empty_line_divides_a_document(tmp_path):
    train_sentencepiece(lambda: ["ba ke. li mo."] * 20, 20, tmp_path / "model")
    encoder = PieceEncoder(tmp_path / "model")
    dictionary = encoder.dictionary(Counter())
    write_documents([["ba ke.", "\u2028", "li."], ["\u2028"], ["mo <unk> \u6f22."]], tmp_path / "text")
    counts, pieces = binarise(tmp_path / "text", tmp_path / "split", encoder, dictionary, 1)
    assert (counts.documents, counts.sentences, counts.literal_unknowns, counts.encoder_unknowns) == (2, 3, 1, 1)
    assert counts.tokens == pieces.total() and pieces[UNK] == 2
    encoded = encoder.encode(["ba ke.", "li.", "", "mo <unk> \u6f22."])
    expected = [dictionary.encode_line(" ".join(line.pieces), add_if_not_exist=False).tolist() for line in encoded]
    assert [line.tolist() for line in MMapIndexedDataset(str(tmp_path / "split"))] == expected
