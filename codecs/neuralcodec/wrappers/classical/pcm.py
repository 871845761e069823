"""PCM with few bits as the simplest baseline: every sample is rounded on its own."""

import torch
from torch import Tensor

from neuralcodec.core.codec import Codec
from neuralcodec.core.inputs import check_frames
from neuralcodec.core.tokens import Tokens

_ROUNDING = 1e-6
"""Largest excess of a peak over ±1 that counts as float rounding."""


def check_full_scale(wav: Tensor) -> None:
    """Raise ValueError if audio exceeds ±1, where a codec of integers would clip it."""
    if wav.is_meta:
        return
    peak = float(wav.abs().max())
    if peak > 1 + _ROUNDING:
        raise ValueError(f"wav must lie in [-1, 1], got a peak of {peak:.6g}: scale it down")


class Pcm(Codec):
    """Uniform quantizer of 1..16 bits per sample.

    With 2 bits or more the levels are those of two's complement, k * step with
    step = 2 ** (1 - bits) and k = -2 ** (bits - 1) .. 2 ** (bits - 1) - 1 (mid-tread): silence is
    preserved, and 16 bits preserve 16-bit audio exactly. There is no level at +1, so the error is
    at most half a step except within half a step of +1, where it is at most a whole one. Ties go to
    the even k. With 1 bit the levels are -0.5 and +0.5 (mid-rise): the sign, 0 counting as
    positive, with an error of at most half a step. A code is k + 2 ** (bits - 1).

    Args:
        bits: bits per sample, 1..16.
        sample_rate: Hz, above 0.

    Raises:
        ValueError: if `bits` is outside 1..16 or `sample_rate` is not positive.

    >>> import torch
    >>> pcm = Pcm(bits=2)
    >>> tokens = pcm.encode(torch.tensor([[[-1.0, -0.3, 0.0, 0.6]]]))
    >>> tokens.codes.tolist(), pcm.decode(tokens).tolist(), tokens.bitrate_kbps
    ([[[0, 1, 2, 3]]], [[[-1.0, -0.5, 0.0, 0.5]]], 32.0)
    """

    name = "pcm"
    device_types = ("cpu",)
    is_causal = True
    hop_length = 1

    def __init__(self, bits: int = 8, sample_rate: int = 16000) -> None:
        super().__init__()
        if bits not in range(1, 17):
            raise ValueError(f"bits must be 1..16, got {bits}")
        if sample_rate <= 0:
            raise ValueError(f"sample_rate must be positive, got {sample_rate}")
        self.sample_rate = sample_rate
        self.frame_rates = (float(sample_rate),)
        self.codebook_sizes = (2**bits,)
        self.step = 2.0 ** (1 - bits)
        self._half = 2 ** (bits - 1)
        self._offset = 0.5 if bits == 1 else 0.0  # of the levels in steps: mid-rise at 1 bit

    def _encode(self, wav: Tensor, depth: int) -> Tokens:
        check_full_scale(wav)
        steps = wav / self.step
        # At 1 bit `floor` makes 0 positive; `round` would send ties to even values.
        level = steps.floor() if self._offset else steps.round()
        codes = level.clamp(-self._half, self._half - 1).long() + self._half
        return self.tokens(codes, wav.shape[-1])

    def _decode(self, tokens: Tokens) -> Tensor:
        (codes,) = tokens.streams
        check_frames(codes.shape[1], tokens.num_samples, tokens.num_samples)
        level: Tensor = codes[:, None].to(torch.float32) - self._half + self._offset
        return level * self.step
