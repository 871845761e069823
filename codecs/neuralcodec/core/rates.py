"""Rates of codebooks: tokens per second and bits per second. No tensors, so that it loads fast."""

import math
from collections.abc import Sequence


def nominal_rates(
    frame_rates: Sequence[float], codebook_sizes: Sequence[int]
) -> tuple[float, float]:
    """Return tokens/s and kbit/s of codebooks with these frame rates (Hz) and sizes (entries).

    A token counts log2(V) bits, as in the literature, also where V is no power of two.

    >>> nominal_rates([50.0] * 4, [1024] * 4)
    (200.0, 2.0)
    """
    bits = (rate * math.log2(size) for rate, size in zip(frame_rates, codebook_sizes, strict=True))
    return math.fsum(frame_rates), math.fsum(bits) / 1000
