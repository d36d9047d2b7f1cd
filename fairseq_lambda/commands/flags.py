"""A recipe as flags of fairseq-train, next to the user's own flags."""

import re

from omegaconf import DictConfig, OmegaConf

ADAMS = {"adam", "fused_adam"}  # take the same options


def recipe_flags(recipe: DictConfig, user: list[str]) -> list[str]:
    """Return the recipe as flags of fairseq-train, without those that the user has given.

    If the user chooses another task, criterion, architecture, optimizer or scheduler, the recipe's options for its own
    are dropped: the new one may not have them, and they were chosen for the old one. ``ADAMS`` keep each other's.
    """
    given = {word.partition("=")[0] for word in user}
    flags = []
    for section, options in OmegaConf.to_container(recipe, resolve=True).items():
        name = options.pop("_name", None)
        if name is not None:
            flag = "--arch" if section == "model" else f"--{section.replace('_', '-')}"
            chosen = last_value(user, flag)
            if chosen not in (None, name) and not {chosen, name} <= ADAMS:
                continue
            options = {flag[2:]: name, **options}
        for key, value in options.items():
            flag = f"--{key.replace('_', '-')}"
            if flag in given or value == "???":
                continue
            flags.append(flag)
            if value is not True:
                flags.append(",".join(map(str, value)) if isinstance(value, list) else str(value))
    return flags


def last_value(words: list[str], flag: str) -> str | None:
    """Return the value of the last ``flag VALUE`` or ``flag=VALUE``, the one that counts; None if there is none."""
    values = [
        following if word == flag else word.partition("=")[2]
        for word, following in zip(words, [*words[1:], ""], strict=False)
        if word.partition("=")[0] == flag
    ]
    return values[-1] if values else None


def whole_number(words: list[str], flag: str, default: int | None) -> int | None:
    """Return the value of a flag among ``words``.

    Raises:
        ValueError: it is not a whole number of at least 1.
    """
    value = last_value(words, flag)
    if value is None:
        return default
    if not re.fullmatch("[1-9][0-9]*", value):
        raise ValueError(f"{flag} {value}: must be a whole number of at least 1")
    return int(value)
