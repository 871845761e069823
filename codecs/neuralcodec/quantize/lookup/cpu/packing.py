"""The memory layout of codebooks and vectors for the CPU kernels."""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from neuralcodec.quantize.lookup.books import Books, blocks
from neuralcodec.quantize.lookup.cpu.threads import spread
from neuralcodec.quantize.lookup.cpu.tile import TILE

Floats: TypeAlias = NDArray[np.float32]

_ENTRIES = TILE.entries
_VECTORS = TILE.vectors
_LINE = 16  # float32 elements of a cache line
_CONVERTED = 1 << 22  # elements that are converted to float32 at a time


class Packed(NamedTuple):
    """Codebooks in groups of entries; a group has as many entries as a tile processes at once.

    Attributes:
        entries: `[K, V, D]`, unchanged.
        book: flat `[K, groups, D, entries per group]`, the negated targets.
        bias: flat `[K, groups, entries per group]`, infinite for the padding of the last group.
    """

    entries: Floats
    book: Floats
    bias: Floats


_KEPT: WeakKeyDictionary[Books, Packed] = WeakKeyDictionary()


class View(NamedTuple):
    """A `[B, T, D]` tensor as flat memory and strides, so that one kernel reads any layout."""

    memory: Floats
    length: int
    strides: tuple[int, int, int]


@njit(nogil=True, cache=True)
def _pack(targets, groups, book, start, stop):  # type: ignore[no-untyped-def]
    """Write groups `start..stop-1`, counted over all levels."""
    size, dim = targets.shape[1:]
    for place in range(start, stop):
        level, group = divmod(place, groups)
        for e in range(_ENTRIES):
            v = group * _ENTRIES + e
            for d in range(dim):
                value = -targets[level, v, d] if v < size else np.float32(0)
                book[(place * dim + d) * _ENTRIES + e] = value


def pack(books: Books) -> Packed:
    """Return packed codebooks on the CPU, cached for the lifetime of `books`."""
    if (kept := _KEPT.get(books)) is not None:
        return kept
    levels, size, dim = books.entries.shape
    groups = -(-size // _ENTRIES)
    targets = books.targets.numpy()
    book = np.empty(levels * groups * dim * _ENTRIES, np.float32)
    spread(lambda start, stop: _pack(targets, groups, book, start, stop), levels * groups, 1)
    bias = np.full((levels, groups * _ENTRIES), np.inf, np.float32)
    bias[:, :size] = books.bias.numpy()
    packed = _KEPT[books] = Packed(books.entries.numpy(), book, bias.ravel())
    return packed


def float_parts(vectors: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield the slices of parts of `[B, T, D]` to convert to float32; one part if it is float32."""
    if not vectors.numel():
        return iter(())
    if vectors.dtype == torch.float32:
        return iter([(slice(None), slice(None))])
    return blocks(vectors, max(1, _CONVERTED // vectors.shape[2]))


def view(vectors: Tensor) -> View:
    """Return float32 CPU vectors `[B, T, D]` of at least one element as a view, without a copy."""
    strides = vectors.stride()
    span = 1 + sum((n - 1) * s for n, s in zip(vectors.shape, strides, strict=True))
    memory = torch.as_strided(vectors, (span,), (1,)).numpy()
    return View(memory, vectors.shape[1], (strides[0], strides[1], strides[2]))


@njit(nogil=True, cache=True)
def empty_tiles(count, dim):  # type: ignore[no-untyped-def]
    """Allocate tiles `[count, D * vectors]`, aligned to a cache line.

    Otherwise each load of a full vector register would touch two lines.
    """
    memory = np.empty(count * dim * _VECTORS + _LINE, np.float32)
    skip = -(memory.ctypes.data // 4) % _LINE
    return memory[skip : skip + count * dim * _VECTORS].reshape(count, dim * _VECTORS)


@njit(nogil=True, cache=True)
def load_tile(memory, length, strides, first, count, dim, tile):  # type: ignore[no-untyped-def]
    """Copy vectors `first..first+count-1`, counted over B and T, into the columns of a tile.

    Columns beyond `count` are filled with zeros.

    Returns:
        False if the squared length of a vector is not finite.
    """
    squares = np.zeros(_VECTORS, np.float32)
    for j in range(_VECTORS):
        if j < count:
            b, t = divmod(first + j, length)
            place = b * strides[0] + t * strides[1]
            square = np.float32(0)
            for d in range(dim):
                value = memory[place + d * strides[2]]
                tile[d * _VECTORS + j] = value
                square += value * value
            squares[j] = square
        else:
            for d in range(dim):
                tile[d * _VECTORS + j] = 0
    return np.isfinite(squares).all()
