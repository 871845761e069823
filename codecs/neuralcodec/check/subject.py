"""A codec under test: one interface for codecs and latent codecs, and the audio of the checks."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from neuralcodec.check.line import NotApplicable
from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.registry import REGISTRY, Facts
from neuralcodec.core.tokens import Tokens
from neuralcodec.data import clips

Coded: TypeAlias = Tokens | Tensor
"""Encoded audio: tokens, or latents `[B, D, frames]` where the codec has no codes."""

SECONDS = 1.0
"""Seconds of audio that most checks use; codecs with few frames per second get more."""

LONGEST = 10.0
"""Most seconds of audio that a check may need; large models compute several times as long."""

_FRAMES = 16  # least number of frames of the test audio
_PEAK = 0.5  # peak of the audio, low enough that the decoder's errors do not exceed full scale
_NOMINAL = 0.02  # seconds that count as a frame where a codec has none


class Subject:
    """A codec under test. Results are moved to the CPU.

    Args:
        codec: the codec; its codes are checked, or its latents where it has no codes.
        trained: whether its weights are trained rather than random.

    Raises:
        ValueError: if `codec` is not a `Codec`.
    """

    def __init__(self, codec: Any, *, trained: bool = True) -> None:
        if not isinstance(codec, Codec):
            raise ValueError(f"a codec to check must be a Codec, got {type(codec).__name__}")
        self.codec, self.trained = codec, trained
        self.has_codes = codec.num_codebooks > 0
        self.latent = codec if isinstance(codec, LatentCodec) else None
        self.has_latents = self.latent is not None
        self.is_limited = codec.is_chunkable
        self.sample_rate, self.channels = codec.sample_rate, codec.channels
        self.num_codebooks = codec.num_codebooks

    @property
    def latents(self) -> LatentCodec:
        """The codec as a `LatentCodec`; only where `has_latents`."""
        assert self.latent is not None
        return self.latent

    @cached_property
    def frame_rates(self) -> tuple[float, ...]:
        """Hz, one per codebook or one for the latents; empty where they depend on the clip."""
        return self.codec.frame_rates if self.has_codes else (self.latents.frame_rate,)

    @cached_property
    def hop(self) -> int:
        """Samples per frame of the slowest codebook, rounded up; 20 ms where it has no frames."""
        if self.codec.hop_length is not None:
            return self.codec.hop_length
        if not self.frame_rates:
            return round(_NOMINAL * self.sample_rate)
        return math.ceil(self.sample_rate / min(self.frame_rates) - 1e-6)

    @cached_property
    def facts(self) -> Facts | None:
        """The facts that the registry holds on a codec of this name, or None."""
        return REGISTRY[self.codec.name].facts if self.codec.name in REGISTRY else None

    @cached_property
    def depths(self) -> Sequence[int]:
        """Numbers of codebooks that it can encode to, rising."""
        return self.codec.depths

    @cached_property
    def length(self) -> int:
        """Samples of `wav`: at least 1 s and 16 frames, less a third of the last frame."""
        frames = max(_FRAMES, -(-round(SECONDS * self.sample_rate) // self.hop))
        return frames * self.hop - self.hop // 3

    @cached_property
    def wav(self) -> Tensor:
        """Speech `[1, C, length]`."""
        return self.speech(self.length)

    @cached_property
    def coded(self) -> Coded:
        """The result of encoding `wav`."""
        return self.encode(self.wav)

    @cached_property
    def decoded(self) -> Tensor:
        """The result of decoding `coded`, `[1, C, length]`."""
        return self.decode(self.coded, self.length)

    def speech(self, length: int, part: int = 0) -> Tensor:
        """Return recorded speech `[1, C, length]`, another clip for each `part`.

        Raises:
            NotApplicable: if `length` is more than `LONGEST` seconds.
        """
        if length > LONGEST * self.sample_rate:
            seconds = length / self.sample_rate
            raise NotApplicable(f"its frames or contexts are so long: {seconds:.0f} s are needed")
        spoken = [clip for clip in clips("starter:test") if clip.kind == "speech"]
        wav = spoken[part % len(spoken)].read(self.sample_rate)
        wav = wav[:, self.sample_rate // 2 :]  # some clips begin with silence
        wav = wav.repeat(1, -(-length // wav.shape[-1]))[:, :length]
        wav = wav * (_PEAK / wav.abs().max())
        other = wav.roll(self.sample_rate // 1000, dims=-1) / 2  # so that the channels differ
        return torch.cat([wav, *[other] * (self.channels - 1)])[None]

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Coded:
        """Encode to tokens, or to latents where there are no codes."""
        if self.has_codes:
            return self.codec.encode(wav, num_codebooks).to("cpu")
        with torch.no_grad():
            return self.latents.encode_latents(wav).cpu()

    def decode(self, coded: Coded, length: int) -> Tensor:
        """Decode tokens, or latents to `length` samples."""
        if isinstance(coded, Tokens):
            return self.codec.decode(coded).cpu()
        with torch.no_grad():
            return self.latents.decode_latents(coded, length).cpu()

    def pass_through(self, wav: Tensor) -> Tensor:
        """Encode and decode audio `[B, C, T]`; the result has the same length."""
        return self.decode(self.encode(wav), wav.shape[-1])

    def per_hop(self, frame_rate: float) -> int:
        """Return the number of codes at `frame_rate` Hz per frame of the slowest codebook.

        Raises:
            NotApplicable: if it is not a whole number.
        """
        count = frame_rate * self.hop / self.sample_rate
        if abs(count - round(count)) > 1e-6:
            raise NotApplicable(f"a frame at {frame_rate:g} Hz is no whole number of samples")
        return round(count)

    def needs_frames(self) -> None:
        """Raise `NotApplicable` if the codec has no frame rates of its own."""
        if not self.frame_rates:
            raise NotApplicable("the codes are bytes of a packet, not frames of one rate")


def arrays(coded: Coded) -> tuple[Tensor, ...]:
    """Return codes `[B, T_k]`, one tensor per codebook, or a tuple of the latents alone."""
    return coded.streams if isinstance(coded, Tokens) else (coded,)
