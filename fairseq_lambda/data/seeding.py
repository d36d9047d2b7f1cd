"""Random generators that depend on what they are for and on nothing else: no global state."""

import numpy as np

# What a stream of random numbers is for; two purposes never share one.
CHUNKS, PAIRS, ORDER, MASKS = range(4)


def generator(seed: int, purpose: int, epoch: int, index: int = 0) -> np.random.Generator:
    """Return numpy's Philox generator of (seed, purpose, epoch, index).

    Philox is counter-based: the seed is its key, the rest its counter, whose lowest word is left
    for the draws themselves (2**64 of them). No two streams of a seed overlap, and making one costs
    10 microseconds.
    """
    bits = np.random.Philox(key=[seed % 2**64, 0], counter=[0, index, epoch, purpose])
    return np.random.Generator(bits)
