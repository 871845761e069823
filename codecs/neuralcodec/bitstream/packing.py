"""Bit packing: whole numbers in as few bits as their range needs, the highest bit first."""

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]
"""One bit, 0 or 1, an element."""


def width_of(size: int) -> int:
    """Bits of a number in 0..size - 1: ceil(log2(size)), none where there is but one.

    >>> [width_of(size) for size in (1, 2, 3, 1024, 1025)]
    [0, 1, 2, 10, 11]
    """
    return (size - 1).bit_length()


def _word(width: int) -> int:
    """Bytes of the smallest integer of a machine that has `width` bits, 1..64."""
    return next(word for word in (1, 2, 4, 8) if 8 * word >= width)


def to_bits(values: NDArray[np.integer], width: int) -> Bits:
    """Write numbers `[N]` in 0..2 ** width - 1 as bits `[N * width]`; `width` is 0..64."""
    if not width:
        return np.empty(0, np.uint8)
    word = _word(width)
    rows = values.astype(f">u{word}").view(np.uint8)
    return np.unpackbits(rows).reshape(-1, 8 * word)[:, -width:].ravel()


def from_bits(bits: Bits, width: int, count: int) -> NDArray[np.uint64]:
    """Read `count` numbers of `width` bits each; the inverse of `to_bits`."""
    if not width:
        return np.zeros(count, np.uint64)
    word = _word(width)
    rows = np.zeros((count, 8 * word), np.uint8)
    rows[:, -width:] = bits.reshape(count, width)
    return np.packbits(rows.ravel()).view(f">u{word}").astype(np.uint64)
