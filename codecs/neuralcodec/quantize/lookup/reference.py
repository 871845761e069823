"""Codebook lookup by its definition in float64, against which the other backends are tested."""

import torch
from torch import Tensor

from neuralcodec.quantize.lookup.books import Books, Found, blocks, check_squares, empty_codes

_WORKSPACE = 1 << 22  # elements held at a time


def unavailable() -> str | None:
    """Return why this backend cannot run here, or None if it can."""
    return None


def search(vectors: Tensor, books: Books, *, squared_error: bool = False) -> Found:
    """Find the nearest entry of every level by comparing with each: see `lookup.search`."""
    batch, length, dim = vectors.shape
    levels, size, _ = books.entries.shape
    codes = empty_codes(vectors, levels)
    errors = torch.empty(batch, length, device=vectors.device)
    entries, targets, bias = books.entries.double(), books.targets.double(), books.bias.double()
    if books.metric == "euclidean":
        bias = torch.where(bias.isinf(), bias, targets.square().sum(dim=2) / 2)
    for b, t in blocks(vectors, max(1, _WORKSPACE // (size * dim))):
        residual = vectors[b, t].double()
        check_squares(residual.float().square().sum(dim=2), "vectors")
        for k in range(levels):
            products = (residual[:, :, None] * targets[k]).sum(dim=3)  # [B, T, V]
            codes[b, t, k] = (bias[k] - products).argmin(dim=2)
            residual = residual - entries[k][codes[b, t, k]]
        errors[b, t] = residual.square().sum(dim=2).float()
    return Found(codes, errors if squared_error else None)
