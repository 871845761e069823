"""Codebook lookup by torch's matrix products over blocks of vectors, for any device."""

import torch
from torch import Tensor

from neuralcodec.quantize.lookup.books import Books, Found, blocks, check_squares, empty_codes

_WORKSPACE = {"cpu": 1 << 20, "cuda": 1 << 26}  # distances held at a time
_WORKSPACE_ELSEWHERE = 1 << 24


def unavailable() -> str | None:
    """Return why this backend cannot run here, or None if it can."""
    return None


def rows_at_a_time(device: torch.device, width: int) -> int:
    """Return the number of vectors per block if each needs `width` elements of workspace."""
    return max(1, _WORKSPACE.get(device.type, _WORKSPACE_ELSEWHERE) // width)


def scores(vectors: Tensor, targets: Tensor, bias: Tensor) -> Tensor:
    """Return `bias - vectors @ targets.T`, `[N, V]`; the lowest score is the nearest entry."""
    return torch.addmm(bias, vectors, targets.T, alpha=-1)


def search(vectors: Tensor, books: Books, *, squared_error: bool = False) -> Found:
    """Find the nearest entry of every level by matrix products: see `lookup.search`."""
    batch, length, dim = vectors.shape
    levels, size, _ = books.entries.shape
    device = vectors.device
    codes = empty_codes(vectors, levels)
    errors = torch.empty(batch, length, device=device) if squared_error else None
    for b, t in blocks(vectors, rows_at_a_time(device, max(size, dim))):
        part = codes[b, t]
        residual = vectors[b, t].float().reshape(-1, dim)
        check_squares(residual.square().sum(dim=1), "vectors")
        for k in range(levels):
            found = scores(residual, books.targets[k], books.bias[k]).argmin(dim=1)
            part[:, :, k] = found.view(part.shape[:2])
            residual = residual - books.entries[k][found]
        if errors is not None:
            errors[b, t] = residual.square().sum(dim=1).view(part.shape[:2])
    return Found(codes, errors)


def _extend(residual: Tensor, books: Books, k: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best extensions of beams `[n, beams, D]` by an entry of level k.

    Returns:
        Beam index `[n, keep]`, entry `[n, keep]`, and the new residuals `[n, keep, D]`.
    """
    count, beams, dim = residual.shape
    size = books.sizes[k]
    targets, bias = books.targets[k, :size], books.bias[k, :size]
    errors = scores(residual.reshape(-1, dim), targets, bias).view(count, beams, size)
    errors = errors + residual.square().sum(dim=2, keepdim=True) / 2
    # A stable sort puts the earlier beam and the lower entry first where errors are equal.
    keep = min(width, beams * size)
    order = errors.flatten(1).sort(dim=1, stable=True).indices[:, :keep]
    beam, code = order // size, order % size
    return beam, code, residual.gather(1, beam[:, :, None].expand(-1, -1, dim)) - targets[code]


def _beam_of_block(block: Tensor, books: Books, width: int, lengths: list[int]) -> list[Tensor]:
    """Return beam-search codes `[n, k]` of vectors `[n, D]` for each of `lengths`."""
    residual = block[:, None]  # [n, beams, D]
    codes = torch.empty(len(block), 1, 0, dtype=torch.int64, device=block.device)
    best = {}
    for k in range(max(lengths)):
        beam, code, residual = _extend(residual, books, k, width)
        taken = codes.gather(1, beam[:, :, None].expand(-1, -1, k))
        codes = torch.cat([taken, code[:, :, None]], dim=2)  # [n, beams, k + 1]
        best[k + 1] = codes[:, 0]
    return [best[length] for length in lengths]


def beam_search(vectors: Tensor, books: Books, width: int, lengths: list[int]) -> list[Tensor]:
    """Encode vectors with a beam search; see `lookup.beam_search`."""
    _, size, dim = books.entries.shape
    codes = [empty_codes(vectors, depth) for depth in lengths]
    for b, t in blocks(vectors, rows_at_a_time(vectors.device, width * max(size, dim))):
        block = vectors[b, t].float().reshape(-1, dim)
        check_squares(block.square().sum(dim=1), "vectors")
        for whole, part in zip(codes, _beam_of_block(block, books, width, lengths), strict=True):
            whole[b, t] = part.view(whole[b, t].shape)
    return codes


def extend_beams(residuals: Tensor, books: Books, width: int) -> Tensor:
    """Extend beams by one level; see `lookup.extend_beams`."""
    count, beams, dim = residuals.shape
    keep = min(width, beams * books.sizes[0])
    grown = torch.empty(count, keep, dim, device=residuals.device)
    rows = rows_at_a_time(residuals.device, beams * max(books.sizes[0], dim))
    check_squares(residuals.square().sum(dim=2), "residuals")
    for start in range(0, count, rows):
        part = slice(start, start + rows)
        grown[part] = _extend(residuals[part], books, 0, width)[2]
    return grown
