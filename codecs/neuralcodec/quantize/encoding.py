"""From latents to codes and back, where the codebooks may lie behind projections."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from neuralcodec.quantize.lookup import Books, beam_search, search
from neuralcodec.quantize.lookup.books import blocks, empty_codes
from neuralcodec.quantize.projection import Projection

_WORKSPACE = 1 << 22  # numbers of latents that are projected at a time


def _parts(vectors: Tensor) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """Cut `[B, T, D]` into float32 parts of bounded size: where each lies, and what is there."""
    for place in blocks(vectors, max(1, _WORKSPACE // vectors.shape[2])):
        yield place, vectors[place].float()


def greedy(
    vectors: Tensor,
    books: Books,
    *,
    project_in: Projection | None = None,
    tables: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Encode vectors `[B, T, D]` level by level: codes `[B, T, K]` int64.

    Args:
        vectors: float.
        books: of K levels, `[K, V, Dc]`.
        project_in: D to Dc; one for all levels, or with `tables` one for each.
        tables: `[>=K, V, D]`, what a level takes off the residual if each has its own projection.
        backend: of the lookup.
    """
    if project_in is None:
        return search(vectors, books, backend=backend).codes
    levels = [books.level(k) for k in range(len(books.sizes))]
    codes = empty_codes(vectors, len(levels))
    for (b, t), residual in _parts(vectors):
        if tables is None:
            codes[b, t] = search(project_in(residual), books, backend=backend).codes
            continue
        for k, level in enumerate(levels):
            found = search(project_in(residual, k), level, backend=backend).codes[:, :, 0]
            codes[b, t, k] = found
            residual = residual - tables[k][found]
    return codes


def beam(
    vectors: Tensor,
    books: Books,
    *,
    width: int,
    lengths: Sequence[int],
    project_in: Projection | None = None,
    backend: str = "auto",
) -> list[Tensor]:
    """Encode vectors `[B, T, D]` with a beam: codes `[B, T, k]` for each length k.

    Args:
        vectors: float.
        books: `[K, V, Dc]`, of Euclidean metric.
        width: codes kept at each level.
        lengths: numbers of levels, each 1..K.
        project_in: D to Dc, one for all levels; the error is measured behind it.
        backend: of the lookup.
    """
    if project_in is None:
        return beam_search(vectors, books, width=width, lengths=lengths, backend=backend)
    codes = [empty_codes(vectors, length) for length in lengths]
    for (b, t), part in _parts(vectors):
        found = beam_search(project_in(part), books, width=width, lengths=lengths, backend=backend)
        for whole, each in zip(codes, found, strict=True):
            whole[b, t] = each
    return codes


def add_up(codes: Tensor, tables: Tensor, sizes: Sequence[int]) -> Tensor:
    """Add up what codes `[B, T, k]` name in the tables `[K, V, D]` of the first levels.

    Returns:
        `[B, T, D]`.

    Raises:
        ValueError: if a code is not below the size of its level.
    """
    for level, size in zip(codes.unbind(2), sizes, strict=False):
        if level.numel() and not level.is_meta:
            low, high = map(int, level.aminmax())
            if low < 0 or high >= size:
                raise ValueError(f"codes must lie in 0..{size - 1}, got {low}..{high}")
    rows = codes + tables.shape[1] * torch.arange(codes.shape[2], device=codes.device)
    z = functional.embedding_bag(rows.flatten(0, 1), tables.flatten(0, 1), mode="sum")
    return z.view(*codes.shape[:2], tables.shape[2])
