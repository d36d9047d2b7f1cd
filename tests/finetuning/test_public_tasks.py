"""Seven public tasks are read from their files as they are handed out; TASKS_DIR names the folder that holds them."""

import os
from pathlib import Path

import pytest

from fairseq_lambda.finetuning.examples import Source
from fairseq_lambda.finetuning.labels import learn_labels

FOLDER = os.environ.get("TASKS_DIR")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="TASKS_DIR names no folder")
COLUMNS = {
    "cola": {"text": ("4",), "label": ("2",)}, "20ng": {"text": ("2",), "label": ("1",)},
    "mrpc": {"text": ("#1 String", "#2 String"), "label": ("Quality",)},
}  # fmt: skip


@pytest.mark.parametrize("file,examples,labels,texts", [
    ("cola/train.tsv", 8551, 2, 1), ("cola/dev.tsv", 527, 2, 1), ("sst2/train.tsv", 67349, 2, 1),
    ("sst2/dev.tsv", 872, 2, 1), ("rte/train.tsv", 2490, 2, 2), ("rte/dev.tsv", 277, 2, 2),
    ("mrpc/msr_paraphrase_train.txt", 4076, 2, 2), ("mrpc/msr_paraphrase_test.txt", 1725, 2, 2),
    ("trec/train.txt", 5452, 6, 1), ("trec/test.txt", 500, 6, 1), ("20ng/train.tsv.xz", 11314, 20, 1),
    ("20ng/test.tsv.xz", 7532, 20, 1), ("ud_ewt/train.conllu", 12544, 17, 1), ("ud_ewt/dev.conllu", 2001, 17, 1),
    ("ud_ewt/test.conllu", 2077, 17, 1),
])  # fmt: skip
def test_every_example_is_read(file, examples, labels, texts):
    source = Source(Path(FOLDER, file), **COLUMNS.get(file.split("/")[0], {}))
    found = learn_labels(source, source.name, None, None)
    assert (found.examples, len(found.names), found.texts) == (examples, labels, texts)
    assert all(("empty" in note) == file.startswith("20ng") for note in source.notes())
