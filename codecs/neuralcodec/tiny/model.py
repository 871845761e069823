"""The network of the tiny codec: an encoder from spectra to latents, and a decoder back.

Analysis and synthesis use complex spectra at 100 Hz with power-law compressed magnitudes. Frames
are folded twice: before the main part of the network, the trunk, to reduce its cost, and after the
trunk, to reduce the number of latents. Blocks and inverse STFT follow Vocos (Siuzdak 2023,
arXiv:2306.00814), but with real and imaginary parts instead of magnitude and phase.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralcodec.quantize import Learning, ResidualVectorQuantizer
from neuralcodec.tiny.layers import Block, fold_time, unfold_time
from neuralcodec.tiny.spectra import BINS, HOP, analyse, compress, expand, synthesise

SAMPLE_RATE = 16000
"""Sample rate in Hz of all tiny codecs."""

_FINE_RATE = SAMPLE_RATE // HOP
_LOUD = 1e-5  # power added before the logarithm, about that of one 16-bit quantization step


@dataclass(frozen=True)
class TinyConfig:
    """The sizes of a tiny codec.

    Attributes:
        frame_rate: latents per second, Hz; a divisor of 100.
        trunk_rate: frame rate of the trunk, Hz; a multiple of `frame_rate` that divides 100.
            Default `frame_rate`, which is the cheapest. With 100 Hz, models of several frame rates
            can be initialised from one trained network.
        num_codebooks: K.
        codebook_size: V.
        dim: D, number of channels of the latents.
        width: number of channels of the trunk.
        encoder_depth: number of trunk blocks before the quantizer.
        decoder_depth: number of trunk blocks after the quantizer.
        fine_width: number of channels at 100 Hz.
        fine_encoder_depth: number of blocks at 100 Hz before the quantizer.
        fine_decoder_depth: number of blocks at 100 Hz after the quantizer.
        expansion: ratio of the hidden channels of a block to its channels.
        kernel_size: kernel of a block's convolution in frames, odd.
        causal: whether the latents are independent of audio after their own frame.

    Raises:
        ValueError: if a rate does not divide 100 or `trunk_rate`, a size is below 1, or the kernel
            size is even.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    frame_rate: float = 50.0
    num_codebooks: int = 8
    codebook_size: int = 1024
    dim: int = 32
    width: int = 256
    encoder_depth: int = 3
    decoder_depth: int = 4
    fine_width: int = 160
    fine_encoder_depth: int = 1
    fine_decoder_depth: int = 2
    expansion: int = 3
    kernel_size: int = 7
    causal: bool = False
    trunk_rate: float | None = None

    def __post_init__(self) -> None:
        if not self.frame_rate > 0 or _FINE_RATE % self.frame_rate:
            raise ValueError(
                f"frame_rate must divide {_FINE_RATE} Hz, as 12.5, 25, 50 and 100 do, "
                f"got {self.frame_rate:g}"
            )
        trunk = self._trunk_rate
        if not trunk > 0 or _FINE_RATE % trunk or trunk % self.frame_rate:
            raise ValueError(
                f"trunk_rate must divide {_FINE_RATE} Hz and be a multiple of the frame rate, "
                f"{self.frame_rate:g} Hz, got {trunk:g}"
            )
        for name, value in vars(self).items():
            if name not in {"frame_rate", "causal", "trunk_rate"} and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")

    @property
    def fold(self) -> int:
        """Number of frames at 100 Hz per latent."""
        return round(_FINE_RATE / self.frame_rate)

    @property
    def stack(self) -> int:
        """Number of trunk frames per latent."""
        return round(self._trunk_rate / self.frame_rate)

    @property
    def trunk_fold(self) -> int:
        """Number of frames at 100 Hz per trunk frame."""
        return round(_FINE_RATE / self._trunk_rate)

    @property
    def _trunk_rate(self) -> float:
        return self.frame_rate if self.trunk_rate is None else self.trunk_rate

    @property
    def hop_length(self) -> int:
        """Number of samples per latent."""
        return HOP * self.fold

    @property
    def lead(self) -> int:
        """Samples by which a spectrum starts before its hop: half the overlap, or all if causal."""
        return HOP if self.causal else HOP // 2

    @property
    def encode_context(self) -> int:
        """Number of latents on either side whose audio a latent depends on."""
        return self._context(self.encoder_depth, self.fine_encoder_depth)

    @property
    def decode_context(self) -> int:
        """Number of latents on either side that the audio of a latent depends on."""
        return self._context(self.decoder_depth, self.fine_decoder_depth)

    def _context(self, depth: int, fine_depth: int) -> int:
        reach = self.kernel_size // 2 if not self.causal else self.kernel_size - 1
        trunk = reach * depth + math.ceil((1 + reach * fine_depth) / self.trunk_fold)
        return math.ceil(trunk / self.stack)

    @property
    def delay(self) -> Fraction:
        """Algorithmic delay in seconds: the longest time between input and output of a sample.

        A causal codec waits until a latent is complete, and for the next latent, whose first
        spectrum overlaps with its last one. A non-causal codec waits for its receptive field.
        """
        ahead = 1 if self.causal else self.encode_context + self.decode_context
        return Fraction(self.hop_length * (1 + ahead), SAMPLE_RATE)


