"""What the `forward` of a quantizer gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class QuantizedResult:
    """Quantized latents, their codes, and what training wants to know.

    Attributes:
        quantized: `[B, D, T]`, of the type of the input; each item the sum of the levels it uses.
        codes: `[B, K, T]` int64, of all levels asked for, also those that an item doesn't use.
        commitment_loss: scalar float32, moves the latents: the mean squared distance of what a
            level looked up to the entry it found, over the levels that items use.
        codebook_loss: scalar float32, the same number but it moves the entries; 0 if they are
            moving averages.
        bitrate_kbps: `[B]` float32, of the levels each item uses; None if the quantizer has no
            frame rate.
        num_codebooks: `[B]` int64, levels each item uses.
    """

    quantized: Tensor
    codes: Tensor
    commitment_loss: Tensor
    codebook_loss: Tensor
    bitrate_kbps: Tensor | None
    num_codebooks: Tensor


def bitrate_kbps(levels: Tensor, sizes: Sequence[int], frame_rate: float | None) -> Tensor | None:
    """Bitrate of the first levels of a code, at log2 of its size for each.

    Args:
        levels: `[B]` int64 in 1..K.
        sizes: entries of each of K levels.
        frame_rate: frames a second; None if unknown.

    Returns:
        `[B]` float32, or None without a frame rate.

    >>> bitrate_kbps(torch.tensor([1, 2]), [1024, 1024], 75.0)
    tensor([0.7500, 1.5000])
    """
    if frame_rate is None:
        return None
    bits = torch.tensor(sizes, device=levels.device).log2().cumsum(dim=0)
    return bits[levels - 1] * (frame_rate / 1000)
