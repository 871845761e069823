"""Usage statistics of codebooks, which reveal codebook collapse.

A histogram counts how often each entry was selected. In training all counts are multiplied by
`decay` before a batch is added, so that they cover roughly the last `1 / (1 - decay)` batches.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import repeat

import torch
from torch import Tensor

from neuralcodec.quantize.inputs import check_codes, check_mask

_FADED = math.exp(-1)  # to which a count of one decays in 1 / (1 - decay) batches


def histogram(
    codes: Iterable[Tensor], sizes: Sequence[int], masks: Iterable[Tensor] | None = None
) -> Tensor:
    """Return how often codes select each entry.

    Args:
        codes: tensors `[B, K, T]` int64 of any B and T, level k in 0..sizes[k]-1.
        sizes: entries of each level.
        masks: for each tensor `[B, T]` bool, False for frames that do not count; default none.

    Returns:
        `[K, V]` float32, where V is the largest size.

    Raises:
        ValueError: if codes do not have as many levels as `sizes`, or a code is not below the size
            of its level; or there is not one mask for each tensor, of its shape.

    >>> histogram([torch.tensor([[[0, 1, 1], [2, 2, 2]]])], [2, 3])
    tensor([[1., 2., 0.],
            [0., 0., 3.]])
    """
    counts = torch.zeros(len(sizes), max(sizes))
    none: Iterable[Tensor | None] = repeat(None)
    for part, mask in zip(codes, none if masks is None else masks, strict=masks is not None):
        check_codes(part)
        check_mask(mask, part)
        if part.shape[1] != len(sizes):
            raise ValueError(f"codes must be [B, {len(sizes)}, T], got {list(part.shape)}")
        for level, size in enumerate(sizes):
            shown = part[:, level].flatten() if mask is None else part[:, level][mask]
            named = torch.bincount(shown.cpu(), minlength=max(sizes))
            if named[size:].any():
                raise ValueError(f"codes of level {level} must lie in 0..{size - 1}")
            counts[level] += named
    return counts


def entropy(histogram: Tensor) -> Tensor:
    """Return the entropy of the codes of each level in bits, the mean cost of ideal entropy coding.

    Args:
        histogram: `[K, V]`, non-negative.

    Returns:
        `[K]`, in 0..log2(V); NaN for a level without any count.

    >>> entropy(torch.tensor([[2.0, 2.0, 2.0, 2.0], [5.0, 0.0, 0.0, 0.0]]))
    tensor([2., 0.])
    """
    share = histogram / histogram.sum(dim=1, keepdim=True)
    nats: Tensor = torch.special.entr(share).sum(dim=1)
    return nats / math.log(2)


def usage(histogram: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the fraction of the entries of each level that are in use.

    An entry is in use if its decayed count is at least 1/e. This holds if it was selected at least
    once within the last `1 / (1 - decay)` batches; further selections count for longer.

    Args:
        histogram: `[K, V]`, non-negative.
        sizes: entries of each level.

    Returns:
        `[K]`, in 0..1; NaN for a level without any count.
    """
    used = (histogram >= _FADED).sum(dim=1) / torch.tensor(sizes, device=histogram.device)
    return torch.where(histogram.sum(dim=1) > 0, used, torch.nan)


def _cell(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def cells(sizes: Sequence[int], used: Tensor, bits: Tensor) -> list[tuple[str, ...]]:
    """Format the figures of all levels as rows of a table, the head first.

    Args:
        sizes: entries of each level.
        used: `[K]`, `usage` of each level.
        bits: `[K]`, `entropy` of each level.

    Returns:
        K + 1 rows of level, entries, usage, perplexity and entropy; "-" where nothing was counted.
    """
    rows: list[tuple[str, ...]] = [("level", "entries", "usage", "perplexity", "entropy (bits)")]
    levels = zip(sizes, used.tolist(), bits.tolist(), strict=True)
    for level, (size, share, bit) in enumerate(levels):
        figures = _cell(share, ".1%"), _cell(2**bit, ".1f"), _cell(bit, ".2f")
        rows.append((str(level), str(size), *figures))
    return rows


def table(sizes: Sequence[int], used: Tensor, bits: Tensor) -> str:
    """Return the rows of `cells` as a table to print."""
    widths = (5, 8, 7, 11, 15)
    return "\n".join(
        " ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells(sizes, used, bits)
    )
