"""An exported folder that was altered, by accident or on purpose, is refused in one line."""

import json
import shutil
import struct

import pytest
import torch
from test_recovery import refused
from training import differences, load, train

from fairseq_lambda.checkpointing.exported import CONFIG, WEIGHTS
from fairseq_lambda.commands import evaluate
from fairseq_lambda.commands import export as command
from fairseq_lambda.files import sha256
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.loading import load_checkpoint


@pytest.fixture(scope="module")
def original(toy_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "model"
    command.main([str(toy_run), "--dest", str(folder)])
    return folder


@pytest.fixture
def exported(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


def test_weights_are_those_of_the_checkpoint_and_stored_once(original, toy_run):
    one = LambdaBertModel.from_pretrained(toy_run).model.state_dict()
    two = LambdaBertModel.from_pretrained(original).model.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    parameters = json.loads((original / CONFIG).read_text())["parameters"]
    assert (original / WEIGHTS).stat().st_size < 4 * parameters + 10_000  # each once, in float32
    assert not list(original.glob("*.pt"))


def test_an_exported_model_can_be_exported_again(exported, tmp_path):
    command.main([str(exported), "--dest", str(tmp_path / "again")])
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (exported / WEIGHTS).read_bytes()


def test_float16_is_half_the_size_and_within_its_rounding(toy_run, original, tmp_path):
    command.main([str(toy_run), "--dest", str(tmp_path / "half"), "--dtype", "float16"])
    before = LambdaBertModel.from_pretrained(original).model.state_dict()
    after = LambdaBertModel.from_pretrained(tmp_path / "half").model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], weight.half().float()) for name, weight in before.items())
    assert after["encoder.bert.lm_head.weight"].data_ptr() == after["encoder.bert.embed_tokens.weight"].data_ptr()
    weights = tmp_path / "half" / WEIGHTS
    assert weights.stat().st_size < (original / WEIGHTS).stat().st_size / 2 + 5_000  # the header stays
    assert weights.stat().st_mode == (tmp_path / "half" / CONFIG).stat().st_mode
    assert "| weights | float16, " in (tmp_path / "half/README.md").read_text()
    command.main([str(tmp_path / "half"), "--dest", str(tmp_path / "again"), "--dtype", "float16"])
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == weights.read_bytes()


def test_a_weight_that_float16_does_not_have(toy_run, tmp_path):
    state = load(toy_run)
    state["model"]["encoder.bert.layernorm_embedding.weight"][3] = 70_000
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(
        ValueError, match="layernorm_embedding.weight holds 7e.04, and float16 ends at 65504: export it"
    ):
        command.main([str(tmp_path), "--dest", str(tmp_path / "half"), "--dtype", "float16"])
    assert not (tmp_path / "half").exists()
    command.main([str(tmp_path), "--dest", str(tmp_path / "whole")])


def weights_file(header, data=b"", length=None):
    encoded = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def tensor(start, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


ATTACKS = {
    "empty": b"",
    "a header longer than the file": weights_file({"a": tensor(0, 4)}, bytes(4), length=2**62),
    "a header of the largest size": weights_file(b"", length=2**64 - 1),
    "no JSON": weights_file(b"{{{{"),
    "not UTF-8": weights_file(b'{"\xff": 1}'),
    "offsets past the end": weights_file({"a": tensor(0, 400, (100,))}, bytes(4)),
    "offsets backwards": weights_file({"a": tensor(4, 0)}, bytes(4)),
    "offsets that overlap": weights_file({"a": tensor(0, 4), "b": tensor(0, 4)}, bytes(4)),
    "a hole": weights_file({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12)),
    "a shape that overflows": weights_file({"a": tensor(0, 4, (2**40, 2**40))}, bytes(4)),
    "a shape unlike its bytes": weights_file({"a": tensor(0, 4, (2,))}, bytes(4)),
    "a negative shape": weights_file({"a": tensor(0, 4, (-1,))}, bytes(4)),
    "an unknown type": weights_file({"a": tensor(0, 4, dtype="PICKLE")}, bytes(4)),
    "bytes behind the tensors": weights_file({"a": tensor(0, 4)}, bytes(40)),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("with_its_sum", [False, True])
def test_attack_files(name, with_its_sum, exported):
    """Also if the list of checksums was changed to match: then safetensors' own checks refuse the file."""
    (exported / WEIGHTS).write_bytes(ATTACKS[name])
    if with_its_sum:
        config = json.loads((exported / CONFIG).read_text())
        config["sha256"][WEIGHTS] = sha256(exported / WEIGHTS)
        (exported / CONFIG).write_text(json.dumps(config))
    refuse(exported)


def edited(exported, **parts):
    config = json.loads((exported / CONFIG).read_text())
    for part, options in parts.items():
        config[part] = {**config[part], **options} if options else options
    (exported / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("form", ["exported", "checkpoint"])
def test_options_of_a_checkpoint_run_no_code(form, exported, toy_run, tmp_path):
    """fairseq's wav2vec2 evaluates this option as Python."""
    code = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch() or [(512, 10, 5)]"
    model = {"_name": "wav2vec2", "conv_feature_layers": code}
    if form == "exported":
        edited(exported, model=model)
    else:
        state = torch.load(toy_run / "checkpoint_last.pt", weights_only=True)
        state["cfg"]["model"] = model
        exported = tmp_path / "run"
        exported.mkdir()
        torch.save(state, exported / "checkpoint_last.pt")
    with pytest.raises(ValueError, match="its model, wav2vec2, is not one of this plugin"):
        LambdaBertModel.from_pretrained(exported)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"model": {"_name": "none"}}, "its model, none, is not one of this plugin"),
        ({"task": {"_name": "translation"}}, "its task, translation, is not one of this plugin"),
        ({"task": None}, "it has no options of its task"),
        ({"model": {"note": ["${oc.env:HOME}"]}}, "the option note of its model refers to something outside"),
        ({"sha256": None}, "is not as it was exported|is not among the files|NoneType"),
        ({"model": {"encoder_embed_dim": 10**9}}, "do not fit together"),
        ({"model": {"encoder_embed_dim": "wide"}}, "do not fit together"),
    ],
)
def test_options_that_do_not_belong_there_are_one_line(parts, message, exported):
    edited(exported, **parts)
    with pytest.raises(ValueError, match=message) as caught:
        LambdaBertModel.from_pretrained(exported)
    assert "\n" not in str(caught.value) and str(exported) in str(caught.value)


