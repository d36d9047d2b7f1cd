"""docs/transformers.md: its Python runs as it stands, on a small model and a vocabulary of BERT's size."""

import shutil

import pytest
from pages import Page
from small_port import alone, folder, tokenizer  # noqa: F401  folder is a fixture
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


@pytest.mark.parametrize("number", [0, 3, 5])
def test_its_blocks_run_alone_and_ask_nothing(number, folder, tmp_path):  # noqa: F811
    """transformers 5 would ask whether to run the folder's code, for the tokenizer too."""
    block = PAGE.blocks("python")[number].text
    assert "from_pretrained(" in block and "fairseq_lambda" not in block
    shutil.copytree(folder, tmp_path / "my-bert")
    assert alone(block + "print(1)\n", tmp_path) == 1


def test_offsets_include_the_space_before_a_word():
    text = "The film was released"
    spans = tokenizer()(text, return_offsets_mapping=True, add_special_tokens=False).offset_mapping
    found = [text[start:end] for start, end in spans]
    assert " film" in found and "".join(found) == text
