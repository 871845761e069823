"""Any latent codec at another frame rate: its latents stacked in time, or resampled.

The networks stay as they are, so that tokens/s can be swept without training: fewer and wider
latents, or fewer of the same width.
"""

import math

import torch
from torch import Tensor

from neuralcodec.core.checks import check_latents
from neuralcodec.core.codec import Chunkable, LatentCodec

_LOBES = 8  # zero crossings of the filter on either side


def interpolate(z: Tensor, ratio: float, length: int) -> Tensor:
    """Read a band-limited signal at other times: sample j of the result at j / ratio.

    A windowed sinc, as in resampling audio, but a frame rate need not be a whole number, and the
    first and last latent are held beyond the ends: a log-mel frame of zeros would be loud.

    Args:
        z: `[..., T]`, float, T at least 1.
        ratio: new rate over old.
        length: samples wanted.

    Returns:
        `[..., length]` float32.
    """
    cutoff = min(1.0, ratio)
    width = math.ceil(_LOBES / cutoff)
    times = torch.arange(length, dtype=torch.float64) / ratio
    first = times.floor().long() - width + 1
    out = z.new_zeros((*z.shape[:-1], length), dtype=torch.float32)
    total = torch.zeros(length, device=z.device)
    for tap in range(2 * width):
        offset = times - (first + tap)
        window = torch.cos(offset / width * (math.pi / 2)).square()
        weight = (torch.sinc(offset * cutoff) * window).float().to(z.device)
        out += weight * z[..., (first + tap).clamp(0, z.shape[-1] - 1).to(z.device)]
        total += weight
    return out / total


class Stacked:
    """A `LatentCodec` of whose latents several that follow each other are one.

    Nothing is lost: `stack` latents of width D become one of width stack * D. The last one is
    filled up with the last latent.

    Args:
        codec: whose latents they are.
        stack: how many, at least 1.

    Raises:
        ValueError: if `stack` is below 1.
    """

    def __init__(self, codec: LatentCodec, stack: int) -> None:
        if stack < 1:
            raise ValueError(f"stack must be at least 1, got {stack}")
        self.codec, self.stack = codec, stack
        self.name, self.sample_rate, self.channels = codec.name, codec.sample_rate, codec.channels
        self.dim, self.frame_rate = codec.dim * stack, codec.frame_rate / stack
        self.is_causal = codec.is_causal
        if isinstance(codec, Chunkable):
            self.hop_length = codec.hop_length * stack
            self.encode_context = -(-codec.encode_context // stack)
            self.decode_context = -(-codec.decode_context // stack)

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, C, T]` into latents `[B, stack * D, ceil(frames / stack)]`."""
        z = self.codec.encode_latents(wav)
        frames = -(-z.shape[-1] // self.stack)
        missing = frames * self.stack - z.shape[-1]
        z = torch.cat([z, z[..., -1:].expand(-1, -1, missing)], dim=-1)
        return z.reshape(*z.shape[:2], frames, self.stack).permute(0, 3, 1, 2).flatten(1, 2)

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn `z [B, stack * D, frames]` into wav `[B, C, length]`; default all it covers."""
        check_latents(z, self.dim)
        z = z.reshape(len(z), self.stack, -1, z.shape[-1]).permute(0, 2, 3, 1).flatten(2, 3)
        return self.codec.decode_latents(z, length)


class Resampled:
    """A `LatentCodec` whose latents are resampled in time, each dimension as a signal.

    Band-limited, so what changes faster than half the new rate is lost: how much that matters is
    what a sweep finds out.

    Args:
        codec: whose latents they are.
        latent_rate: latents a second wanted, Hz; above 0, finite.

    Raises:
        ValueError: if `latent_rate` is not such.
    """

    def __init__(self, codec: LatentCodec, latent_rate: float) -> None:
        if not 0 < latent_rate < math.inf:
            raise ValueError(f"latent_rate must be above 0 Hz and finite, got {latent_rate}")
        self.codec = codec
        self.name, self.sample_rate, self.channels = codec.name, codec.sample_rate, codec.channels
        self.dim, self.frame_rate = codec.dim, float(latent_rate)
        self.is_causal = False  # the filter is symmetric

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, C, T]` into latents `[B, D, frames]` at the new rate."""
        z = self.codec.encode_latents(wav)
        ratio = self.frame_rate / self.codec.frame_rate
        return interpolate(z, ratio, max(1, math.ceil(z.shape[-1] * ratio - 1e-6)))

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn `z [B, D, frames]` at the new rate into wav `[B, C, length]`."""
        check_latents(z, self.dim)
        ratio = self.codec.frame_rate / self.frame_rate
        z = interpolate(z, ratio, math.ceil(z.shape[-1] * ratio - 1e-6))
        return self.codec.decode_latents(z, length)


def retime(codec: LatentCodec, *, stack: int = 1, latent_rate: float | None = None) -> LatentCodec:
    """Give a codec with its latents resampled to `latent_rate`, then stacked.

    Args:
        codec: any latent codec.
        stack: latents that become one; 1 for none.
        latent_rate: Hz; None for the codec's own.

    Raises:
        ValueError: if a value is out of range.

    >>> from neuralcodec.core.codec import load
    >>> slow = retime(load("mel", frame_rate=50), stack=2)
    >>> slow.frame_rate, slow.dim
    (25.0, 160)
    """
    if latent_rate is not None:
        codec = Resampled(codec, latent_rate)
    return Stacked(codec, stack) if stack != 1 else codec
