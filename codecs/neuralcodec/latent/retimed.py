"""Latent codecs at another frame rate, by stacking their latents in time or resampling them.

The networks stay as they are, so that tokens/s can be swept without training: stacking gives fewer
and wider latents, resampling latents of the same width at any rate.
"""

import math

import torch
from torch import Tensor

from neuralcodec.core.latents import LatentCodec

_LOBES = 8  # zero crossings of the filter on either side


def interpolate(z: Tensor, ratio: float, length: int) -> Tensor:
    """Resample a signal by a windowed sinc filter: sample j of the result lies at time j / ratio.

    Unlike in resampling audio, rates need not be whole numbers, and beyond the ends the first and
    last sample are repeated, because zeros would be loud in log-mel frames.

    Args:
        z: signal `[..., T]`, float, T at least 1.
        ratio: new rate divided by the old one.
        length: number of samples to return.

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


class Stacked(LatentCodec):
    """A latent codec whose consecutive latents are stacked to one.

    Stacking is lossless: `stack` latents of width D become one of width stack * D. The last one is
    completed with copies of the last latent.

    Args:
        codec: the codec whose latents are stacked.
        stack: number of latents per new one, at least 1.

    Raises:
        ValueError: if `stack` is below 1.
    """

    has_codebooks = False

    def __init__(self, codec: LatentCodec, stack: int) -> None:
        super().__init__()
        if stack < 1:
            raise ValueError(f"stack must be at least 1, got {stack}")
        self.codec, self.stack = codec, stack
        self.device_types = codec.device_types
        self.name, self.sample_rate, self.channels = codec.name, codec.sample_rate, codec.channels
        self.dim, self.frame_rate = codec.dim * stack, codec.frame_rate / stack
        self.is_causal = codec.is_causal
        if codec.is_chunkable:
            assert codec.hop_length is not None
            assert codec.encode_context is not None
            assert codec.decode_context is not None
            self.hop_length = codec.hop_length * stack
            self.encode_context = -(-codec.encode_context // stack)
            self.decode_context = -(-codec.decode_context // stack)

    @property
    def digest(self) -> str:  # type: ignore[override]  # read, never assigned
        """The digest of the codec whose latents are stacked."""
        return self.codec.digest

    def _analyse(self, wav: Tensor) -> Tensor:
        z = self.codec._analyse(wav)
        frames = -(-z.shape[-1] // self.stack)
        missing = frames * self.stack - z.shape[-1]
        z = torch.cat([z, z[..., -1:].expand(-1, -1, missing)], dim=-1)
        return z.reshape(*z.shape[:2], frames, self.stack).permute(0, 3, 1, 2).flatten(1, 2)

    def _synthesise(self, z: Tensor) -> Tensor:
        z = z.reshape(len(z), self.stack, -1, z.shape[-1]).permute(0, 2, 3, 1).flatten(2, 3)
        return self.codec._synthesise(z)


class Resampled(LatentCodec):
    """A latent codec whose latents are resampled in time, each dimension as one signal.

    The filter is symmetric and band-limited: changes faster than half the lower of the two rates
    are lost.

    Args:
        codec: the codec whose latents are resampled.
        latent_rate: latents per second, Hz; above 0, finite.

    Raises:
        ValueError: if `latent_rate` is out of range.
    """

    has_codebooks = False

    def __init__(self, codec: LatentCodec, latent_rate: float) -> None:
        super().__init__()
        if not 0 < latent_rate < math.inf:
            raise ValueError(f"latent_rate must be above 0 Hz and finite, got {latent_rate}")
        self.codec, self.device_types = codec, codec.device_types
        self.name, self.sample_rate, self.channels = codec.name, codec.sample_rate, codec.channels
        self.dim, self.frame_rate = codec.dim, float(latent_rate)

    @property
    def digest(self) -> str:  # type: ignore[override]  # read, never assigned
        """The digest of the codec whose latents are resampled."""
        return self.codec.digest

    def _analyse(self, wav: Tensor) -> Tensor:
        z = self.codec._analyse(wav)
        ratio = self.frame_rate / self.codec.frame_rate
        return interpolate(z, ratio, max(1, math.ceil(z.shape[-1] * ratio - 1e-6)))

    def _synthesise(self, z: Tensor) -> Tensor:
        ratio = self.codec.frame_rate / self.frame_rate
        return self.codec._synthesise(interpolate(z, ratio, math.ceil(z.shape[-1] * ratio - 1e-6)))


def retime(codec: LatentCodec, *, stack: int = 1, latent_rate: float | None = None) -> LatentCodec:
    """Return a codec with its latents resampled to `latent_rate`, then stacked.

    Args:
        codec: any latent codec.
        stack: number of latents per new one; 1 for no stacking.
        latent_rate: latents per second, Hz; None for the codec's own rate.

    Raises:
        ValueError: if a value is out of range.

    >>> from neuralcodec.core.loading import load
    >>> slow = retime(load("mel", frame_rate=50), stack=2)
    >>> slow.frame_rate, slow.dim
    (25.0, 160)
    """
    if latent_rate is not None:
        codec = Resampled(codec, latent_rate)
    return Stacked(codec, stack) if stack != 1 else codec
