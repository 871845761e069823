"""Beam search on CPUs, by the kernel of the greedy search applied to the residuals of the beams."""

import math
from itertools import pairwise

import numpy as np
import torch
from numba import njit
from torch import Tensor

from neuralcodec.quantize.lookup.books import Books, not_finite
from neuralcodec.quantize.lookup.cpu.packing import empty_tiles, float_parts, load_tile, pack, view
from neuralcodec.quantize.lookup.cpu.threads import spread
from neuralcodec.quantize.lookup.cpu.tile import TILE, scores_of_group, trailing_zeros

_VECTORS = TILE.vectors
_ENTRIES = TILE.entries
_ORIGIN = (1 << 32) - 1  # the lower half of a key
_BATCH_FLOATS = 1 << 17  # elements of the residuals of a batch, which should fit in the cache


@njit(nogil=True, cache=True)
def _insert(keys, g, count, keep, key):  # type: ignore[no-untyped-def]
    """Insert a candidate into the sorted best `keep` of vector g; return their new number."""
    place = count
    if count == keep:
        place = keep - 1
        if keys[g, place] < key:
            return count
    while place > 0 and keys[g, place - 1] > key:
        keys[g, place] = keys[g, place - 1]
        place -= 1
    keys[g, place] = key
    return min(count + 1, keep)


