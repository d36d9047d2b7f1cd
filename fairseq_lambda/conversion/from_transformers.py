"""A folder of transformers as a model that the hub and fairseq load, in the layout of ``lambda-bert export``."""

from pathlib import Path

import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from fairseq_lambda.checkpointing.exported import CONFIG, DICTIONARY, PIECES, write_exported
from fairseq_lambda.conversion.checks import check_ids, check_logits, check_weights
from fairseq_lambda.conversion.description import HEADS, described
from fairseq_lambda.conversion.names import prefixes, renamed, reversed_pairs
from fairseq_lambda.conversion.to_transformers import fairseq_logits, transformers_logits
from fairseq_lambda.files import check_destination, whole_folder
from fairseq_lambda.huggingface import LambdaBertConfig, modeling
from fairseq_lambda.huggingface.tokenizer import EOS, MASK, PAD, SPECIALS
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.task_of_checkpoint import task_of


def from_transformers(folder: Path, destination: Path, pieces: Path | None = None, force: bool = False) -> dict:
    """Write the folder, whole or not at all; return a report of the checks.

    Args:
        folder: written by ``save_pretrained`` of a model and its tokenizer.
        destination: the folder to make.
        pieces: the SentencePiece model; by default the one that the conversion to transformers left in the folder.
            Without one, texts cannot be encoded.
        force: replace an earlier folder of a model at the destination.

    Returns:
        ``model`` (the class in the folder), ``weights`` (number of bit-equal tensors), ``logits`` (the largest
        difference), ``sentences`` (number with equal ids; 0 without a SentencePiece model), ``added`` (names of the
        weights that only fairseq's model has, which get their initial values).

    Raises:
        FileExistsError: the destination already exists, and ``force`` does not replace it.
        FileNotFoundError: no such folder, or no configuration or tokenizer in it.
        NotEqual: the two models differ.
        ValueError: a model of another kind, or an option or a vocabulary that fairseq cannot use.
    """
    check_destination(destination, force, CONFIG, source=folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: give a folder that save_pretrained wrote")
    config = LambdaBertConfig.from_pretrained(folder)
    name = (config.architectures or ["a model without a class"])[0]
    if name not in HEADS:
        raise ValueError(f"{folder} holds {name}, but only {', '.join(HEADS)} can be converted to fairseq")
    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(f"{folder} holds no tokenizer.json: call tokenizer.save_pretrained({str(folder)!r})")
    check_config(config, HEADS[name])
    # in float32, as the hub loads every model: exact for weights stored in bfloat16 or float16
    model = getattr(modeling, name).from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    symbols = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    check_symbols(symbols, model.get_input_embeddings().num_embeddings)

    pairs = reversed_pairs(prefixes(HEADS[name], name == "LambdaBertForTokenClassification"))
    parts = described(config, name)
    piece_file = pieces or (folder / PIECES if (folder / PIECES).is_file() else None)

    destination.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(destination) as part:
        dictionary = Dictionary()
        for symbol in symbols[len(SPECIALS) :]:
            dictionary.add_symbol(symbol)
        dictionary.save(str(part / DICTIONARY))
        if piece_file is not None:
            (part / PIECES).write_bytes(piece_file.read_bytes())
        weights = first_weights(parts, symbols)
        ours = renamed(model.state_dict(), pairs, weights.keys())
        added = {key: value for key, value in weights.items() if key not in ours}
        tied = "encoder.bert.lm_head.weight"
        if tied in added:
            added[tied] = ours["encoder.bert.embed_tokens.weight"]
        write_exported(part, {**added, **ours}, parts)
        (part / "README.md").write_text(
            f"# {destination.name}\n\nConverted from `{name}` of transformers.\n", encoding="utf-8"
        )

        hub = LambdaBertModel.from_pretrained(part)
        count = check_weights(ours, hub.model.state_dict())
        logits = check_logits(transformers_logits(model), fairseq_logits(hub), hub.model.encoder.bert.options)
        sentences = 0
        if hub.bpe is not None:
            sentences = check_ids(lambda text: hub.encode(text).tolist(), tokenizer, hub.bpe.processor)
    return {
        "model": name,
        "weights": count,
        "logits": logits,
        "sentences": sentences,
        "added": sorted(key for key in added if key != tied),
    }


def check_config(config: LambdaBertConfig, head: str | None) -> None:
    """Raise ValueError if fairseq's model cannot be the same; ``head``: the name of its fine-tuned head there."""
    if head is None and not config.tie_word_embeddings:
        raise ValueError(
            "tie_word_embeddings=False: fairseq's masked-LM head shares the weight of the token embeddings; train with "
            "tie_word_embeddings=True"
        )
    for option, symbol in {"pad_token_id": PAD, "eos_token_id": EOS}.items():
        given, wanted = getattr(config, option), SPECIALS.index(symbol)
        if given != wanted:
            raise ValueError(
                f"{option}={given}, but {symbol} is {wanted} in fairseq: if the model was trained with such a "
                f"tokenizer, write {wanted} into config.json"
            )


def check_symbols(symbols: list[str], rows: int) -> None:
    """Raise ValueError unless fairseq can use this vocabulary and the model has an embedding for each symbol."""
    if symbols[: len(SPECIALS)] != list(SPECIALS) or MASK not in symbols:
        raise ValueError(
            f"the vocabulary begins with {' '.join(map(str, symbols[: len(SPECIALS)]))}, but for fairseq it must begin "
            f"with {' '.join(SPECIALS)} and contain {MASK}"
        )
    kept = symbols.index(MASK) + 1
    if kept < len(symbols):
        raise ValueError(
            f"the tokenizer has the added token {symbols[kept]!r}, which fairseq would encode as text: save the "
            f"tokenizer without added tokens, and the model after resize_token_embeddings({kept})"
        )
    if rows != len(symbols):
        raise ValueError(
            f"the model has embeddings of {rows} tokens, but the tokenizer has {len(symbols)}: "
            "call resize_token_embeddings(len(tokenizer)) first"
        )


def first_weights(parts: dict, symbols: list[str]) -> dict[str, torch.Tensor]:
    """Return the initial weights of fairseq's model with this description."""
    cfg = OmegaConf.create({key: parts[key] for key in ("model", "task")})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        task = task_of(cfg.task, {**parts.get("task_state", {}), "symbols": symbols})
        return task.build_model(cfg.model).state_dict()
