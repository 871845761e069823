"""Residual vector quantization, usable without the rest of the package.

It depends on torch, numpy and numba only.

>>> import torch
>>> from neuralcodec.quantize import ResidualVectorQuantizer
>>> rvq = ResidualVectorQuantizer(dim=8, num_codebooks=4, codebook_size=16)
>>> z = torch.randn(1, 8, 500, generator=torch.Generator().manual_seed(0))
>>> codes = rvq.fit(z).encode(z)  # [B, K, T]
>>> codes.shape, rvq.decode(codes[:, :2]).shape  # the first two levels are a coarser code
(torch.Size([1, 4, 500]), torch.Size([1, 8, 500]))
"""

import warnings

from neuralcodec.quantize.fitting import Progress
from neuralcodec.quantize.grouped import (
    GroupedResidualVectorQuantizer,
    SplitResidualVectorQuantizer,
)
from neuralcodec.quantize.learning import Learning
from neuralcodec.quantize.residual import ResidualVectorQuantizer
from neuralcodec.quantize.result import QuantizedResult

__all__ = [
    "GroupedResidualVectorQuantizer",
    "Learning",
    "Progress",
    "QuantizedResult",
    "ResidualVectorQuantizer",
    "SplitResidualVectorQuantizer",
]


def __getattr__(name: str) -> type[Learning]:
    """Return `Learning` under its former name, with a warning."""
    if name != "Training":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("Training is now called Learning", DeprecationWarning, stacklevel=2)
    return Learning
