"""How texts are shortened to the length that a model can read."""

import numpy as np

SPECIAL = {1: 2, 2: 4}  # <s> A </s>, and <s> A </s> </s> B </s>


def pair_lengths(first, second, room: int):
    """Return how many pieces of two texts are kept, from their beginnings, to fit into ``room`` pieces together.

    The longer text is shortened until both fit or are equally long, and from then on both are. So a short question
    keeps all its pieces next to a long paragraph.

    Args:
        first, second: numbers of pieces, ints or arrays.
        room: the number of pieces that both texts may have together.
    """
    kept = np.minimum(first, np.maximum(room - second, room - room // 2))
    return kept, np.minimum(second, room - kept)


def join(texts, max_length: int, bos: int, eos: int) -> np.ndarray:
    """Return ``<s> A </s>`` or ``<s> A </s> </s> B </s>``, at most ``max_length`` ids, int64.

    Args:
        texts: one or two arrays of ids without special symbols.
        max_length: including special symbols.
        bos, eos: ids of ``<s>`` and ``</s>``.
    """
    room = max_length - SPECIAL[len(texts)]
    if len(texts) == 1:
        return np.concatenate([[bos], texts[0][:room], [eos]]).astype(np.int64)
    first, second = texts
    a, b = pair_lengths(len(first), len(second), room)
    return np.concatenate([[bos], first[:a], [eos, eos], second[:b], [eos]]).astype(np.int64)


def cut_at_words(starts, pieces: int, room: int) -> list[tuple[int, int]]:
    """Return (start, end) of the parts, each of at most ``room`` pieces, into which a text has to be split.

    Every part starts with a word. Of a word longer than ``room``, only the first pieces are kept.

    Args:
        starts: position of each word's first piece, ascending.
        pieces: number of pieces in the whole text.
        room: the most pieces in a part.
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
