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

from neuralcodec.quantize.fitting import Progress
from neuralcodec.quantize.grouped import (
    GroupedResidualVectorQuantizer,
    SplitResidualVectorQuantizer,
)
from neuralcodec.quantize.residual import ResidualVectorQuantizer
from neuralcodec.quantize.result import QuantizedResult
from neuralcodec.quantize.training import Training

__all__ = [
    "GroupedResidualVectorQuantizer",
    "Progress",
    "QuantizedResult",
    "ResidualVectorQuantizer",
    "SplitResidualVectorQuantizer",
    "Training",
]
