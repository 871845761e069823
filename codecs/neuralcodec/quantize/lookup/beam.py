"""Beam search on CPUs: the greedy kernel's tiles, with the beam's residuals as their vectors."""

import math
from itertools import pairwise

import numpy as np
import torch
from numba import njit
from torch import Tensor

from neuralcodec.quantize.lookup.books import Books, not_finite
from neuralcodec.quantize.lookup.packing import empty_tiles, float_parts, load_tile, pack, view
from neuralcodec.quantize.lookup.threads import spread
from neuralcodec.quantize.lookup.tile import TILE, scores_of_group, trailing_zeros

_VECTORS = TILE.vectors
_ENTRIES = TILE.entries
_BATCH_FLOATS = 1 << 17  # residuals of a batch, which should stay in the cache


@njit(nogil=True, cache=True)
def _insert(errors, origins, count, keep, error, origin):  # type: ignore[no-untyped-def]
    """Put a candidate among the best `keep`, sorted; of equal errors the earlier origin first."""
    if count == keep and (
        errors[keep - 1] < error or (errors[keep - 1] == error and origins[keep - 1] < origin)
    ):
        return count
    place = min(count, keep - 1)
    while place > 0 and (
        errors[place - 1] > error or (errors[place - 1] == error and origins[place - 1] > origin)
    ):
        errors[place], origins[place] = errors[place - 1], origins[place - 1]
        place -= 1
    errors[place], origins[place] = error, origin
    return min(count + 1, keep)


@njit(nogil=True, cache=True)
def _extend(  # type: ignore[no-untyped-def]
    tiles, starts, book, bias, level, groups, size, vectors, beams, keep, errors, origins
):
    """Find for each of some vectors the best `keep` extensions of its beams by one entry.

    Args:
        tiles: `[tiles, D * tile]`, residual of each beam; lane g * beams + a is beam a of vector g.
        starts: `[lanes]`, half the squared length of each residual.
        book: packed codebooks.
        bias: their biases.
        level: which of them.
        groups: of entries, to a level.
        size: V; the origin of an extension is beam * V + entry.
        vectors: how many.
        beams: of each vector.
        keep: extensions to keep, no more than there are.
        errors: `[vectors, keep]`, filled in with half the squared error, sorted.
        origins: `[vectors, keep]` int64, filled in.

    Returns:
        False if a vector has fewer than `keep` extensions of finite error.
    """
    dim = tiles.shape[1] // _VECTORS
    lanes = vectors * beams
    limits = np.full(len(starts), np.finfo(np.float32).max, np.float32)
    limits[lanes:] = np.nan  # lanes of no vector: nothing compares with that
    counts = np.zeros(vectors, np.int64)
    scores = np.empty(_ENTRIES * _VECTORS, np.float32)
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
                    g, a = divmod(first + j, beams)
                    error, origin = scores[e * _VECTORS + j], a * size + group * _ENTRIES + e
                    counts[g] = _insert(errors[g], origins[g], counts[g], keep, error, origin)
                    if counts[g] == keep:
                        limits[g * beams : (g + 1) * beams] = errors[g, keep - 1]
    return (counts == keep).all()


@njit(nogil=True, cache=True)
def _move(tiles, entries, vectors, beams, keep, origins, moved, starts):  # type: ignore[no-untyped-def]
    """Make the residuals `moved` and their `starts` after the extensions `origins`."""
    size, dim = entries.shape
    for g in range(vectors):
        for i in range(keep):
            a, v = divmod(origins[g, i], size)
            source, column = divmod(g * beams + a, _VECTORS)
            target, place = divmod(g * keep + i, _VECTORS)
            square = np.float32(0)
            for d in range(dim):
                value = tiles[source, d * _VECTORS + column] - entries[v, d]
                moved[target, d * _VECTORS + place] = value
                square += value * value
            starts[g * keep + i] = square / 2


@njit(nogil=True, cache=True)
def _search(  # type: ignore[no-untyped-def]
    memory, length, strides, entries, book, bias, sizes, width, batch, wanted, codes, start, stop
):
    """Encode vectors `start..stop-1`; False if one is not finite."""
    levels, size, dim = entries.shape
    groups = len(bias) // levels // _ENTRIES
    count = -(-batch * width // _VECTORS)
    tiles = empty_tiles(count, dim)
    moved = empty_tiles(count, dim)
    starts = np.zeros(count * _VECTORS, np.float32)
    errors = np.empty((batch, width), np.float32)
    origins = np.empty((levels, batch, width), np.int64)
    for first in range(start, stop, batch):
        vectors, beams = min(batch, stop - first), 1
        if not load_tile(memory, length, strides, first, vectors, dim, tiles[0]):
            return False
        starts[:vectors] = 0  # the length of a vector is the same for all of its codes
        for k in range(levels):
            last = k + 1 == levels
            keep = 1 if last else min(width, beams * sizes[k])
            if not _extend(
                *(tiles, starts, book, bias, k, groups, size),
                *(vectors, beams, keep, errors, origins[k]),
            ):
                return False
            if not last:
                _move(tiles, entries[k], vectors, beams, keep, origins[k], moved, starts)
                tiles, moved = moved, tiles
                beams = keep
            if wanted[k] >= 0:
                for g in range(vectors):
                    b, t = divmod(first + g, length)
                    beam = 0
                    for level in range(k, -1, -1):
                        beam, code = divmod(origins[level, g, beam], size)
                        codes[b, wanted[k] + level, t] = code
    return True


@njit(nogil=True, cache=True)
def _grow(residuals, entries, book, bias, keep, batch, grown, start, stop):  # type: ignore[no-untyped-def]
    """Extend the beams of vectors `start..stop-1`; False if one is not finite."""
    beams = residuals.shape[1]
    size, dim = entries.shape
    groups = len(bias) // _ENTRIES
    count = -(-batch * beams // _VECTORS)
    tiles = empty_tiles(count, dim)
    starts = np.zeros(count * _VECTORS, np.float32)
    errors = np.empty((batch, keep), np.float32)
    origins = np.empty((batch, keep), np.int64)
    for first in range(start, stop, batch):
        vectors = min(batch, stop - first)
        for lane in range(vectors * beams):
            g, a = divmod(lane, beams)
            tile, column = divmod(lane, _VECTORS)
            square = np.float32(0)
            for d in range(dim):
                value = residuals[first + g, a, d]
                tiles[tile, d * _VECTORS + column] = value
                square += value * value
            starts[lane] = square / 2
        if not _extend(
            tiles, starts, book, bias, 0, groups, size, vectors, beams, keep, errors, origins
        ):
            return False
        for g in range(vectors):
            for i in range(keep):
                a, v = divmod(origins[g, i], size)
                for d in range(dim):
                    grown[first + g, i, d] = residuals[first + g, a, d] - entries[v, d]
    return True


def extend_beams(residuals: Tensor, books: Books, width: int) -> Tensor:
    """Extend beams by one level: see `lookup.extend_beams`."""
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
    """Encode vectors with a beam: see `lookup.beam_search`."""
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
