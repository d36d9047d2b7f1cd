"""``lambda-bert export``: makes a folder to share from a training run."""

import json
from pathlib import Path

from omegaconf import OmegaConf

from fairseq_lambda.checkpointing.exported import find_checkpoint, write_exported
from fairseq_lambda.commands.parser import Parser
from fairseq_lambda.commands.score_tables import table
from fairseq_lambda.files import whole_folder
from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.hub_interface import load_checkpoint
from fairseq_lambda.version import KEY, version_of

PARTS = ("model", "task", "criterion")  # of the configuration; the rest is about the training machine


def export(checkpoint: Path, destination: Path, scores: dict | None = None) -> dict:
    """Write model.safetensors, dict.txt, sentencepiece.model, config.json and a card; return the config.

    The folder appears whole or not at all. Paths of the training machine are taken out of the configuration.

    Raises:
        FileExistsError: the destination is there already.
        FileNotFoundError, ValueError: no checkpoint, or not one of this plugin.
    """
    if destination.exists():
        raise FileExistsError(f"{destination} exists already: remove it, or choose another --dest")
    path = find_checkpoint(checkpoint)
    hub = LambdaBertModel.from_pretrained(path)
    state = load_checkpoint(path)
    updates = (state.get("optimizer_history") or [{}])[-1].get("num_updates")
    cfg = state["cfg"]
    data = Path(str(cfg.task.data)).name
    cfg.task.data = "."
    parameters = sum(p.numel() for p in hub.model.parameters())
    # as plain dictionaries, the way fairseq saves
    parts = {part: OmegaConf.to_container(cfg[part], resolve=True, enum_to_str=True) for part in PARTS}
    config = {
        KEY: version_of(state),
        **parts,
        "parameters": parameters,
        "updates": updates,
        "data": data,
        "scores": scores,
    }
    labels = getattr(hub.task, "labels", None)
    if labels is not None:
        config["task_state"] = {"labels": labels.state(), "max_length": hub.task.max_length}
        if scores:
            config["data"] = scores.get("data", data)

    destination.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(destination) as part:
        hub.task.source_dictionary.save(str(part / "dict.txt"))
        if hub.bpe is not None:
            (part / "sentencepiece.model").write_bytes(hub.bpe.processor.serialized_model_proto())
        write_exported(part, hub.model.state_dict(), config)
        text = card(destination.name, config) if labels is None else fine_tuned_card(destination.name, config, labels)
        (part / "README.md").write_text(text, encoding="utf-8")
    return config


def card(name: str, config: dict) -> str:
    """Return the model card as Markdown."""
    model, task = config["model"], config["task"]
    lines = [
        f"# {name}",
        "",
        "BERT with lambda layers, trained with fairseq_lambda (masked LM"
        + {"sop": " + sentence order).", "nsp": " + next sentence).", "none": ")."}[str(task["sentence_objective"])],
        "",
        *about_the_model(model, config),
        f"| longest sample in training | {task['tokens_per_sample']} tokens |",
        f"| seed | {task['seed']} |",
    ]
    for split, r in ((config["scores"] or {}).get("splits") or {}).items():
        order = f", sentence accuracy {r['sop_acc']:.1f} %" if "sop_acc" in r else ""
        lines.append(f"| {split} | masked-LM perplexity {r['mlm_ppl']:.2f}, accuracy {r['mlm_acc']:.1f} %{order} |")
    lines += [
        "",
        "```python",
        "from fairseq_lambda.models import LambdaBertModel",
        f'bert = LambdaBertModel.from_pretrained("{name}")',
        'bert.fill_mask("The game was <mask> in 1997 .")',
        "```",
        "",
    ]
    return "\n".join(lines)


def about_the_model(model: dict, config: dict) -> list[str]:
    """Return the head of the card's table, and what is the same for every model."""
    return [
        "| what | value |",
        "| --- | --- |",
        f"| architecture | {model['_name']} |",
        f"| layers, width, heads | {model['encoder_layers']}, {model['encoder_embed_dim']}, "
        f"{model['encoder_attention_heads']} |",
        f"| lambda layers | {model['lambda_layers']} (key depth {model['lambda_key_depth']}, intra-depth "
        f"{model['lambda_intra_depth']}, local context {model['lambda_local_context']}, norm {model['lambda_norm']}) |",
        f"| parameters | {config['parameters']:,} |",
        f"| training data | {config['data']} |",
        f"| updates | {config['updates']} |",
        f"| trained with | fairseq_lambda {config[KEY]} |",
    ]


def fine_tuned_card(name: str, config: dict, labels: Labels) -> str:
    """Return the model card of a fine-tuned model: task, labels, scores, how to use it."""
    scores = config["scores"] or {}
    length = config["task_state"]["max_length"]
    texts = {1: "a text", 2: "two texts"}.get(labels.texts, "one text or two")
    what = {
        "classification": f"one label for {texts}", "multilabel": f"any number of labels for {texts}",
        "regression": f"a number for {texts}", "tagging": "a label per word",
    }[labels.objective]  # fmt: skip
    lines = [
        f"# {name}",
        "",
        f"BERT with lambda layers, fine-tuned with fairseq_lambda: {what}.",
        "",
        *about_the_model(config["model"], config),
        f"| fine-tuned from | {scores.get('model', 'a pretrained model')} |",
        f"| labels | {', '.join(labels.names) or 'numbers'} |",
        f"| longest sample | {length} tokens; longer texts are "
        + ("read in parts |" if labels.objective == "tagging" else "shortened |"),
        "",
    ]
    if scores.get("splits"):
        lines += [table(scores["splits"], labels), "", f"Selected by {scores.get('metric')} on the split valid.", ""]
    arguments = '"It rained.", "So we stayed at home."' if labels.texts == 2 else '"It rained."'
    use = "tag" if labels.objective == "tagging" else "classify"
    lines += [
        "```python",
        "from fairseq_lambda.models import LambdaBertModel",
        f'bert = LambdaBertModel.from_pretrained("{name}")',
        f"bert.{use}({arguments})",
        "```",
        "",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    example = "lambda-bert export checkpoints/my-run --dest my-bert --scores scores.json"
    parser = Parser("export", __doc__.split(": ", 1)[1], example)
    parser.add_argument("checkpoint", type=Path, help="training folder or checkpoint file")
    parser.add_argument("--dest", type=Path, required=True, help="folder to make")
    parser.add_argument("--scores", type=Path, help="JSON for the card (default: a scores.json in CHECKPOINT)")
    args = parser.parse_args(argv)
    file = args.scores
    if file is None and (args.checkpoint / "scores.json").is_file():
        file = args.checkpoint / "scores.json"
    scores = json.loads(file.read_text(encoding="utf-8")) if file else None
    if scores:
        scores.pop("made_by", None)  # a command with paths of this machine
    config = export(args.checkpoint, args.dest, scores)
    names = ", ".join(sorted(p.name for p in args.dest.iterdir()))
    print(f"exported {config['parameters']:,} parameters to {args.dest}: {names}")
