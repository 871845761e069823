"""The result of a quantizer's `forward`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class QuantizedResult:
    """Quantized latents, their codes, and the losses for training.

    Attributes:
        quantized: `[B, D, T]`, of the input's type; for each item the sum of the levels it uses.
        codes: `[B, K, T]` int64, of all levels asked for, including those that an item does not
            use.
        commitment_loss: scalar float32, trains the encoder: the mean squared distance of the inputs
            of a level to the selected entries, over the levels that items use.
        codebook_loss: scalar float32, the same value with the gradient for the entries; 0 if the
            entries are moving averages.
        bitrate_kbps: `[B]` float32, kbit/s of the levels that each item uses; None if the quantizer
            has no frame rate.
        num_codebooks: `[B]` int64, number of levels that each item uses.
    """

    quantized: Tensor
    codes: Tensor
    commitment_loss: Tensor
    codebook_loss: Tensor
    bitrate_kbps: Tensor | None
    num_codebooks: Tensor


def bitrate_kbps(levels: Tensor, sizes: Sequence[int], frame_rate: float | None) -> Tensor | None:
    """Return the bitrate of the first levels of a code, with log2(size) bits per code.

    Args:
        levels: `[B]` int64 in 0..K.
        sizes: entries of each of the K levels.
        frame_rate: frames per second; None if unknown.

    Returns:
        `[B]` float32 in kbit/s, or None without a frame rate.

    >>> bitrate_kbps(torch.tensor([0, 1, 2]), [1024, 1024], 75.0)
    tensor([0.0000, 0.7500, 1.5000])
    """
    if frame_rate is None:
        return None
    bits = torch.tensor([1, *sizes], device=levels.device).log2().cumsum(dim=0)
    return bits[levels] * (frame_rate / 1000)
