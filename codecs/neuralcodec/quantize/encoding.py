"""Encoding of latents to codes and back, with optional projections around the codebooks."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from neuralcodec.quantize.lookup import Books, beam_search, search
from neuralcodec.quantize.lookup.books import blocks, empty_codes
from neuralcodec.quantize.projection import Projection

_WORKSPACE = 1 << 22  # elements of the latents that are projected at a time


def _parts(vectors: Tensor) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """Yield float32 parts of `[B, T, D]` of bounded size, each with its slices of B and T."""
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
    """Return the greedy codes `[B, T, K]` int64 of vectors `[B, T, D]`, encoded level by level.

    Args:
        vectors: `[B, T, D]`, float.
        books: codebooks of K levels, `[K, V, Dc]`.
        project_in: projection from D to Dc: one for all levels or, with `tables`, one per level.
        tables: `[>=K, V, D]`, what each code subtracts from the residual if every level has its own
            projection.
        backend: lookup backend; see `lookup.search`.
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
    """Return the beam-search codes `[B, T, k]` int64 of vectors `[B, T, D]` for each length k.

    Args:
        vectors: `[B, T, D]`, float.
        books: codebooks `[K, V, Dc]` with the Euclidean metric.
        width: number of codes kept at each level.
        lengths: numbers of levels, each in 1..K.
        project_in: projection from D to Dc for all levels; the error is then measured in Dc
            dimensions.
        backend: lookup backend; see `lookup.search`.
    """
    if project_in is None:
        return beam_search(vectors, books, width=width, lengths=lengths, backend=backend)
    codes = [empty_codes(vectors, length) for length in lengths]
    for (b, t), part in _parts(vectors):
        found = beam_search(project_in(part), books, width=width, lengths=lengths, backend=backend)
        for whole, each in zip(codes, found, strict=True):
            whole[b, t] = each
    return codes


class Tables(NamedTuple):
    """What each code adds to the latents, and what is needed to look it up.

    Attributes:
        entries: `[K, V, D]` float32.
        sizes: `[K]` int64, entries of each level.
        places: `[K]` int64, row of the first entry of each level in `[K * V, D]`.
    """

    entries: Tensor
    sizes: Tensor
    places: Tensor

    @classmethod
    def of(cls, entries: Tensor, sizes: Sequence[int]) -> Self:
        """Prepare tables `[K, V, D]` of levels of these sizes."""
        levels, size, _ = entries.shape
        device = entries.device
        places = torch.arange(levels, device=device) * size
        return cls(entries, torch.tensor(sizes, device=device), places)


def add_up(codes: Tensor, tables: Tables) -> Tensor:
    """Sum the table entries selected by codes `[B, T, k]` of the first k levels.

    Returns:
        `[B, T, D]`, of the type of the tables.

    Raises:
        ValueError: if a code is negative or not below the size of its level.
    """
    depth = codes.shape[2]
    sizes = tables.sizes[:depth]
    if not codes.is_meta and ((codes < 0) | (codes >= sizes)).any():
        for level, size in zip(codes.unbind(2), sizes.tolist(), strict=True):
            low, high = map(int, level.aminmax())
            if low < 0 or high >= size:
                raise ValueError(f"codes must lie in 0..{size - 1}, got {low}..{high}")
    rows = (codes + tables.places[:depth]).flatten(0, 1)
    z = functional.embedding_bag(rows, tables.entries.flatten(0, 1), mode="sum")
    return z.view(*codes.shape[:2], tables.entries.shape[2])


def add_projected(codes: Tensor, codebooks: Tensor, project_out: Projection | None) -> Tensor:
    """Sum the entries selected by codes, projected outwards: `add_up` with gradients.

    Args:
        codes: `[B, T, k]` int64, valid.
        codebooks: `[K, V, Dc]`, float.
        project_out: projection from Dc to D, one per level or one for all; or None.

    Returns:
        `[B, T, D]` float32.
    """
    entries = [
        functional.embedding(level, book.float())
        for level, book in zip(codes.unbind(2), codebooks, strict=False)
    ]
    if project_out is None:
        return torch.stack(entries).sum(dim=0)
    if len(project_out.weight) == 1 < len(codebooks):
        shared: Tensor = project_out(torch.stack(entries).sum(dim=0))
        return shared
    return torch.stack([project_out(each, k) for k, each in enumerate(entries)]).sum(dim=0)
