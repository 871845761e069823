"""Models of the package `transformers` as codecs: by hub name, and X-Codec by its own.

One adapter for all of them: `TransformersCodec`. Codes are those of the package's `encode`, with
any number of codebooks and not only those that its bandwidths stand for; decoded audio has the
length that was encoded. Mimi, which streams besides, is in `mimi`.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralcodec import weights as checkpoints
from neuralcodec.core.audio import check_wav, fit_length
from neuralcodec.core.checks import check_cover, check_depth, check_latents, codes_of
from neuralcodec.core.tokens import Tokens
from neuralcodec.quantize import ResidualVectorQuantizer, SplitResidualVectorQuantizer
from neuralcodec.wrappers.transformers.models import load
from neuralcodec.wrappers.transformers.random import random_model
from neuralcodec.wrappers.transformers.stages import stages


def _outside(compute: Callable[[], Tensor]) -> Tensor:
    """Compute without gradients; give a plain tensor, with which one can work on."""
    with torch.inference_mode():
        result = compute()
    return result.clone()


def checkpoint(name: str, weights: str | Path | None) -> Any:
    """Load the model `name`, a `model_type` of `transformers`, and checkpoint of this package.

    Args:
        name: "mimi" or "xcodec".
        weights: a folder with config.json and model.safetensors; None: where
            `neuralcodec.weights` finds them; "random": the published architecture with random
            weights.

    Raises:
        WeightsMissing: if there are no weights.
        ValueError: if the folder holds another model, or not all of its weights.
    """
    if weights == "random":
        return random_model(name)
    checkpoints.locate(name, weights)
    return load(checkpoints.locate(f"{name}_config", weights).parent, (name,))


class TransformersCodec:
    """A model of `transformers` as a `Codec` and a `LatentCodec`.

    DAC is `Chunkable` too. EnCodec and X-Codec look at the whole clip, through an LSTM and HuBERT.

    Args:
        name: as in the registry.
        network: an `EncodecModel`, `DacModel`, `MimiModel` or `XcodecModel`.
        device: where to compute; codes and audio are given there.
        beam_width: codes kept at each level of the search. 1 is the package's own greedy search,
            whose codes are nested; with more, encode to the number of codebooks that will be
            decoded (see `ResidualVectorQuantizer.encode`).

    Attributes:
        network: the model, in eval mode.
        hop_length: samples of a frame.
        delay_samples: by which the model's own audio is late, negative where it is early: -8 in
            DAC at 16 and 24 kHz. `decode` and `decode_latents` take it off.

    Raises:
        ValueError: if `beam_width` is below 1, or the model is of a kind that can't be run here.
    """

    encode_context: int  # frames; these two only where they are limited
    decode_context: int

    def __init__(self, name: str, network: Any, device: str, beam_width: int) -> None:
        if beam_width < 1:
            raise ValueError(f"beam_width must be at least 1, got {beam_width}")
        self.name, self.beam_width = name, beam_width
        self.network = network.to(device)
        self._stages = at = stages(network)
        self._device = torch.device(device)
        self.sample_rate, self.channels = at.sample_rate, at.channels
        self.hop_length, self.dim = at.hop_length, at.dim
        self.frame_rate = at.sample_rate / at.hop_length
        self.num_codebooks = at.num_codebooks
        self.frame_rates = (self.frame_rate,) * at.num_codebooks
        self.codebook_sizes = (at.codebook_size,) * at.num_codebooks
        self.is_causal = at.is_causal
        self.delay_samples = -at.lead
        if at.contexts is not None:
            self.encode_context, self.decode_context = at.contexts

    @cached_property
    def rvq(self) -> ResidualVectorQuantizer | SplitResidualVectorQuantizer:
        """The codebooks as a quantizer of ours."""
        return ResidualVectorQuantizer.from_huggingface(self.network)

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        """Encode `wav [B, C, T]` with the first `num_codebooks` of K codebooks; default all.

        Returns:
            Tokens: codes `[B, num_codebooks, ceil(T / hop_length)]`.

        Raises:
            ValueError: if `wav` has another shape or is not finite, or `num_codebooks` is not 1..K.
        """
        depth, wav = self._depth(num_codebooks), self._wav(wav)
        codes = _outside(lambda: self._quantize(self._stages.analyse(wav), depth))
        return self._tokens(codes, wav.shape[-1])

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode tokens of any number of codebooks to wav `[B, C, num_samples]`.

        Raises:
            ValueError: if the tokens are of another codec, or their frames don't cover the audio.
        """
        codes, length = codes_of(self, tokens).to(self._device), tokens.num_samples
        check_cover(codes.shape[-1], self.hop_length, length)
        return _outside(lambda: self._synthesise(self._stages.dequantize(codes), length))

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, C, T]` into what the quantizer would get, `z [B, D, frames]`."""
        wav = self._wav(wav)
        return _outside(lambda: self._stages.analyse(wav))

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn latents `z [B, D, frames]` into wav `[B, C, length]`; by default all z covers."""
        check_latents(z, self.dim)
        samples = z.shape[-1] * self.hop_length if length is None else length
        z = z.to(self._device, torch.float32)
        return _outside(lambda: self._synthesise(z, samples))

    def _quantize(self, z: Tensor, depth: int) -> Tensor:
        if self.beam_width > 1:
            return self.rvq.encode(z, depth, beam_width=self.beam_width)
        return self._stages.quantize(z, depth)

    def _synthesise(self, z: Tensor, length: int) -> Tensor:
        return fit_length(self._stages.synthesise(z), length)

    def _depth(self, num_codebooks: int | None) -> int:
        return check_depth(num_codebooks, range(1, self.num_codebooks + 1))

    def _wav(self, wav: Tensor) -> Tensor:
        check_wav(wav, channels=self.channels)
        return wav.to(self._device, torch.float32)

    def _tokens(self, codes: Tensor, num_samples: int) -> Tokens:
        return Tokens.uniform(
            codes,
            frame_rate=self.frame_rate,
            codebook_size=self.codebook_sizes[0],
            sample_rate=self.sample_rate,
            num_samples=num_samples,
        )


class XCodec(TransformersCodec):
    """X-Codec (Ye et al. 2024, arXiv:2408.17175): 16 kHz, 50 frames/s, 1..8 codebooks of 1024.

    Half of it is DAC, half HuBERT, so that tokens carry more of what is said. It listens to the
    whole clip before it gives the first token.

    Args:
        weights: a folder with config.json and model.safetensors; None: the published model,
            xcodec-hubert-librispeech; "random": that architecture with random weights, which
            sounds like nothing.
        device: where to compute.
        beam_width: see `TransformersCodec`.

    Raises:
        WeightsMissing: if there are no weights.
        ValueError: if the folder holds another model, or not all of its weights.
    """

    def __init__(
        self, weights: str | Path | None = None, device: str = "cpu", beam_width: int = 1
    ) -> None:
        super().__init__("xcodec", checkpoint("xcodec", weights), device, beam_width)


class HuggingFace(TransformersCodec):
    """A codec of `transformers` by the name of a model on the Hugging Face hub, or by a folder.

    EnCodec, DAC, Mimi and X-Codec models whose weights are safetensors, such as
    "facebook/encodec_24khz", "descript/dac_44khz" and "kyutai/mimi". Rates, sizes and codebooks are
    those of the model.

    Args:
        model: hub name, or a folder with config.json and model.safetensors.
        revision: commit, tag or branch on the hub; default its main branch.
        device: where to compute.
        beam_width: see `TransformersCodec`.

    Raises:
        WeightsMissing: if the model is not on this machine and can't be downloaded.
        ValueError: if it is of another kind, works in segments, as EnCodec at 48 kHz does, or
            lacks weights.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        device: str = "cpu",
        beam_width: int = 1,
    ) -> None:
        folder = checkpoints.hub_folder(model, revision)
        super().__init__("huggingface", load(folder), device, beam_width)
