"""A codec on the bench: one face for codecs and latent codecs, and audio to try them on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
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
"""What a codec makes of audio: tokens, or latents `[B, D, frames]` where it has no codes."""

SECONDS = 1.0
"""Of audio that most lines use; codecs of few frames a second get more."""

LONGEST = 10.0
"""Seconds of audio that a line may need at most; big models take several times as long for it."""

_FRAMES = 16  # the fewest that tell something
_PEAK = 0.5  # of the audio, so that the decoder's errors don't carry it beyond full scale
_NOMINAL = 0.02  # seconds that count as a frame where a codec has none


class Subject:
    """A codec under test. Results are moved to the CPU.

    Args:
        codec: its codes are checked, and its latents where it gives no codes.
        trained: whether its weights are more than random.

    Raises:
        ValueError: if it is no `Codec`.
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
        """The codec as one that gives latents; only where `has_latents`."""
        assert self.latent is not None
        return self.latent

    @cached_property
    def frame_rates(self) -> tuple[float, ...]:
        """Hz, one a codebook or one for the latents; none where the rate depends on the clip."""
        return self.codec.frame_rates if self.has_codes else (self.latents.frame_rate,)

    @cached_property
    def hop(self) -> int:
        """Samples of a frame of the slowest codebook, rounded up; 20 ms where there are none."""
        if self.codec.hop_length is not None:
            return self.codec.hop_length
        if not self.frame_rates:
            return round(_NOMINAL * self.sample_rate)
        return math.ceil(self.sample_rate / min(self.frame_rates) - 1e-6)

    @cached_property
    def facts(self) -> Facts | None:
        """What the registry says of a codec of this name, None if it says nothing."""
        return REGISTRY[self.codec.name].facts if self.codec.name in REGISTRY else None

    @cached_property
    def depths(self) -> Sequence[int]:
        """Numbers of codebooks that it can run at, rising."""
        return self.codec.depths

    @cached_property
    def length(self) -> int:
        """Samples of `wav`: some frames, the last one not full."""
        frames = max(_FRAMES, -(-round(SECONDS * self.sample_rate) // self.hop))
        return frames * self.hop - self.hop // 3

    @cached_property
    def wav(self) -> Tensor:
        """Speech `[1, C, length]`."""
        return self.speech(self.length)

    @cached_property
    def coded(self) -> Coded:
        """`wav`, encoded."""
        return self.encode(self.wav)

    @cached_property
    def decoded(self) -> Tensor:
        """`coded`, decoded."""
        return self.decode(self.coded, self.length)

    def speech(self, length: int, part: int = 0) -> Tensor:
        """Give `[1, C, length]` of recorded speech, another one for each `part`.

        Raises:
            NotApplicable: if that is more than a line may need.
        """
        if length > LONGEST * self.sample_rate:
            seconds = length / self.sample_rate
            raise NotApplicable(f"its frames or contexts are so long: {seconds:.0f} s are needed")
        spoken = [clip for clip in clips("starter:test") if clip.kind == "speech"]
        wav = spoken[part % len(spoken)].read(self.sample_rate)
        wav = wav[:, self.sample_rate // 2 :]  # some begin with silence
        wav = wav.repeat(1, -(-length // wav.shape[-1]))[:, :length]
        wav = wav * (_PEAK / wav.abs().max())
        other = wav.roll(self.sample_rate // 1000, dims=-1) / 2  # channels that are not the same
        return torch.cat([wav, *[other] * (self.channels - 1)])[None]

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Coded:
        """Encode to tokens, or to latents where there are no codes."""
        if self.has_codes:
            return on_cpu(self.codec.encode(wav, num_codebooks))
        with torch.no_grad():
            return on_cpu(self.latents.encode_latents(wav))

    def decode(self, coded: Coded, length: int) -> Tensor:
        """Decode tokens, or latents to `length` samples."""
        if isinstance(coded, Tokens):
            return self.codec.decode(coded).cpu()
        with torch.no_grad():
            return self.latents.decode_latents(coded, length).cpu()

    def pass_through(self, wav: Tensor) -> Tensor:
        """Encode and decode."""
        return self.decode(self.encode(wav), wav.shape[-1])

    def per_hop(self, frame_rate: float) -> int:
        """Count the codes in a frame of the slowest codebook.

        Raises:
            NotApplicable: if it isn't a whole number.
        """
        count = frame_rate * self.hop / self.sample_rate
        if abs(count - round(count)) > 1e-6:
            raise NotApplicable(f"a frame at {frame_rate:g} Hz is no whole number of samples")
        return round(count)

    def needs_frames(self) -> None:
        """Raise `NotApplicable` if the codes are no frames."""
        if not self.frame_rates:
            raise NotApplicable("the codes are bytes of a packet, not frames of one rate")


def on_cpu(coded: Coded) -> Coded:
    """Move codes or latents to the CPU."""
    if isinstance(coded, Tokens):
        return with_codes(coded, Tensor.cpu)
    return coded.cpu()


def with_codes(tokens: Tokens, change: Callable[[Tensor], Tensor]) -> Tokens:
    """Change all codes, `[B, K, T]` or one `[B, T_k]` after the other, and the side likewise."""
    codes = tokens.codes
    return replace(
        tokens,
        codes=change(codes) if isinstance(codes, Tensor) else tuple(map(change, codes)),
        side={name: change(value) for name, value in tokens.side.items()},
    )


def arrays(coded: Coded) -> tuple[Tensor, ...]:
    """Give codes `[B, T_k]` one codebook after the other, or the latents as the only array."""
    return coded.streams if isinstance(coded, Tokens) else (coded,)


def clip_of(coded: Coded, index: int) -> Coded:
    """Take one clip out of a batch."""
    if isinstance(coded, Tokens):
        return with_codes(coded, lambda array: array[index : index + 1])
    return coded[index : index + 1]
