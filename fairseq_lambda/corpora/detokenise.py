"""From Moses-tokenised English to ordinary English.

WikiText is distributed as ``a hard @-@ shelled " lobster " , he said .``, but people who query a model type
``a hard-shelled "lobster", he said.`` The model has to be trained on the second kind of text.
"""

import re

_SPLIT_MARK = re.compile(r" @([-,.])@ ")
_ATTACH_LEFT = frozenset([",", ".", ";", ":", "?", "!", ")", "]", "}", "%", "\u201d", "\u2019", "..."])
_ATTACH_RIGHT = frozenset(["(", "[", "{", "\u201c", "\u2018", "$", "\u00a3", "\u20ac", "\u00a5", "\u20b9", "#"])
_CONTRACTION = re.compile(r"(?:['\u2019](?:s|t|re|m|ve|ll|d)|n['\u2019]t)", re.IGNORECASE)
# O 'Brien, d 'Arc, L 'Aquila: the tokeniser splits such names
_NAME_PREFIX = frozenset(["O", "d", "D", "l", "L"])


def detokenise(sentences: list[str]) -> list[str]:
    """Return the sentences of one paragraph as ordinary English, one for each sentence given.

    ``@-@``, ``@,@`` and ``@.@`` become ``-``, ``,`` and ``.`` without spaces. Punctuation, ``'s``, ``'t`` and ``%``
    are joined to the word before them, opening brackets and currency signs to the word after them. Straight quotes
    alternately open and close. A quotation may extend over several sentences, so the function takes a whole paragraph.
    """
    is_open = {'"': False, "'": False}
    return [_detokenise_sentence(sentence, is_open) for sentence in sentences]


def _detokenise_sentence(sentence: str, is_open: dict[str, bool]) -> str:
    # Twice, because in `1 @,@ 234 @,@ 567` two marks may share the space between them.
    text = _SPLIT_MARK.sub(r"\1", _SPLIT_MARK.sub(r"\1", sentence))
    tokens = text.split()
    pieces: list[str] = []
    glue_next = True  # no space before the first token
    for position, token in enumerate(tokens):
        previous = tokens[position - 1] if position else ""
        glue_this, glue_after = token in _ATTACH_LEFT, token in _ATTACH_RIGHT
        if token in is_open:
            closes = _closes(token, previous, position, len(tokens), is_open)
            glue_this, glue_after = closes, not closes
        elif _CONTRACTION.fullmatch(token) or (token[0] == "'" and previous in _NAME_PREFIX):
            glue_this = True
        if pieces and not glue_this and not glue_next:
            pieces.append(" ")
        pieces.append(token)
        glue_next = glue_after
    return "".join(pieces)


def _closes(quote: str, previous: str, position: int, length: int, is_open: dict[str, bool]) -> bool:
    """Return whether this straight quote closes a quotation or is a plural's apostrophe; update ``is_open``."""
    if position == 0 and length > 1:
        is_open[quote] = True
        return False
    if quote == "'" and not is_open[quote] and previous.endswith("s"):
        return True  # `the players ' union`: an apostrophe
    closes = is_open[quote] or position == length - 1
    is_open[quote] = not closes
    return closes
