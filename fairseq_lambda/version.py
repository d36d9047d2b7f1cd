"""The version of the package, of the checkpoints that it writes, and of the cards of exported models."""

__version__ = "0.2.0"
KEY = "version"  # in a checkpoint's extra_state, and in an exported model's config.json


def version_of(state: dict) -> str:
    """Return the version that wrote fairseq's ``state`` of a checkpoint, or "of unknown version": 0.1.0 stored none."""
    return (state.get("extra_state") or {}).get(KEY) or "of unknown version"