_QUIET = 0.3  # factor on the last layer's initial weights: the initial output is not above speech


def _blocks(config: TinyConfig, channels: int, count: int, *, others: int) -> nn.Sequential:
    """Return `count` blocks of a residual chain that contains `others` further blocks."""
    options = (channels, config.expansion, config.kernel_size)
    scale = 1 / (count + others)
    return nn.Sequential(
        *(Block(*options, causal=config.causal, scale=scale) for _ in range(count))
    )


class Encoder(nn.Module):
    """Map audio to latents."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        depth, fine_depth = config.encoder_depth, config.fine_encoder_depth
        fine, width = config.fine_width, config.width
        self.begin = nn.Linear(3 * BINS, fine)
        self.fine = _blocks(config, fine, fine_depth, others=depth)
        self.join = nn.Linear(fine * config.trunk_fold, width)
        self.coarse = _blocks(config, width, depth, others=fine_depth)
        self.norm = nn.LayerNorm(width)
        self.end = nn.Linear(width * config.stack, config.dim)
        self.direct = nn.Linear(2 * BINS * config.fold, config.dim)

    def forward(self, wav: Tensor) -> Tensor:
        """Encode `wav [B, T]`, T a multiple of the hop length, to `z [B, D, T / hop_length]`."""
        config = self.config
        spectra = analyse(wav, lead=config.lead)
        power = spectra.real.square() + spectra.imag.square()
        small = compress(spectra)
        parts = torch.cat([small.real, small.imag], dim=-1)
        x = self.begin(torch.cat([parts, (power + _LOUD).log() / 4 + 1], dim=-1))
        x = self.norm(self.coarse(self.join(fold_time(self.fine(x), config.trunk_fold))))
        direct = self.direct(fold_time(parts, config.fold))
        z: Tensor = self.end(fold_time(x, config.stack)) + direct
        return z.mT


class Decoder(nn.Module):
    """Map latents to audio."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        depth, fine_depth = config.decoder_depth, config.fine_decoder_depth
        fine, width = config.fine_width, config.width
        self.begin = nn.Linear(config.dim, width * config.stack)
        self.coarse = _blocks(config, width, depth, others=fine_depth)
        self.split = nn.Linear(width, fine * config.trunk_fold)
        self.fine = _blocks(config, fine, fine_depth, others=depth)
        self.norm = nn.LayerNorm(fine)
        self.end = nn.Linear(fine, 2 * BINS)
        with torch.no_grad():
            self.end.weight.mul_(_QUIET)

    def forward(self, z: Tensor) -> Tensor:
        """Decode `z [B, D, N]` to `wav [B, N * hop_length]`."""
        config = self.config
        if config.causal:  # the last spectrum needs a following one to overlap with
            z = torch.cat([z, z[..., -1:]], dim=-1)
        x = self.coarse(unfold_time(self.begin(z.mT), config.stack))
        x = unfold_time(self.split(x), config.trunk_fold)
        real, imaginary = self.end(self.norm(self.fine(x))).float().chunk(2, dim=-1)
        wav = synthesise(expand(real, imaginary), lead=config.lead)
        return wav[:, : -config.hop_length] if config.causal else wav


class TinyModel(nn.Module):
    """Encoder, quantizer and decoder.

    Args:
        config: sizes of the network.
        learning: how the quantizer learns; default `Learning()`.
    """

    def __init__(self, config: TinyConfig, learning: Learning | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.rvq = ResidualVectorQuantizer(
            config.dim,
            config.num_codebooks,
            config.codebook_size,
            frame_rate=config.frame_rate,
            learning=learning or Learning(),
        )
