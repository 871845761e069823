"""Codebook lookup for few vectors, such as a frame of a stream: each entry is read once.

A tile of the other kernel computes as much for one vector as for all its lanes. Here the lanes hold
entries instead of vectors, so that one vector costs no more than to read the codebooks. The
products are added in the same order, so that both kernels find the same codes bit by bit.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from neuralcodec.quantize.lookup.cpu.tile import TILE, Emitter, pointers

FEW = 8
"""Number of vectors up to which this kernel is used."""

_ENTRIES = TILE.entries


class _Rows(Emitter):
    """Builder of the instructions for one vector, with the entries of a group in the lanes."""

    def __init__(self, builder: Any) -> None:
        super().__init__(builder, TILE._replace(lanes=TILE.entries))

    def write_scores(self, x: Any, book: Any, bias: Any, out: Any, groups: int, dim: Any) -> None:
        """Write the scores of the entries of some groups that follow one another."""
        b, entries = self.b, self.shape.entries
        places = [self.at(entries * g) for g in range(groups)]
        starts = [self.load_lanes(bias, place, self.floats) for place in places]
        rows = [b.gep(book, [b.mul(dim, place)]) for place in places]

        def step(d: Any, sums: list[Any]) -> list[Any]:
            value = self.splat(self.load(x, d), self.floats)
            column = b.mul(d, self.at(entries))
            return [
                b.call(self.fma, [value, self.load_lanes(row, column, self.floats), total])
                for row, total in zip(rows, sums, strict=True)
            ]

        for place, total in zip(places, self.loop(dim, starts, step), strict=True):
            self.store_lanes(out, place, total)


def _scores_of(together: int) -> Any:
    """Return the function that writes the scores of one vector with some groups of entries.

    Args of the compiled function, all arrays flat: x `[dim]` float32; book `[K, groups, dim,
    entries]` float32, the negated targets; bias `[K, groups, entries]` float32; level; groups and
    dim, the sizes; at, the first of `together` groups; out `[groups, entries]` float32.
    """

    @intrinsic
    def scores(typingctx, x, book, bias, level, groups, dim, at, out):  # type: ignore[no-untyped-def]
        signature = types.void(x, book, bias, *[types.intp] * 4, out)

        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            x, book, bias, level, groups, dim, at, out = pointers(context, builder, signature, args)
            emit = _Rows(builder)
            book, bias = emit.level(book, bias, level, groups, dim)
            first = builder.mul(at, emit.at(_ENTRIES))
            book = builder.gep(book, [builder.mul(first, dim)])
            places = (builder.gep(bias, [first]), builder.gep(out, [first]))
            emit.write_scores(x, book, *places, together, dim)
            return context.get_dummy_value()

        return signature, generate

    return scores


_TOGETHER = 8  # groups whose sums are in registers at a time
_scores_of_some, _scores_of_one = _scores_of(_TOGETHER), _scores_of(1)


@njit(nogil=True, cache=True)
def _nearest(vector, book, bias, level, groups, dim, scores):  # type: ignore[no-untyped-def]
    """Return the nearest entry of a level, the first one of several, or -1 if none is finite."""
    whole = groups // _TOGETHER * _TOGETHER
    for at in range(0, whole, _TOGETHER):
        _scores_of_some(vector, book, bias, level, groups, dim, at, scores)
    for at in range(whole, groups):
        _scores_of_one(vector, book, bias, level, groups, dim, at, scores)
    least, found = np.float32(np.inf), -1
    for code in range(groups * _ENTRIES):
        if scores[code] < least:
            least, found = scores[code], code
    return found


@njit(nogil=True, cache=True)
def search_few(memory, length, strides, entries, book, bias, codes, errors, count):  # type: ignore[no-untyped-def]
    """Search vectors `0..count-1`; False if one is not finite.

    `errors` `[N]` is filled in unless it is empty. The other arguments are those of the kernel for
    many vectors.
    """
    levels, _, dim = entries.shape
    groups = len(bias) // levels // _ENTRIES
    scores = np.empty(groups * _ENTRIES, np.float32)
    residuals = np.empty((count, dim), np.float32)
    for n in range(count):
        b, t = divmod(n, length)
        square = np.float32(0)
        for d in range(dim):
            value = memory[b * strides[0] + t * strides[1] + d * strides[2]]
            residuals[n, d] = value
            square += value * value
        if not np.isfinite(square):
            return False
    for k in range(levels):  # of a codebook that all vectors read, all but one find it in the cache
        for n in range(count):
            code = _nearest(residuals[n], book, bias, k, groups, dim, scores)
            if code < 0:
                return False
            b, t = divmod(n, length)
            codes[b, k, t] = code
            for d in range(dim):
                residuals[n, d] -= entries[k, code, d]
    if len(errors):
        for n in range(count):
            square = np.float32(0)
            for d in range(dim):
                square += residuals[n, d] ** 2
            errors[n] = square
    return True
