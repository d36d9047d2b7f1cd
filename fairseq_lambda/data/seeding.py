"""Random generators that depend only on their seed and purpose, not on global state."""

import numpy as np

# purposes, each with its own stream of random numbers
CHUNKS, PAIRS, ORDER, MASKS, PACKS = range(5)


def generator(seed: int, purpose: int, epoch: int, index: int = 0) -> np.random.Generator:
    """Return numpy's Philox generator of (seed, purpose, epoch, index).

    Philox is counter-based. The seed is the key, and the rest is the counter, whose lowest word is left for the draws
    themselves (2**64 of them). Streams with the same seed do not overlap, and creating one takes 10 microseconds.
    """
    bits = np.random.Philox(key=[seed % 2**64, 0], counter=[0, index, epoch, purpose])
    return np.random.Generator(bits)