@njit(nogil=True, cache=True)
def _extend(tiles, starts, book, bias, level, groups, size, vectors, beams, keep, keys):  # type: ignore[no-untyped-def]
    """Find for each vector the best `keep` extensions of its beams by one entry.

    Args:
        tiles: `[tiles, D * tile]`, residual of each beam; lane g * beams + a is beam a of vector g.
        starts: `[lanes]`, half the squared length of each residual.
        book: packed codebooks.
        bias: their biases.
        level: the level to extend by.
        groups: number of groups of entries per level.
        size: V.
        vectors: number of vectors.
        beams: number of beams per vector.
        keep: number of extensions to keep, at most as many as there are.
        keys: `[vectors, keep]` int64, written in sorted order. The upper half of a key holds the
            bits of half the squared error, which sort like the number itself; the lower half is the
            origin of the extension, beam * V + entry.

    Returns:
        False if a vector has fewer than `keep` extensions of finite error.
    """
    dim = tiles.shape[1] // _VECTORS
    lanes = vectors * beams
    limits = np.full(len(starts), np.finfo(np.float32).max, np.float32)
    limits[lanes:] = np.nan  # unused lanes: every comparison with NaN is false
    limit_bits = limits.view(np.int32)
    counts = np.zeros(vectors, np.int64)
    owners = np.repeat(np.arange(vectors), beams)  # the vector of each lane
    scores = np.empty(_ENTRIES * _VECTORS, np.float32)
    score_bits = scores.view(np.int32)
    hits = np.empty(_ENTRIES, np.uint64)
    for tile in range(-(-lanes // _VECTORS)):
        first = tile * _VECTORS
        x, start = tiles[tile], starts[first : first + _VECTORS]
        limit = limits[first : first + _VECTORS]
        for group in range(groups):
            if not scores_of_group(
                x, book, bias, level, group, groups, dim, start, limit, scores, hits
            ):
                continue
            for e in range(_ENTRIES):
                bits = hits[e]
                while bits:
                    j = trailing_zeros(bits)
                    bits &= bits - np.uint64(1)
                    if scores[e * _VECTORS + j] > limits[first + j]:  # has decreased meanwhile
                        continue
                    g = owners[first + j]
                    origin = (first + j - g * beams) * size + group * _ENTRIES + e
                    # Half a squared error can only be negative by rounding.
                    error = np.int64(max(score_bits[e * _VECTORS + j], 0))
                    counts[g] = _insert(keys, g, counts[g], keep, error << 32 | origin)
                    if counts[g] == keep:
                        worst = keys[g, keep - 1] >> 32
                        for lane in range(g * beams, (g + 1) * beams):
                            limit_bits[lane] = worst
    return (counts == keep).all()


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _take_off(source, entry, target):  # type: ignore[no-untyped-def]
    """Write `source - entry` to `target`, all `[D]`; return half its squared length."""
    square = np.float32(0)
    for d in range(len(source)):
        value = source[d] - entry[d]
        target[d] = value
        square += value * value
    return square / 2


@njit(nogil=True, cache=True)
def _to_tiles(rows, count, tiles):  # type: ignore[no-untyped-def]
    """Copy the rows `[count, D]` to the columns of the tiles."""
    dim = rows.shape[1]
    for lane in range(count):
        tile, column = divmod(lane, _VECTORS)
        for d in range(dim):
            tiles[tile, d * _VECTORS + column] = rows[lane, d]


@njit(nogil=True, cache=True)
def _search(  # type: ignore[no-untyped-def]
    memory, length, strides, entries, book, bias, sizes, width, batch, wanted, codes, start, stop
):
    """Encode vectors `start..stop-1`; return False if one is not finite."""
    levels, size, dim = entries.shape
    groups = len(bias) // levels // _ENTRIES
    count = -(-batch * width // _VECTORS)
    tiles = empty_tiles(count, dim)
    rows = np.empty((batch * width, dim), np.float32)  # the same residuals, one beam per row
    moved = np.empty((batch * width, dim), np.float32)
    starts = np.zeros(count * _VECTORS, np.float32)
    keys = np.empty((levels, batch, width), np.int64)
    for first in range(start, stop, batch):
        vectors, beams = min(batch, stop - first), 1
        if not load_tile(memory, length, strides, first, vectors, dim, tiles[0]):
            return False
        for lane in range(vectors):
            square = np.float32(0)
            for d in range(dim):
                value = tiles[0, d * _VECTORS + lane]
                rows[lane, d] = value
                square += value * value
            starts[lane] = square / 2
        for k in range(levels):
            last = k + 1 == levels
            keep = 1 if last else min(width, beams * sizes[k])
            if not _extend(
                *(tiles, starts, book, bias, k, groups, size), *(vectors, beams, keep, keys[k])
            ):
                return False
            if not last:
                for g in range(vectors):
                    for i in range(keep):
                        a, v = divmod(keys[k, g, i] & _ORIGIN, size)
                        lane = g * keep + i
                        starts[lane] = _take_off(rows[g * beams + a], entries[k, v], moved[lane])
                rows, moved = moved, rows
                beams = keep
                _to_tiles(rows, vectors * beams, tiles)
            if wanted[k] >= 0:
                for g in range(vectors):
                    b, t = divmod(first + g, length)
                    beam = 0
                    for level in range(k, -1, -1):
                        beam, code = divmod(keys[level, g, beam] & _ORIGIN, size)
                        codes[b, wanted[k] + level, t] = code
    return True


@njit(nogil=True, cache=True)
def _grow(residuals, entries, book, bias, keep, batch, grown, start, stop):  # type: ignore[no-untyped-def]
    """Extend the beams of vectors `start..stop-1`; return False if one is not finite."""
    beams = residuals.shape[1]
    size, dim = entries.shape
    groups = len(bias) // _ENTRIES
    count = -(-batch * beams // _VECTORS)
    tiles = empty_tiles(count, dim)
    rows = np.empty((batch * beams, dim), np.float32)
    nothing = np.zeros(dim, np.float32)
    starts = np.zeros(count * _VECTORS, np.float32)
    keys = np.empty((batch, keep), np.int64)
    for first in range(start, stop, batch):
        vectors = min(batch, stop - first)
        for lane in range(vectors * beams):
            g, a = divmod(lane, beams)
            starts[lane] = _take_off(residuals[first + g, a], nothing, rows[lane])
        _to_tiles(rows, vectors * beams, tiles)
        if not _extend(tiles, starts, book, bias, 0, groups, size, vectors, beams, keep, keys):
            return False
        for g in range(vectors):
            for i in range(keep):
                a, v = divmod(keys[g, i] & _ORIGIN, size)
                _take_off(residuals[first + g, a], entries[v], grown[first + g, i])
    return True


def extend_beams(residuals: Tensor, books: Books, width: int) -> Tensor:
    """Extend beams by one level; see `lookup.extend_beams`."""
    count, beams, dim = residuals.shape
    keep = min(width, beams * books.sizes[0])
    grown = torch.empty(count, keep, dim)
    batch = max(1, min(_VECTORS, _BATCH_FLOATS // (beams * dim)))
    packed = pack(books)
    arguments = (residuals.contiguous().numpy(), packed.entries[0], packed.book, packed.bias)

    def work(start: int, stop: int) -> bool:
        return bool(_grow(*arguments, keep, batch, grown.numpy(), start, stop))

    if not all(spread(work, count, batch)):
        raise not_finite("residuals")
    return grown


def beam_search(vectors: Tensor, books: Books, width: int, lengths: list[int]) -> list[Tensor]:
    """Encode vectors with a beam search; see `lookup.beam_search`."""
    dim = books.entries.shape[2]
    books = books.first(max(lengths))
    ends = np.cumsum([0, *lengths])
    codes = torch.empty(vectors.shape[0], int(ends[-1]), vectors.shape[1], dtype=torch.int64)
    wanted = np.full(max(lengths), -1)
    for length, place in zip(lengths, ends[:-1], strict=True):
        wanted[length - 1] = place
    width = min(width, math.prod(books.sizes))
    batch = max(1, min(_VECTORS, _BATCH_FLOATS // (width * dim)))
    packed, sizes = pack(books), np.array(books.sizes)
    for b, t in float_parts(vectors):
        part = vectors[b, t].float()
        arguments = (*view(part), *packed, sizes, width, batch, wanted, codes[b, :, t].numpy())

        def work(start: int, stop: int, arguments=arguments) -> bool:  # type: ignore[no-untyped-def]
            return bool(_search(*arguments, start, stop))

        if not all(spread(work, part.shape[0] * part.shape[1], batch)):
            raise not_finite("vectors")
    return [codes[:, begin:end].mT for begin, end in pairwise(ends)]
