"""``lambda-bert preprocess``: makes a data folder for training from text."""

from pathlib import Path

from fairseq_lambda.checkpointing.exported import PIECES, find_checkpoint, is_exported, read_exported, shipped_names
from fairseq_lambda.checkpointing.reading import check_whole, read_header
from fairseq_lambda.corpora import prepare
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.shared_vocabulary import Vocabulary


def main(argv: list[str] | None = None) -> int:
    """Prepare a corpus; ``--vocabulary-from`` also takes models here. Return the exit code."""
    return prepare.main(argv, model_vocabulary)


def model_vocabulary(origin: Path) -> Vocabulary:
    """Return the vocabulary of a training folder, a checkpoint, an exported folder or an included model.

    Raises:
        PrepareError: there is no model, it is damaged, or it has no SentencePiece model.
    """
    flag = f"--vocabulary-from {origin}"
    try:
        path = find_checkpoint(origin)
    except FileNotFoundError:
        raise PrepareError(
            f"{flag}: neither a prepared folder (dict.txt and {PIECES}), nor a training folder, a checkpoint, an "
            f"exported folder or an included model: {', '.join(shipped_names())}"
        ) from None
    try:
        if is_exported(path):
            state = read_exported(path)
        else:
            state = read_header(path)
            check_whole(path)
    except (ValueError, OSError) as error:
        raise PrepareError(f"{flag}: {error}") from None
    saved = state["task_state"]
    if "sentencepiece" in saved:
        model = saved["sentencepiece"].numpy().tobytes()
    elif (path.parent / PIECES).is_file():
        model = (path.parent / PIECES).read_bytes()
    else:
        raise PrepareError(f"{flag}: it was trained on data without a {PIECES}, so no text can be encoded for it")
    return Vocabulary.given(model, saved.get("symbols", []), origin)
