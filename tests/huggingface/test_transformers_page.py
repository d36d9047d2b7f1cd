"""docs/transformers.md: its Python runs as it stands, on a small model and a vocabulary of BERT's size."""

import shutil

import pytest
from pages import Page
from small_port import folder  # noqa: F401  a fixture
from transformers import BertTokenizer

PAGE = Page("docs/transformers.md")
PROMISED = """\
from fairseq_lambda.huggingface import LambdaBertConfig, LambdaBertModel
from transformers import BertTokenizer

config = LambdaBertConfig(local_context_size=25, output_lambda_params=True)
model = LambdaBertModel(config)  # BERT's vocabulary, base size: the defaults
"""


def write_berts_vocabulary(path):
    """A vocabulary as long as BERT's, in its layout: what cannot be downloaded everywhere."""
    words = "is attention really all you need ?".split()
    lines = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    lines += [f"word{i}" for i in range(30522 - len(lines))]
    path.mkdir()
    (path / "vocab.txt").write_text("\n".join(lines) + "\n")
    BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)


def test_the_pages_python_runs(folder, tmp_path, monkeypatch):  # noqa: F811
    pytest.importorskip("peft")
    shutil.copytree(folder, tmp_path / "my-bert")
    write_berts_vocabulary(tmp_path / "bert-vocabulary")
    monkeypatch.chdir(tmp_path)
    blocks = [block.text for block in PAGE.blocks("python")]
    assert len(blocks) == 6 and blocks[2].startswith(PROMISED)
    scope = {}
    for number, block in enumerate(blocks):
        exec(block, scope)
        if number == 2:
            out, ids = scope["out"], scope["inputs"].input_ids
            assert ids.tolist() == [[101, *range(104, 111), 102]]
            assert out.last_hidden_state.shape == (1, 9, 768) and out.pooler_output.shape == (1, 768)
            assert [x.shape for x in out.lambdas] == [(1, 16, 64)] * 12
            assert out.to_tuple()[2] is out.lambdas  # the seed's order
            assert sum(p.numel() for p in scope["model"].parameters()) > 80_000_000
    assert (tmp_path / "tuned/modeling_lambda_bert.py").is_file()
