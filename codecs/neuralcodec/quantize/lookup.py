"""Codebook lookup: which entry is nearest. All of the package's searches go through `nearest`."""

import torch
from torch import Tensor

_WORKSPACE = 1 << 22  # distances held at a time, so that memory does not grow with N


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Find the nearest entry, in Euclidean distance, of each vector.

    |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2): the entry that maximises the bracket is the nearest,
    which is one matrix product. Computed in the type of the input.

    Args:
        vectors: `[N, D]`, float.
        codebook: `[V, D]`, of the same type.

    Returns:
        int64 `[N]` in 0..V-1; of equally near entries the lowest.

    >>> nearest(torch.tensor([[0.9], [0.1]]), torch.tensor([[0.0], [1.0], [1.0]])).tolist()
    [1, 0]
    """
    half_norms = codebook.square().sum(dim=1) / 2
    rows = max(1, _WORKSPACE // len(codebook))
    codes = [
        torch.addmm(half_norms, block, codebook.T, alpha=-1).argmin(dim=1)
        for block in torch.split(vectors, rows)
    ]
    return torch.cat(codes) if codes else torch.empty(0, dtype=torch.int64)
