"""Common uses of a model in transformers, each with a small one."""

import json
import shutil
import warnings

import pytest
import torch
from small_port import alone, batch, config, folder, perturbed, sentences  # noqa: F401  folder is a fixture
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    pipeline,
)

from fairseq_lambda.huggingface import LambdaBertForMaskedLM, LambdaBertForSequenceClassification, LambdaBertModel


def arguments(path, **options):
    own = {"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "report_to": [], "use_cpu": True}
    own |= {"disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    return TrainingArguments(output_dir=str(path), **(own | options))


def labelled(tokenizer, count=32):
    return [{**tokenizer(text), "labels": int("film" in text.lower())} for text in sentences(count)]


def test_pipeline_fill_mask(folder):  # noqa: F811
    fill = pipeline("fill-mask", str(folder))
    for text in ("The film was <mask> in 1997", "<mask> was released", "The (<mask>) city"):
        found = fill(text, top_k=3)
        assert len(found) == 3 and found[0]["score"] >= found[2]["score"]
        assert all(p["sequence"].replace(p["token_str"], "", 1).split() for p in found)
    both = fill("The <mask> was <mask> .")
    assert len(both) == 2 and all("<mask>" in p["sequence"] for p in both[0])


def test_trainer_fine_tunes_and_its_checkpoint_loads_elsewhere(folder, tmp_path):  # noqa: F811
    tokenizer = AutoTokenizer.from_pretrained(folder)
    names = {0: "other", 1: "film"}
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, id2label=names, label2id={name: i for i, name in names.items()}
    )
    data = labelled(tokenizer)
    trainer = Trainer(
        model=model,
        args=arguments(tmp_path / "run", save_strategy="steps", save_steps=4, gradient_accumulation_steps=2),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )
    trainer.train()
    model.config.output_lambdas = True
    predicted = trainer.predict(data).predictions
    assert predicted.shape == (32, 2)  # neither lambdas nor states in it
    code = """
import json
from transformers import pipeline
classify = pipeline("text-classification", "run/checkpoint-4", trust_remote_code=True, top_k=None)
print(json.dumps([{p["label"]: p["score"] for p in row} for row in classify(TEXTS)]))
"""
    found = alone(f"TEXTS = {sentences(32)[:4]!r}\n" + code, tmp_path)
    expected = torch.tensor(predicted[:4]).softmax(-1)
    torch.testing.assert_close(
        torch.tensor([[row["other"], row["film"]] for row in found]), expected, atol=1e-5, rtol=0
    )


def test_trainer_pretrains_on(folder, tmp_path):  # noqa: F811
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder)
    data = [tokenizer(text) for text in sentences(32)]
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)
    options = {"gradient_checkpointing": True, "per_device_eval_batch_size": 8}
    trainer = Trainer(
        model=model, args=arguments(tmp_path, **options), train_dataset=data, eval_dataset=data, data_collator=collator
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before


def test_lora_on_the_projections(folder, tmp_path):  # noqa: F811
    peft = pytest.importorskip("peft")
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    targets = ["q_proj", "k_proj", "v_proj", "gate_proj", "qkv_proj"]
    lora = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=targets, r=2))
    adapted = [name for name, _ in lora.named_modules() if name.endswith("lora_A.default")]
    assert len(adapted) == 5  # four of the lambda layer, one of the attention layer
    tokenizer = AutoTokenizer.from_pretrained(folder)
    frozen = {n: p.clone() for n, p in lora.named_parameters() if not p.requires_grad}
    Trainer(
        model=lora,
        args=arguments(tmp_path, gradient_checkpointing=True),
        train_dataset=labelled(tokenizer),
        data_collator=DataCollatorWithPadding(tokenizer),
    ).train()
    assert all(torch.equal(p, frozen[n]) for n, p in lora.named_parameters() if n in frozen)
    assert all(p.any() for n, p in lora.named_parameters() if "lora_B" in n)
    lora.save_pretrained(tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    again = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    ids, mask = batch()
    torch.testing.assert_close(again.eval()(ids, mask).logits, lora.eval()(ids, mask).logits)
    torch.testing.assert_close(lora.merge_and_unload()(ids, mask).logits, again(ids, mask).logits, atol=1e-5, rtol=1e-4)


def test_sentence_transformers_with_mean_pooling(folder, tmp_path):  # noqa: F811
    library = pytest.importorskip("sentence_transformers")
    try:
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    except ImportError:
        from sentence_transformers.models import Pooling, Transformer
    transformer = Transformer(str(folder))
    dimension = (
        transformer.get_word_embedding_dimension() if hasattr(transformer, "get_word_embedding_dimension") else 32
    )
    embedder = library.SentenceTransformer(modules=[transformer, Pooling(dimension, "mean")], device="cpu")
    texts = ["The film was released", "A city near the river , and a team"]
    found = torch.tensor(embedder.encode(texts))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LambdaBertModel.from_pretrained(folder)
    for text, row in zip(texts, found, strict=True):
        features = model(**tokenizer(text, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(row, features[0].mean(0), atol=1e-5, rtol=1e-4)
    long = "the film " * 400
    features = model(**tokenizer(long, return_tensors="pt")).last_hidden_state
    assert features.shape[1] > 600  # nothing is cut where positions have no limit
    torch.testing.assert_close(torch.tensor(embedder.encode(long)), features[0].mean(0), atol=1e-5, rtol=1e-4)


def test_compiled(folder):  # noqa: F811
    model = LambdaBertForMaskedLM.from_pretrained(folder)
    compiled = torch.compile(model, backend="aot_eager")
    for length in (9, 20):
        ids, mask = batch(length=length)
        torch.testing.assert_close(compiled(ids, mask).logits[mask.bool()], model(ids, mask).logits[mask.bool()])


@pytest.mark.skipif(not shutil.which("g++"), reason="torch's compiler, inductor, needs g++ on a CPU")
def test_trainer_compiles(folder, tmp_path):  # noqa: F811
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trainers = [
        Trainer(
            model=LambdaBertForMaskedLM.from_pretrained(folder),
            args=arguments(tmp_path, max_steps=2, torch_compile=compiled),
            train_dataset=[{**tokenizer(text), "labels": tokenizer(text)["input_ids"]} for text in sentences(16)],
            data_collator=DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=16),
        )
        for compiled in (False, True)
    ]
    plain, compiled = (trainer.train().training_loss for trainer in trainers)
    assert compiled == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"lambda_layers": "0", "attention_rotary": True}, {"lambda_norm": "batch"}])
