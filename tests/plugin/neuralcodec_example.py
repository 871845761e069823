"""A codec and a metric of one's own: mu-law companding (ITU-T G.711), and the error in level."""

import math

import torch
from torch import Tensor

from neuralcodec import Codec, Tokens
from neuralcodec.metrics import CustomMetric, Undefined


class MuLaw(Codec):
    """Samples on a logarithmic scale, 8 bits each by default."""

    name = "example_ulaw"
    is_causal = True
    hop_length = 1

    def __init__(self, bits: int = 8, sample_rate: int = 8000) -> None:
        super().__init__()
        if not 2 <= bits <= 12:
            raise ValueError(f"bits must be 2..12, got {bits}")
        self.sample_rate = sample_rate
        self.frame_rates = (float(sample_rate),)
        self.codebook_sizes = (2**bits,)

    def _encode(self, wav: Tensor, depth: int) -> Tokens:
        mu = self.codebook_sizes[0] - 1
        scaled = wav.sign() * torch.log1p(mu * wav.abs()) / math.log1p(mu)
        return self.tokens(((scaled + 1) / 2 * mu).round().long(), wav.shape[-1])

    def _decode(self, tokens: Tokens) -> Tensor:
        mu = self.codebook_sizes[0] - 1
        scaled: Tensor = tokens.streams[0][:, None] / mu * 2 - 1
        return scaled.sign() * torch.expm1(scaled.abs() * math.log1p(mu)) / mu


class LevelError(CustomMetric):
    """By how many decibels the level is wrong."""

    label = "Level error [dB]"
    unit = "dB"
    low = 0.0
    higher_is_better = False

    def score(self, reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
        """Return the difference of the levels."""
        if not reference.any() or not estimate.any():
            raise Undefined("silence has no level")
        ratio = estimate.square().mean() / reference.square().mean()
        return abs(10 * math.log10(float(ratio)))
