"""A model's SentencePiece vocabulary as a fast tokenizer of transformers, with fairseq's ids."""

import json
import re
import sys
from pathlib import Path

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BOS, PAD, EOS, UNK, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
SPECIALS = (BOS, PAD, EOS, UNK)  # fairseq's, in its order
ANY_LENGTH = int(1e30)  # transformers' value for no limit
# White space as Python defines it, as on the fairseq side; Rust defines it differently.
WHITE_SPACE = "".join(c for c in map(chr, range(sys.maxunicode)) if re.match(r"\s", c))


def fast_tokenizer(model: bytes, symbols: list[str], max_length: int | None = None) -> PreTrainedTokenizerFast:
    """Return the tokenizer whose ids are the indices in ``symbols``.

    A text becomes ``<s> A </s>`` and a pair ``<s> A </s> </s> B </s>``, with segment 1 from the second ``</s>`` on.
    Symbols in a text are read as symbols: ``<mask>`` and ``<unk>``, as in the hub, and, as everywhere in transformers,
    ``<s>``, ``<pad>`` and ``</s>``, which the hub treats as text.

    Args:
        model: a SentencePiece model of the unigram kind, serialised.
        symbols: fairseq's dictionary: ``<s> <pad> </s> <unk>``, the pieces, ``<mask>``.
        max_length: longest input in tokens, special symbols included; None: any.

    Raises:
        ValueError: a vocabulary of another kind, or symbols that do not belong to this model.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    scores = _scores(proto, symbols)
    # Symbols are found before pieces are. Text that normalises to one, such as "\uff1cs\uff1e" to "<s>", is still text:
    # the symbols' scores are too low for Unigram to choose them.
    never = 100 * min(scores.values())
    vocabulary = [(symbol, scores.get(symbol, never)) for symbol in symbols]
    tokenizer = Tokenizer(
        models.Unigram(vocabulary, unk_id=symbols.index(UNK), byte_fallback=proto.trainer_spec.byte_fallback)
    )
    tokenizer.normalizer = _normalizer(proto.normalizer_spec)
    scheme = "first" if proto.normalizer_spec.add_dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    # Decoding puts a space before symbols, as before most words; Metaspace drops one at the start.
    spaced = [decoders.Replace(symbol, f"\u2581{symbol}") for symbol in (MASK, UNK)]
    decoder = [*spaced, decoders.Metaspace(prepend_scheme=scheme)]
    if proto.trainer_spec.byte_fallback:
        decoder = [decoders.ByteFallback(), *decoder]
    tokenizer.decoder = decoders.Sequence(decoder)
    ids = {symbol: symbols.index(symbol) for symbol in (BOS, EOS)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS}:0 $A:0 {EOS}:0", pair=f"{BOS}:0 $A:0 {EOS}:0 {EOS}:1 $B:1 {EOS}:1", special_tokens=[*ids.items()]
    )
    # <mask> and <unk> absorb a space before them; the text after them is encoded unchanged. Most normalizers remove
    # that space: with lstrip too, tokenize() would give " <mask>", which convert_tokens_to_ids() does not know.
    absorb = {"lstrip": not proto.normalizer_spec.remove_extra_whitespaces, "normalized": False, "special": True}
    in_text = {symbol: AddedToken(symbol, **absorb) for symbol in (MASK, UNK)}
    others = [AddedToken(symbol, normalized=False, special=True) for symbol in (BOS, PAD, EOS)]
    tokenizer.add_special_tokens([*others, *in_text.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        cls_token=BOS,
        sep_token=EOS,
        pad_token=PAD,
        unk_token=in_text[UNK],
        mask_token=in_text[MASK],
        model_max_length=max_length or ANY_LENGTH,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _scores(proto, symbols: list[str]) -> dict[str, float]:
    """Return the log-probability of each piece; check that the kind is supported and ``symbols`` has all pieces."""
    trainer, spec, kind = proto.trainer_spec, proto.normalizer_spec, type(proto.SentencePiece()).Type
    if trainer.model_type != trainer.UNIGRAM:
        raise ValueError(
            "the SentencePiece model is of the kind "
            f"{trainer.ModelType.Name(trainer.model_type).lower()}, but only unigram has a fast tokenizer here"
        )
    if trainer.treat_whitespace_as_suffix or not spec.escape_whitespaces:
        raise ValueError("the SentencePiece model has its spaces after the words, which fast tokenizers do not support")
    if any(piece.type == kind.USER_DEFINED for piece in proto.pieces):
        raise ValueError("the SentencePiece model has user-defined symbols, which are not supported")
    scores = {p.piece: p.score for p in proto.pieces if p.type in (kind.NORMAL, kind.BYTE, kind.UNUSED)}
    if symbols[: len(SPECIALS)] != list(SPECIALS) or symbols[-1] != MASK:
        raise ValueError(f"the dictionary must begin with {' '.join(SPECIALS)} and end with {MASK}")
    missing = [piece for piece in scores if piece not in set(symbols)]
    if missing:
        raise ValueError(
            f"the dictionary lacks {len(missing)} pieces of the SentencePiece model, such as {missing[0]!r}: "
            "the two do not belong together"
        )
    return scores


def _normalizer(spec) -> normalizers.Normalizer:
    """Return SentencePiece's normalisation of a text between symbols."""
    steps = [normalizers.Replace(Regex(f"[{re.escape(WHITE_SPACE)}]"), " ")]
    if "nfkc" in spec.name:
        # In a short grapheme, Precompiled drops everything after its first match: the second mark of a decomposed
        # "\u1ebf", or a mark after a ligature. In composed text there is nothing left to drop.
        steps.append(normalizers.NFKC())
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        # Not Strip, which would also remove the space after <mask>: it tells whether a word starts there.
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(Regex("[ \u2581]+$"), "")]
    return normalizers.Sequence(steps)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Write the tokenizer so that every supported version of transformers reads it."""
    tokenizer.save_pretrained(folder)
    path = Path(folder, "tokenizer_config.json")
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # 5.x writes its new name, which 4.x does not know
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
