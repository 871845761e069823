"""Codebook lookup: nearest-neighbour search, with one interface (`dispatch`) and four backends.

`reference` is the definition in float64, `torch` runs on any device, `numba` is the CPU kernel and
`cuda` the kernel for NVIDIA GPUs.
"""

from neuralcodec.quantize.lookup.books import Books, Found, Metric
from neuralcodec.quantize.lookup.dispatch import (
    BACKENDS,
    backends,
    beam_search,
    extend_beams,
    search,
)

__all__ = [
    "BACKENDS",
    "Books",
    "Found",
    "Metric",
    "backends",
    "beam_search",
    "extend_beams",
    "search",
]
