"""The card, README.md, of an exported model, made of its configuration, its scores and a text about it."""

import os
from pathlib import Path

from fairseq_lambda.commands.evaluate import table as table_of_splits
from fairseq_lambda.commands.score_tables import escaped, markdown, table
from fairseq_lambda.files import sha256
from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.version import KEY


def card(name: str, config: dict, weights: Path) -> str:
    """Return the card of a pretrained model as Markdown.

    Args:
        name: of the folder.
        config: what config.json holds.
        weights: the file beside it.
    """
    task, scores = config["task"], config["scores"] or {}
    objective = {"sop": " + sentence order", "nsp": " + next sentence", "none": ""}[str(task["sentence_objective"])]
    rows = {**about_the_model(config, weights), "longest sample in training": f"{task['tokens_per_sample']} tokens"}
    lines = [
        f"# {name}",
        "",
        f"BERT with lambda layers, trained with fairseq_lambda (masked LM{objective}).",
        "",
        *used(name, 'fill_mask("The film was <mask> in 1997.")'),
        *as_table({**rows, "seed": task["seed"]}),
        *as_it_is(config["about"]),
        *scored(scores, str(task["sentence_objective"]), weights),
        *known(scores.get("facts")),
    ]
    return "\n".join(lines)


def fine_tuned_card(name: str, config: dict, weights: Path, labels: Labels) -> str:
    """Return the card of a fine-tuned model: task, labels, scores, how to use it."""
    scores = config["scores"] or {}
    length = config["task_state"]["max_length"]
    texts = {1: "a text", 2: "two texts"}.get(labels.texts, "one text or two")
    what = {
        "classification": f"one label for {texts}", "multilabel": f"any number of labels for {texts}",
        "regression": f"a number for {texts}", "tagging": "a label per word",
    }[labels.objective]  # fmt: skip
    longer = "read in parts" if labels.objective == "tagging" else "shortened"
    rows = {
        **about_the_model(config, weights),
        "fine-tuned from": f"{scores.get('model', 'a pretrained model')}, whose licence and limits apply",
        "labels": ", ".join(map(escaped, labels.names)) or "numbers",
        "longest sample": f"{length} tokens; longer texts are {longer}",
    }
    use = "tag" if labels.objective == "tagging" else "classify"
    arguments = '"It rained.", "So we stayed at home."' if labels.texts == 2 else '"It rained."'
    lines = [
        f"# {name}",
        "",
        f"BERT with lambda layers, fine-tuned with fairseq_lambda: {what}.",
        "",
        *used(name, f"{use}({arguments})"),
        *as_table(rows),
        *as_it_is(config["about"]),
    ]
    if scores.get("splits"):
        lines += [table(scores["splits"], labels), "", f"Selected by {scores.get('metric')} on the split valid.", ""]
    return "\n".join(lines)


def about_the_model(config: dict, weights: Path) -> dict:
    """Return the rows that every model has, None where something is not known."""
    model, how = config["model"], config["training"] or {}
    layers = str(model["lambda_layers"])
    softmax = {"all": None, "none": "all"}.get(layers, "the others")
    if softmax and model.get("attention_rotary"):
        softmax += ", rotary positions"
    updates = config["updates"]
    if updates is not None and how.get("samples_per_update"):
        updates = f"{updates:,}, of {how['samples_per_update']:,} samples each"
    optimizer, schedule = how.get("optimizer"), dict(how.get("schedule") or {})
    name = schedule.pop("name", None)
    return {
        "architecture": model["_name"],
        "layers, width, heads": f"{model['encoder_layers']}, {model['encoder_embed_dim']}, "
        f"{model['encoder_attention_heads']}",
        "lambda layers": f"{layers} (key depth {model['lambda_key_depth']}, intra-depth {model['lambda_intra_depth']}, "
        f"local context {model['lambda_local_context']}, norm {model['lambda_norm']})",
        "attention layers": softmax,
        "parameters": f"{config['parameters']:,}",
        "weights": f"{config['dtype']}, {weights.stat().st_size / 1e6:.1f} MB",
        "training data": config["data"],
        "updates": updates,
        "optimizer": optimizer and f"{optimizer}, learning rate {how['learning_rate']}",
        "schedule": name and f"{name}: " + ", ".join(f"{key} {value}" for key, value in schedule.items()),
        "precision in training": {"none": "float32"}.get(how.get("precision"), how.get("precision")),
        "trained with": f"fairseq_lambda {config[KEY]}",
    }


def data_name(folders: str) -> str | None:
    """Return the names of data folders joined by colons; None if one says nothing, as ``.`` does."""
    names = [Path(folder).name for folder in folders.split(os.pathsep)]
    return None if {"", ".."} & set(names) else ", ".join(names)


def as_it_is(about: str | None) -> list[str]:
    return [] if about is None else [about.strip(), ""]


def as_table(rows: dict) -> list[str]:
    return [
        markdown([["property", "value"], *([key, str(value)] for key, value in rows.items() if value is not None)]),
        "",
    ]


def scored(scores: dict, objective: str, weights: Path) -> list[str]:
    """Return the section of the splits and of BLiMP."""
    lines, blimp = [], scores.get("blimp")
    if "splits" in scores:
        lines += [table_of_splits(scores["splits"], objective), ""]
    if blimp:
        found = ", ".join(f"{value:.1f} % ({method})" for method, value in blimp["overall"].items())
        pairs = f", the first {blimp['limit']} pairs of each" if blimp["limit"] else ""
        lines += [f"BLiMP, {blimp['paradigms']} paradigms{pairs}, {blimp['precision']}: {found}. Chance is 50 %.", ""]
    if lines and scores.get("weights") == sha256(weights):
        lines += [f"Measured on this `{weights.name}`, SHA-256 `{scores['weights']}`.", ""]
    return ["## Scores", "", *lines] if lines else []


def known(facts: dict | None) -> list[str]:
    """Return the section of common knowledge."""
    if facts is None:
        return []
    accuracy, answers = facts["accuracy"], facts["answers"]
    rows = [["%", *accuracy], *([k, *(f"{cell[k]:.0f}" for cell in accuracy.values())] for k in ("at 1", "at 5"))]
    given = [[f"`{text}`", answer, ", ".join(map(escaped, found))] for text, answer, found in answers]
    inside = any(piece.startswith("##") for _, _, found in answers for piece in found)
    mark = "; `##` continues the word before the mask" if inside else ""
    return [
        "## Common knowledge",
        "",
        f"{facts['sentences']} sentences with one mask (benchmarks/quality/facts.py): how often the right piece ranks "
        "first, and among the first five.",
        "",
        markdown(rows),
        "",
        f"{len(answers)} of them, evenly spaced, with the model's first five{mark}:",
        "",
        markdown([["sentence", "right", "the model's"], *given]),
        "",
    ]


def used(name: str, call: str) -> list[str]:
    return [
        "```python",
        "from fairseq_lambda.models import LambdaBertModel",
        "",
        f'bert = LambdaBertModel.from_pretrained("{name}")',
        f"bert.{call}",
        "```",
        "",
    ]
