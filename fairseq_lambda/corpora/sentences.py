"""From Moses-tokenised paragraphs to sentences."""

_ENDS = frozenset(".?!")
_CLOSERS = frozenset([")", "]", "}", "\u201d", "\u2019", "''"])
_QUOTES = frozenset(['"', "'"])


def split_tokenised(paragraph: str) -> list[str]:
    """Return the sentences of a Moses-tokenised paragraph; joined by spaces, they are its tokens.

    A sentence ends at a token ``.``, ``?`` or ``!`` and includes the closing brackets and quotes that follow. A
    straight quote is a closing one if an odd number of them came before it. After a closing quote, a lower-case word
    continues the sentence, as in ``" Who ? " asked he``.
    """
    tokens = paragraph.split()
    sentences: list[str] = []
    quotes_seen = dict.fromkeys(_QUOTES, 0)
    start = position = 0
    while position < len(tokens):
        token = tokens[position]
        _count_quote(tokens, position, quotes_seen)
        position += 1
        if token not in _ENDS:
            continue
        closed_quote = False
        while position < len(tokens):
            following = tokens[position]
            closing_quote = following in _QUOTES and quotes_seen[following] % 2 == 1
            if following not in _ENDS and following not in _CLOSERS and not closing_quote:
                break
            _count_quote(tokens, position, quotes_seen)
            closed_quote = closed_quote or closing_quote or following in ("\u201d", "''")
            position += 1
        if closed_quote and position < len(tokens) and tokens[position][0].islower():
            continue
        sentences.append(" ".join(tokens[start:position]))
        start = position
    return _attach_wordless([*sentences, " ".join(tokens[start:])])


def _count_quote(tokens: list[str], position: int, quotes_seen: dict[str, int]) -> None:
    token = tokens[position]
    if token not in _QUOTES:
        return
    # `players ' union`: an apostrophe after a plural does not open a quotation
    previous = tokens[position - 1] if position else ""
    if token == "'" and quotes_seen[token] % 2 == 0 and previous.endswith("s"):
        return
    quotes_seen[token] += 1


def _attach_wordless(sentences: list[str]) -> list[str]:
    """Return the sentences, with those that have neither letter nor digit joined to a neighbour."""
    joined: list[str] = []
    for sentence in filter(None, sentences):
        has_word = any(character.isalnum() for character in sentence)
        if joined and not (has_word and any(map(str.isalnum, joined[-1]))):
            joined[-1] += " " + sentence
        else:
            joined.append(sentence)
    return joined
