"""Codebook lookup on CPUs: a tile of vectors stays in the cache for the search of all levels."""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from neuralcodec.quantize.lookup.books import Books, Found, not_finite
from neuralcodec.quantize.lookup.cpu.beam import beam_search, extend_beams
from neuralcodec.quantize.lookup.cpu.few import FEW, search_few
from neuralcodec.quantize.lookup.cpu.packing import empty_tiles, float_parts, load_tile, pack, view
from neuralcodec.quantize.lookup.cpu.threads import spread
from neuralcodec.quantize.lookup.cpu.tile import TILE, nearest_of_tile

__all__ = ["beam_search", "extend_beams", "search", "unavailable"]

_VECTORS = TILE.vectors
_CACHED = 1 << 17  # elements of a codebook that are compared with several tiles in turn
_TILES = 8


def unavailable() -> str | None:
    """Return why this backend cannot run here, or None if it can."""
    return None


@njit(nogil=True, cache=True)
def _search(memory, length, strides, entries, book, bias, codes, errors, start, stop):  # type: ignore[no-untyped-def]
    """Search vectors `start..stop-1`; False if one is not finite.

    `errors` `[N]` is filled in unless it is empty.
    """
    levels, _, dim = entries.shape
    groups = len(bias) // levels // TILE.entries
    # A part of the codebook stays in the cache while several tiles are compared with it.
    step = max(1, _CACHED // (TILE.entries * dim))
    count = _TILES if step < groups else 1
    tiles = empty_tiles(count, dim)  # the residuals, one per column
    least = np.empty((count, _VECTORS), np.float32)
    found = np.empty((count, _VECTORS), np.int32)
    for base in range(start, stop, count * _VECTORS):
        used = min(count, -(-(stop - base) // _VECTORS))
        for i in range(used):
            first = base + i * _VECTORS
            number = min(_VECTORS, stop - first)
            if not load_tile(memory, length, strides, first, number, dim, tiles[i]):
                return False
        for k in range(levels):
            least[:] = np.inf
            found[:] = -1
            for group in range(0, groups, step):
                some = min(step, groups - group)
                for i in range(used):
                    nearest_of_tile(
                        tiles[i], book, bias, k, group, some, groups, dim, least[i], found[i]
                    )
            for i in range(used):
                first = base + i * _VECTORS
                for j in range(min(_VECTORS, stop - first)):
                    code = found[i, j]
                    if code < 0:
                        return False
                    b, t = divmod(first + j, length)
                    codes[b, k, t] = code
                    if k + 1 < levels or len(errors):
                        row = entries[k, code]
                        for d in range(dim):
                            tiles[i, d * _VECTORS + j] -= row[d]
        if len(errors):
            for i in range(used):
                first = base + i * _VECTORS
                for n in range(first, min(first + _VECTORS, stop)):
                    square = np.float32(0)
                    for d in range(dim):
                        square += tiles[i, d * _VECTORS + n - first] ** 2
                    errors[n] = square
    return True


def search(vectors: Tensor, books: Books, *, squared_error: bool = False) -> Found:
    """Find the nearest entry of every level: see `lookup.search`."""
    batch, length, _ = vectors.shape
    codes = torch.empty(batch, len(books.sizes), length, dtype=torch.int64)
    errors = torch.empty(batch, length) if squared_error else torch.empty(0, 0)
    packed = pack(books)
    for b, t in float_parts(vectors):
        part = vectors[b, t].float()
        source = view(part)
        arrays = (
            *(packed.entries, packed.book, packed.bias),
            *(codes[b, :, t].numpy(), errors[b, t].reshape(-1).numpy()),
        )

        def work(start: int, stop: int, source=source, arrays=arrays) -> bool:  # type: ignore[no-untyped-def]
            return bool(_search(*source, *arrays, start, stop))

        count = part.shape[0] * part.shape[1]
        if count <= FEW:
            finite = bool(search_few(*source, *arrays, count))
        else:
            finite = all(spread(work, count, _VECTORS))
        if not finite:
            raise not_finite("vectors")
    return Found(codes.mT, errors if squared_error else None)