def test_exported(options):
    model = perturbed(LambdaBertForSequenceClassification(config(num_labels=3, **options)))
    ids, mask = batch()
    rows, tokens = torch.export.Dim("rows", min=1), torch.export.Dim("tokens", min=2)
    program = torch.export.export(
        model, (), {"input_ids": ids, "attention_mask": mask},
        dynamic_shapes={"input_ids": {0: rows, 1: tokens}, "attention_mask": {0: rows, 1: tokens}},
    ).module()  # fmt: skip
    for inputs in (batch(), batch(rows=5, length=21), (ids[:1, :7], mask[:1, :7])):
        ids, mask = (x.contiguous() for x in inputs)
        found = program(input_ids=ids, attention_mask=mask).logits
        torch.testing.assert_close(found, model(ids, mask).logits, atol=1e-5, rtol=1e-4)


def test_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = perturbed(LambdaBertForSequenceClassification(config(num_labels=3, return_dict=False)))
    ids, mask = batch()
    rows, tokens = torch.export.Dim("rows", min=1), torch.export.Dim("tokens", min=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (), tmp_path / "model.onnx", kwargs={"input_ids": ids, "attention_mask": mask}, dynamo=True,
            dynamic_shapes={"input_ids": {0: rows, 1: tokens}, "attention_mask": {0: rows, 1: tokens}},
            input_names=["input_ids", "attention_mask"], output_names=["logits"], verbose=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for ids, mask in (batch(), batch(rows=5, length=21)):
        (found,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        torch.testing.assert_close(torch.tensor(found), model(ids, mask)[0], atol=1e-4, rtol=1e-3)


def test_a_json_of_the_configuration_holds_no_path(folder):  # noqa: F811
    assert str(folder) not in json.dumps(json.loads((folder / "config.json").read_text()))
