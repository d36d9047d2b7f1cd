"""``lambda-bert inspect`` and the page that it writes, for a trained folder and for cores of every kind."""

import re
import sys
import warnings
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch
from fine_tunings import topic  # noqa: F401  a fixture
from inspection_cores import ids, make_core
from pages import Page
from test_hub_interface import trained  # noqa: F401  a fixture

from fairseq_lambda import inspection
from fairseq_lambda.commands.inspect import is_of_transformers, main
from fairseq_lambda.inspection import PositionKernel, contributions, contributions_of_layers, lambdas, pictures, reader
from fairseq_lambda.inspection.page import write_page
from fairseq_lambda.inspection.pictures import labels
from fairseq_lambda.inspection.reader import Reader
from fairseq_lambda.models import LambdaBertModel


class Links(HTMLParser):
    """The addresses and texts on a page."""

    def __init__(self, page):
        super().__init__()
        self.addresses, self.texts, self.images = [], [], 0
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self.images += tag == "img"

    def handle_data(self, data):
        self.texts.append(data)


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def test_the_command_makes_one_page_that_needs_no_network(trained, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "deep" / "pictures"
    main([str(trained), "the river <mask> north.", "--out", str(out), "--other", "many bridges."])
    printed = capsys.readouterr()
    page = Links(out / "index.html")
    files = {path.name for path in out.iterdir()} - {"index.html"}
    assert printed.out == f"{len(files) // 2} pictures on one page: {out / 'index.html'}\n"
    assert printed.err.count("\n") > 4
    assert {*page.addresses} == files and page.images == len(files) / 2
    assert "the river <mask> north." in page.texts and any("many bridges." in text for text in page.texts)
    layers = len([name for name in files if name.startswith("slots-layer")]) // 2
    assert layers == 2 and {"position-kernels.png", "rollout.svg", "leave-one-out-mask1.svg"} <= files
    assert not re.search(r"https?://", (out / "index.html").read_text())

    with pytest.raises(FileExistsError, match="already exists: choose another --out, or replace it with --force"):
        run(trained, "the <mask>", "--out", out)
    main([str(trained), "the river runs.", "--out", str(out), "--force", "--layers", "1", "--head", "0"])
    names = {path.name for path in out.iterdir()}
    assert "contributions-layer1-head0.png" in names and not any("leave-one-out" in name for name in names)


def test_a_fine_tuned_models_predictions_have_a_note(trained, topic, tmp_path):  # noqa: F811
    note = "This model was fine-tuned after its masked-LM head was trained, so the two may not fit."
    for model, has_note in ((topic / "run", True), (trained, False)):
        out = tmp_path / str(has_note)
        main([str(model), "the river <mask> north.", "--out", str(out)])
        assert (note in (out / "index.html").read_text()) == has_note and (out / "leave-one-out-mask1.svg").is_file()


@pytest.mark.parametrize("flags,message", [
    (["--layers", "7"], "--layers 7: layer 7 does not exist"),
    (["--layers", "x"], "--layers x: expected"),
    (["--layers", "none"], "--layers none draws nothing: give layers such as 0,2-3, or leave it out for all"),
    (["--head", "9"], "--head 9: layer 0 has 2 heads, counted from 0"),
    (["--other", "caf\udce9"], "a text contains '\\udce9', which is not UTF-8: convert it, for instance with iconv"),
])  # fmt: skip
def test_wrong_flags_are_one_line(trained, tmp_path, flags, message, capsys):  # noqa: F811
    try:
        assert run(trained, "the <mask>", "--out", tmp_path / "x", *flags) == 2
        said = capsys.readouterr().err
    except ValueError as error:  # the program prints these as one line
        said = str(error)
    assert message in said and said.strip().count("\n") == 0 and not (tmp_path / "x").exists()


def test_three_texts_and_a_missing_matplotlib(trained, tmp_path, monkeypatch, capsys):  # noqa: F811
    assert run(trained, "the", "film", "was", "--out", tmp_path / "x") == 2
    assert "3 texts: one or two are needed; quote a text with spaces" in capsys.readouterr().err
    for name in ("page", "pictures"):
        monkeypatch.delitem(sys.modules, f"fairseq_lambda.inspection.{name}")
        monkeypatch.delattr(inspection, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(trained, "the", "--out", tmp_path / "x") == 2
    assert 'pip install -e ".[inspection]"' in capsys.readouterr().err


def test_the_hub_interface_is_read_as_its_core_is(trained, tmp_path):  # noqa: F811
    bert = LambdaBertModel.from_pretrained(trained)
    text, tokens = "the river <mask> north.", bert.encode("the river <mask> north.")
    by_text, by_ids = contributions(bert, text, 1), contributions(bert.model.encoder.bert, tokens, 1)
    assert torch.equal(by_text.content, by_ids.content) and "<mask>" in by_text.tokens
    assert by_ids.tokens == [str(int(i)) for i in tokens]
    pair = contributions(bert, ("the river.", "many bridges."), 0)
    assert len(pair.tokens) == len(bert.encode("the river.", "many bridges."))
    array = lambdas(bert, ["the river.", ("the river.", "many bridges.")], tmp_path / "x.npy")
    _, expected = bert.extract_features(bert.encode("the river.", "many bridges."), return_lambdas=True)
    assert torch.allclose(torch.tensor(array[1]), torch.cat([t.detach() for t in expected]), atol=1e-5)


def test_the_documents_python_block_runs(trained, tmp_path):  # noqa: F811
    (tmp_path / "lambda_bert_mini-enwiki").symlink_to(trained)
    scope = Page("docs/inspection.md").python(tmp_path)
    assert scope["array"].shape[0] == 2 and scope["c"].content.dim() == 4 and len(scope["view"]["attention"]) == 2


@pytest.mark.parametrize("options", [
    {"dim_u": 2, "local_context": 0}, {"lambda_layers": "0", "attention_rotary": True, "gate": "none"},
    {"lambda_layers": "none"}, {"terms": "position"},
], ids=str)  # fmt: skip
def test_every_kind_of_model_has_its_page(options, tmp_path):
    core = make_core(layers=2, **options)
    files = write_page(Reader(core, core.lm_head, mask_index=int(ids(5)[3])), ids(5), tmp_path, "a <model>")
    assert {path.name for path in tmp_path.iterdir()} == {*files}
    assert "<h1>a &lt;model&gt;" in (tmp_path / "index.html").read_text()
    assert all((tmp_path / name).stat().st_size > 500 for name in files)


@pytest.mark.parametrize("options,head,mask,lacking", [
    ({}, True, False, "the first text has no <mask>: write <mask> where a word is to be predicted"),
    ({}, False, True, "the model has no masked-LM head: leave it out"),
    ({"terms": "position"}, True, True, "the model has none: leave it out"),
], ids=str)  # fmt: skip
def test_other_is_refused_where_it_would_change_nothing(options, head, mask, lacking, tmp_path):
    core = make_core(layers=2, **options)
    reads = Reader(core, core.lm_head if head else None, mask_index=int(ids(5)[3]) if mask else 59)
    with pytest.raises(ValueError, match=f"^--other .*, but {lacking}$"):
        write_page(reads, ids(5), tmp_path, "x", other=ids(6))
    assert not any(tmp_path.iterdir())


def test_a_text_too_long_for_pictures(tmp_path):
    with pytest.raises(ValueError, match="has 129 tokens, and pictures of more than 128 are illegible"):
        write_page(reader(make_core()), ids(129), tmp_path, "x")


def test_along_sums_to_the_norm_of_the_output():
    for c in contributions_of_layers(make_core(lambda_layers="0,2", max_positions=100), ids(80)):
        along = sum(c.along(part) for part in c.parts)
        torch.testing.assert_close(along, c.along(), atol=1e-4, rtol=0)
        norm = c.head_vectors().sum(2).norm(dim=-1)
        torch.testing.assert_close(along.sum(-1), norm, atol=1e-4, rtol=0)


def test_position_kernels_show_reading_whose_sign_depends_on_the_token():
    read = PositionKernel(0, torch.arange(-1, 2), torch.zeros(2, 1, 3), torch.tensor([0.0, 0, 0.6]).expand(2, 1, 3))
    figure = pictures.draw_position_kernels([read])
    assert figure.axes[0].images[0].get_array().tolist() == [[0, 0, pytest.approx(0.6)]] * 2
    assert "root mean square" in figure.axes[-1].get_ylabel()


def test_svg_keeps_text_as_text_for_the_fonts_of_the_browser(tmp_path):
    tokens = ["\u2581\u6771\u4eac", "\u2581$5", "</s>"]
    figure = pictures.draw_layers(torch.ones(2, 3, 3), tokens, 0, "a title", "share")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # matplotlib has no font for it here
        assert pictures.save(figure, tmp_path / "x") == ["x.png", "x.svg"]
    svg = ElementTree.parse(tmp_path / "x.svg")
    texts = {t.text: t.get("style") for t in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"\u6771\u4eac", "$5", "</s>", "a title", "layer"} <= set(texts)
    assert all("sans-serif" in style for style in texts.values())


def test_labels():
    shown = labels(["<s>", "\u2581The", "ing", "\u2581", "<mask>", "\u2581$5", "</s>"])
    assert shown == ["<s>", "The", "+ing", "\u2423", "<mask>", "$5", "</s>"]
    assert labels(["The\u2581", "a"]) == ["The", "a"]  # a vocabulary with the spaces at the ends of words


def test_whose_folder(tmp_path):
    assert not is_of_transformers(tmp_path)
    (tmp_path / "config.json").write_text('{"model": {}, "task": {}}')
    assert not is_of_transformers(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "lambda_bert"}')
    assert is_of_transformers(tmp_path)
