"""Codebook lookup: which entry is nearest. All searches of the package go through this file."""

import torch
from torch import Tensor

_WORKSPACE = 1 << 22  # distances held at a time, so that memory does not grow with N


def half_distances(vectors: Tensor, entries: Tensor) -> Tensor:
    """Give half the squared distance of each vector to each entry, less half the vector's norm.

    |x - c|^2 / 2 - |x|^2 / 2 = |c|^2 / 2 - x.c, which is one matrix product. What is left out is
    the same for all entries, so that the smallest is the nearest.

    Args:
        vectors: `[N, D]`, float.
        entries: `[V, D]`, of the same type.

    Returns:
        `[N, V]`, of the same type; the caller bounds N * V.
    """
    return torch.addmm(entries.square().sum(dim=1) / 2, vectors, entries.T, alpha=-1)


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Find the nearest entry, in Euclidean distance, of each vector.

    Computed in the type of the input, by `half_distances`, a block of vectors at a time.

    Args:
        vectors: `[N, D]`, float.
        codebook: `[V, D]`, of the same type.

    Returns:
        int64 `[N]` in 0..V-1; of equally near entries the lowest.

    >>> nearest(torch.tensor([[0.9], [0.1]]), torch.tensor([[0.0], [1.0], [1.0]])).tolist()
    [1, 0]
    """
    rows = max(1, _WORKSPACE // len(codebook))
    codes = [half_distances(block, codebook).argmin(dim=1) for block in torch.split(vectors, rows)]
    return torch.cat(codes) if codes else torch.empty(0, dtype=torch.int64)
