"""Input and output of every lookup backend: prepared codebooks, and the codes found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import torch
from torch import Tensor
from torch.nn import functional

from neuralcodec.quantize.inputs import check_tensor

Metric = Literal["euclidean", "cosine"]


@dataclass(frozen=True, eq=False)
class Books:
    """The codebooks of K levels, prepared for the search; reuse them for repeated searches.

    Both metrics are one search for the smallest `bias - x.target`. For the Euclidean distance the
    target is the entry c and the bias |c|^2 / 2, since |x - c|^2 / 2 = |x|^2 / 2 + |c|^2 / 2 - x.c
    and |x|^2 is the same for all entries. For the cosine similarity the target is c / |c| and the
    bias 0.

    Attributes:
        entries: `[K, V, D]` float32, subtracted from the residual.
        targets: `[K, V, D]` float32, multiplied with the residual.
        bias: `[K, V]` float32; infinite where a level has fewer than V entries.
        sizes: entries of each level, each in 1..V.
        metric: "euclidean" or "cosine".
    """

    entries: Tensor
    targets: Tensor
    bias: Tensor
    sizes: tuple[int, ...]
    metric: Metric

    @classmethod
    def of(
        cls,
        codebooks: Tensor,
        *,
        metric: Metric = "euclidean",
        sizes: Sequence[int] | None = None,
    ) -> Self:
        """Prepare codebooks `[K, V, D]`, float; level k has the first `sizes[k]` of V entries.

        Raises:
            ValueError: if a shape, type, size or the metric is not allowed, an entry is not finite,
                or its squared length is above the float32 range.
        """
        check_tensor(codebooks, "codebooks [K, V, D]")
        if codebooks.ndim != 3 or 0 in codebooks.shape or not codebooks.is_floating_point():
            raise ValueError(
                f"codebooks must be float [K, V, D] and not empty, "
                f"got {codebooks.dtype} {list(codebooks.shape)}"
            )
        if metric not in get_args(Metric):
            raise ValueError(f"metric must be one of {get_args(Metric)}, got {metric!r}")
        levels, size, _ = codebooks.shape
        sizes = (size,) * levels if sizes is None else tuple(sizes)
        if len(sizes) != levels or not all(1 <= each <= size for each in sizes):
            raise ValueError(f"sizes must be {levels} numbers in 1..{size}, got {sizes}")
        entries = codebooks.detach().float().contiguous()
        squares = entries.square().sum(dim=2)
        check_squares(squares, "codebooks")
        if metric == "cosine":
            targets, bias = functional.normalize(entries, dim=2), torch.zeros_like(squares)
        else:
            targets, bias = entries, squares / 2
        if min(sizes) < size:
            places = torch.arange(size, device=bias.device)
            limits = torch.tensor(sizes, device=bias.device)
            bias = bias.masked_fill(places >= limits[:, None], torch.inf)
        return cls(entries, targets, bias, sizes, metric)

    def first(self, count: int) -> Self:
        """Return the books of the first `count` levels."""
        return self._part(slice(count))

    def level(self, k: int) -> Self:
        """Return the books of level k only."""
        return self._part(slice(k, k + 1))

    def _part(self, levels: slice) -> Self:
        return replace(
            self,
            entries=self.entries[levels],
            targets=self.targets[levels],
            bias=self.bias[levels],
            sizes=self.sizes[levels],
        )


@dataclass(frozen=True)
class Found:
    """The result of a lookup for vectors `[B, T, D]`.

    Attributes:
        codes: `[B, T, K]` int64 (in memory `[B, K, T]`), level k in 0..sizes[k]-1.
        squared_error: `[B, T]` float32, the squared Euclidean distance between each vector and the
            sum of the entries that its codes name; None unless requested.
    """

    codes: Tensor
    squared_error: Tensor | None = None


def empty_codes(vectors: Tensor, levels: int) -> Tensor:
    """Allocate the codes `[B, T, K]` int64 of vectors `[B, T, D]`, in memory `[B, K, T]`."""
    batch, length, _ = vectors.shape
    return torch.empty(batch, levels, length, dtype=torch.int64, device=vectors.device).mT


def not_finite(what: str) -> ValueError:
    """Return the error for values that have no finite distance."""
    return ValueError(
        f"{what} hold NaN or infinite values, or their squared length is above the float32 range"
    )


def check_squares(squares: Tensor, what: str) -> None:
    """Check squared lengths, which reveal NaN, infinite and too large values.

    Raises:
        ValueError: if one is not finite.
    """
    if not squares.is_meta and not torch.isfinite(squares).all():
        raise not_finite(what)


def blocks(vectors: Tensor, rows: int) -> Iterator[tuple[slice, slice]]:
    """Yield the slices of B and of T of parts of `[B, T, D]` with at most about `rows` vectors."""
    batch, length, _ = vectors.shape
    step_t = max(1, min(length, rows))
    step_b = max(1, rows // step_t)
    for b in range(0, batch, step_b):
        for t in range(0, length, step_t):
            yield slice(b, b + step_b), slice(t, t + step_t)
