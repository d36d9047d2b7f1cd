"""The card, README.md, of a converted model."""

from fairseq_lambda.huggingface import LambdaBertConfig
from fairseq_lambda.huggingface.flat_code import CLASSES
from fairseq_lambda.version import KEY


def card(name: str, config: LambdaBertConfig, model: str, about: str | None) -> str:
    """Return the card as Markdown: what the model is, how it loads with transformers alone, and ``about``."""
    autos = {of: auto for auto, of in CLASSES.items()}
    rows = {
        "layers, width, heads": f"{config.num_hidden_layers}, {config.hidden_size}, {config.num_attention_heads}",
        "lambda layers": f"{config.lambda_layers} (key depth {config.dim_k}, intra-depth {config.dim_u}, local context "
        f"{config.local_context}, norm {config.lambda_norm}, gate {config.lambda_gate})",
        "vocabulary": f"{config.vocab_size:,} pieces",
        "longest input": "any" if config.max_position_embeddings < 0 else f"{config.max_position_embeddings} tokens",
        "updates": config.fairseq["updates"],
        "trained with": f"fairseq_lambda {config.fairseq[KEY]}",
    }
    if "Classification" in model:
        rows["labels"] = ", ".join(config.id2label.values())
    kind = "fill-mask"
    if "Classification" in model:
        kind = "token-classification" if "Token" in model else "text-classification"
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {kind}",
        "---",
        "",
        f"# {name}",
        "",
        f"BERT with lambda layers, trained with fairseq_lambda: `{autos[model]}` in transformers 4.57 or later.",
        "The code is in this folder. Without `trust_remote_code`, `import fairseq_lambda.huggingface` first.",
        "",
        "| property | value |",
        "| --- | --- |",
        *(f"| {key} | {value} |" for key, value in rows.items()),
        "",
        "```python",
        "from transformers import pipeline",
        "",
        f'model = pipeline("{kind}", "{name}", trust_remote_code=True)',
        *(['model("The film was <mask> in 1997.")'] if kind == "fill-mask" else []),
        "```",
        "",
        *([] if about is None else [about.strip(), ""]),
    ]
    return "\n".join(lines)
