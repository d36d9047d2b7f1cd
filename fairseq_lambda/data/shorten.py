"""How texts are fitted to the length that a model reads."""

import numpy as np

SPECIAL = {1: 2, 2: 4}  # <s> A </s>, and <s> A </s> </s> B </s>


def pair_lengths(first, second, room: int):
    """Return how many pieces of two texts are kept, from their beginnings, where there is room for ``room`` together.

    The longer text is shortened until both fit or are of equal length, and then both are: a short question keeps all
    its pieces beside a long paragraph.

    Args:
        first, second: numbers of pieces, ints or arrays.
    """
    kept = np.minimum(first, np.maximum(room - second, room - room // 2))
    return kept, np.minimum(second, room - kept)


def join(texts, max_length: int, bos: int, eos: int) -> np.ndarray:
    """Return ``<s> A </s>`` or ``<s> A </s> </s> B </s>``, at most ``max_length`` ids, int64.

    Args:
        texts: one or two arrays of ids without special symbols.
    """
    room = max_length - SPECIAL[len(texts)]
    if len(texts) == 1:
        return np.concatenate([[bos], texts[0][:room], [eos]]).astype(np.int64)
    first, second = texts
    a, b = pair_lengths(len(first), len(second), room)
    return np.concatenate([[bos], first[:a], [eos, eos], second[:b], [eos]]).astype(np.int64)


def cut_at_words(starts, pieces: int, room: int) -> list[tuple[int, int]]:
    """Return (start, end) of the parts, of at most ``room`` pieces, that a text has to be divided into.

    Every part starts with a word. Of a word that is longer than ``room`` the first pieces are kept.

    Args:
        starts: position of each word's first piece, ascending.
        pieces: of the whole text.
    """
    if pieces <= room:
        return [(0, pieces)]
    starts = np.asarray(starts)
    parts, start = [], 0
    while start < pieces:
        if pieces - start <= room:
            parts.append((start, pieces))
            break
        within = starts[(starts > start) & (starts <= start + room)]
        end = int(within[-1]) if len(within) else start + room
        parts.append((start, end))
        later = starts[starts >= end]
        start = int(later[0]) if len(later) else pieces
    return parts