def test_every_file_needs_its_sum(exported):
    config = json.loads((exported / CONFIG).read_text())
    del config["sha256"]["dict.txt"]
    (exported / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"dict\.txt is not among the files that were exported"):
        load_checkpoint(exported / WEIGHTS)


def test_another_criterion_is_not_built_by_evaluate(exported, toy_data):
    edited(exported, criterion={"_name": "wav2vec"})
    with pytest.raises(ValueError, match="criterion, wav2vec, is not one of this plugin"):
        evaluate.main([str(exported), "--data", str(toy_data), "--cpu"])


def refuse(folder):
    with pytest.raises(ValueError, match="cannot be read as an exported model") as caught:
        load_checkpoint(folder / WEIGHTS)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "dict.txt"])
def test_cut_or_changed_files(name, exported):
    whole = (exported / name).read_bytes()
    for length in (0, 1, 8, len(whole) // 2, len(whole) - 2):
        (exported / name).write_bytes(whole[:length])
        refuse(exported)
    if name != CONFIG:
        for at in (0, 9, len(whole) // 2, len(whole) - 1):
            changed = bytearray(whole)
            changed[at] ^= 1
            (exported / name).write_bytes(changed)
            refuse(exported)
    (exported / name).unlink()
    if name != WEIGHTS:
        refuse(exported)


@pytest.mark.parametrize("form", ["run", "run/checkpoint_best.pt", "model", f"model/{WEIGHTS}"])
def test_a_training_starts_from_any_form_of_a_model(form, toy_data, toy_run, tmp_path):
    shutil.copytree(toy_run, tmp_path / "run")
    command.export(toy_run, tmp_path / "model")
    train(toy_data, tmp_path / "new", 1, "--finetune-from-model", tmp_path / form, "--lr", 0)
    before, after = load(toy_run, "checkpoint_best.pt")["model"], load(tmp_path / "new")["model"]
    assert not differences(dict(before), dict(after))


def test_a_new_run_is_told_all_flags_that_it_lacks(toy_data, toy_run, tmp_path, capsys):
    new = (toy_data, tmp_path / "new", 1, "--finetune-from-model", toy_run)
    message = refused(capsys, *new, "--lambda-layers", "0", "--lambda-norm", "rms")
    assert message.rstrip().endswith(": add --lambda-layers 0,1 --lambda-norm layer"), message


def test_a_folder_without_a_model_is_named(toy_data, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    message = refused(capsys, toy_data, tmp_path / "new", 1, "--finetune-from-model", tmp_path / "empty")
    assert f"--finetune-from-model {tmp_path / 'empty'} holds no model.safetensors or model.pt" in message
    message = refused(capsys, toy_data, tmp_path / "new", 1, "--finetune-from-model", "absent")
    assert "--finetune-from-model absent: no such folder; give a training folder, an exported one, or an " in message
