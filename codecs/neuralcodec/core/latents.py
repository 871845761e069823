"""The two halves of a neural codec, and the codec that has both with a quantizer between them."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from neuralcodec.core.audio import fit_length
from neuralcodec.core.codec import Codec
from neuralcodec.core.inputs import as_batch, check_cover, check_latents
from neuralcodec.core.module import AudioModule
from neuralcodec.core.streaming import Chain, Frames, Layer
from neuralcodec.core.tokens import Tokens


class Analysis(AudioModule):
    """Audio to latents: the first half of a codec, or the whole of a feature extractor.

    Attributes:
        dim: D, width of a latent.
        frame_rate: latents per second, Hz.
        is_causal: whether a latent depends on no audio later than its own frame.
        hop_length: samples per latent; None where that is no whole number.
        encode_context: latents before and after one on whose audio it depends; None if unlimited.
    """

    dim: int
    frame_rate: float
    is_causal: bool = False
    hop_length: int | None = None
    encode_context: int | None = None

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Return the latents `z [B, D, frames]` of audio.

        Differentiable with respect to audio and weights where gradients are enabled.

        Args:
            wav: `[B, C, T]`, `[C, T]` or `[T]`, float in [-1, 1], on any device.

        Returns:
            z: on the device of `wav`.

        Raises:
            ValueError: if the audio has another shape or type, is empty, not finite or far outside
                ±1.
        """
        batch = as_batch(wav, self.channels)
        with self._computing():
            z = self._analyse(self._inward(batch))
        return z.to(wav.device)

    @abstractmethod
    def _analyse(self, wav: Tensor) -> Tensor:
        """Return the latents of a checked batch `[B, C, T]`."""


class Synthesis(AudioModule):
    """Latents to audio: the second half of a codec, or the whole of a vocoder.

    Attributes:
        dim: D, width of a latent.
        frame_rate: latents per second, Hz.
        decode_context: latents before and after one on which its audio depends; None if unlimited.
    """

    dim: int
    frame_rate: float
    decode_context: int | None = None

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Return the audio `[B, C, length]` of latents.

        Differentiable with respect to latents and weights where gradients are enabled.

        Args:
            z: `[B, D, frames]`, float, on any device.
            length: samples; default all that the latents cover. Beyond those it is zeros.

        Returns:
            wav: on the device of `z`.

        Raises:
            ValueError: if `z` has another shape or type or is empty, or `length` is below 1.
        """
        check_latents(z, self.dim)
        if length is not None and length < 1:
            raise ValueError(f"length must be at least 1 sample, got {length}")
        with self._computing():
            wav = self._synthesise(self._inward(z))
        return fit_length(wav, wav.shape[-1] if length is None else length).to(z.device)

    @abstractmethod
    def _synthesise(self, z: Tensor) -> Tensor:
        """Return the audio of checked latents `[B, D, frames]`, in time with what was analysed."""


class LatentCodec(Codec, Analysis, Synthesis):
    """A codec whose latents can be reached on both sides of its quantizer.

    A subclass fills in `_analyse` and `_synthesise`, and `_quantize` and `_dequantize` unless its
    quantizer is `self.rvq`. Without codebooks it gives latents only.

    Attributes:
        rvq: its codebooks as our residual vector quantizer; absent where there are none.
    """

    rvq: Any

    def _quantize(self, z: Tensor, depth: int) -> Tensor:
        """Return the codes `[B, depth, frames]` of latents `[B, D, frames]`."""
        codes: Tensor = self.rvq.encode(z, depth, beam_width=self.beam_width)
        return codes

    def _dequantize(self, codes: Tensor) -> Tensor:
        """Return the latents `[B, D, frames]` that codes `[B, K, frames]` stand for."""
        z: Tensor = self.rvq.decode(codes)
        return z

    def _check_length(self, frames: int, num_samples: int) -> None:
        """Raise ValueError unless so many frames are right for so many samples."""
        if self.hop_length is not None:
            check_cover(frames, self.hop_length, num_samples)
        else:  # resampled latents, of any rate, may end a millionth of a frame early
            check_cover(frames, self.sample_rate / self.frame_rate * (1 + 2e-6), num_samples)

    def _encode(self, wav: Tensor, depth: int) -> Tokens:
        return self.tokens(self._quantize(self._analyse(wav), depth), wav.shape[-1])

    def _decode(self, tokens: Tokens) -> Tensor:
        codes = torch.stack(tokens.streams, dim=1)
        self._check_length(codes.shape[-1], tokens.num_samples)
        wav = self._synthesise(self._dequantize(codes))
        return fit_length(wav, max(wav.shape[-1], tokens.num_samples))

    def _encode_layer(self, depth: int) -> Layer:
        return Chain([self._analysis_layer(), Frames(lambda z: self._quantize(z, depth))])

    def _decode_layer(self) -> Layer:
        return Chain([Frames(self._dequantize), self._synthesis_layer()])

    def _analysis_layer(self) -> Layer:
        raise NotImplementedError(f"{type(self).__name__} is streaming and lacks _analysis_layer")

    def _synthesis_layer(self) -> Layer:
        raise NotImplementedError(f"{type(self).__name__} is streaming and lacks _synthesis_layer")
