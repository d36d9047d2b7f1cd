"""A saved folder needs nothing but transformers: its code is the package's, made flat, and gives the same numbers."""

import ast
import shutil

import torch
from small_port import alone, batch, config, folder, perturbed  # noqa: F401  folder is a fixture
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining, AutoTokenizer, pipeline

from fairseq_lambda.huggingface import LambdaBertForMaskedLM, LambdaBertForPreTraining, LambdaBertForTokenClassification
from fairseq_lambda.huggingface.flat_code import AUTO_MAP, flat_files

TEXT = "The film was <mask> in 1997."


def test_code_is_the_packages():
    files = flat_files()
    assert {"modeling_lambda_bert.py", "ops_reference.py", "ops_banded_mix.py", "ops.py"} <= files.keys()
    assert 'f"fairseq_lambda.ops.triton.{name}"' in files["ops_triton_support.py"]  # the package's, if it is installed
    assert not any("triton_mix" in name or "kernels" in name for name in files)
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and f"{node.module}.py" in files, (name, node.module)
            elif isinstance(node, ast.ImportFrom | ast.Import):
                module = getattr(node, "module", None) or node.names[0].name
                assert module.split(".")[0] not in ("fairseq_lambda", "fairseq", "triton", "sentencepiece"), (
                    name,
                    module,
                )


def test_written_are_all_files_and_the_auto_map(folder):  # noqa: F811
    for name, text in flat_files().items():
        assert (folder / name).read_text() == text
    for place in AUTO_MAP.values():
        module, name = place.split(".")
        assert name in (folder / f"{module}.py").read_text()


LOAD = """
import json, torch, transformers
from transformers import AutoTokenizer, pipeline
folder, again, trust = "small-bert", "again", {"trust_remote_code": True}
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)  # 5.x would ask
texts = ["The film was <mask> in 1997.", "A city"]
inputs = tokenizer(texts, ["Near the river"] * 2, padding=True, return_tensors="pt")
found = {"ids": inputs.input_ids.tolist()}
with torch.no_grad():
    for name in ("AutoModel", "AutoModelForMaskedLM", "AutoModelForPreTraining"):
        model = getattr(transformers, name).from_pretrained(folder, **trust).eval()
        found[name] = model(**inputs)[0].tolist()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    for name in ("SequenceClassification", "TokenClassification", "QuestionAnswering"):
        getattr(transformers, "AutoModelFor" + name).from_pretrained(folder, **trust)
    for backend in ("reference", "banded"):
        config = transformers.AutoConfig.from_pretrained(folder, lambda_backend=backend, **trust)
        model = transformers.AutoModelForPreTraining.from_pretrained(folder, config=config, **trust)
        found[backend] = model(**inputs)[0].tolist()
    try:
        transformers.AutoConfig.from_pretrained(folder, lambda_backend="triton", **trust)
        transformers.AutoModel.from_pretrained(folder, lambda_backend="triton", **trust)
    except ValueError as error:
        found["triton"] = str(error)
    # a second generation, written without the package
    model.save_pretrained(again)
    tokenizer.save_pretrained(again)
    model = transformers.AutoModelForPreTraining.from_pretrained(again, **trust)
    found["again"] = model(**inputs)[0].tolist()
found["mask"] = [p["sequence"] for p in pipeline("fill-mask", again, **trust)("The film was <mask> in 1997.")]
print(json.dumps(found))
"""


def test_loads_and_saves_without_the_package(folder, tmp_path):  # noqa: F811
    shutil.copytree(folder, tmp_path / "small-bert")
    found = alone(LOAD, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = ["The film was <mask> in 1997.", "A city"]
    inputs = tokenizer(texts, ["Near the river"] * 2, padding=True, return_tensors="pt")
    assert found["ids"] == inputs.input_ids.tolist()
    for auto in (AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining):
        expected = auto.from_pretrained(folder)(**inputs)[0]
        torch.testing.assert_close(torch.tensor(found[auto.__name__]), expected, rtol=0, atol=1e-6)
    for name in ("reference", "banded", "again"):
        torch.testing.assert_close(torch.tensor(found[name]), expected, rtol=0, atol=2e-6)
    assert "fairseq_lambda" in found["triton"] and "not installed" in found["triton"]
    assert found["mask"] == [p["sequence"] for p in pipeline("fill-mask", str(folder))(texts[0])]
    for name, text in flat_files().items():
        assert (tmp_path / "again" / name).read_text() == text


def test_the_package_is_used_where_it_is_installed(folder):  # noqa: F811
    assert type(AutoModelForPreTraining.from_pretrained(folder)) is LambdaBertForPreTraining
    model, report = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert type(model) is LambdaBertForMaskedLM and not any(report.values())


def test_labels_travel_with_the_model(tmp_path):
    names = {0: "O", 1: "B-PER", 2: "I-PER"}
    made = config(num_labels=3, id2label=names, label2id={name: i for i, name in names.items()})
    model = perturbed(LambdaBertForTokenClassification(made))
    model.save_pretrained(tmp_path)
    again = LambdaBertForTokenClassification.from_pretrained(tmp_path)
    assert again.config.id2label == names
    ids, mask = batch()
    assert torch.equal(again(ids, mask).logits, model(ids, mask).logits)
