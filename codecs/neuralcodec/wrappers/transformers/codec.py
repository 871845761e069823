"""Models of the package `transformers` as codecs: any by its name on the hub, and X-Codec.

`TransformersCodec` is the adapter for all of them. Codes are those of the package's `encode`, but
with any number of codebooks, not only those of its bandwidths; decoded audio has the length of the
input. Mimi, which also streams, is in `mimi`.
"""

from pathlib import Path
from typing import Any, Self

from torch import Tensor

from neuralcodec import weights as checkpoints
from neuralcodec.core.inputs import check_beam
from neuralcodec.core.latents import LatentCodec
from neuralcodec.quantize import ResidualVectorQuantizer, SplitResidualVectorQuantizer
from neuralcodec.wrappers.transformers.models import (
    Loaded,
    finish,
    forget_hooks,
    load,
    register_again,
)
from neuralcodec.wrappers.transformers.random import random_model
from neuralcodec.wrappers.transformers.stages import stages


def checkpoint(name: str, weights: str | Path | None) -> Loaded:
    """Load the model `name` from a folder or from the checkpoint that is registered for it.

    Args:
        name: "mimi" or "xcodec": a `model_type` of `transformers` and a name of a checkpoint.
        weights: a folder with config.json and model.safetensors; None: where
            `neuralcodec.weights` finds them; "random": the published architecture with random
            weights.

    Raises:
        WeightsMissing: if the weights cannot be found or downloaded.
        ValueError: if the folder holds another model, or not all of its weights.
    """
    if weights == "random":
        return finish(random_model(name))
    checkpoints.locate(name, weights)
    return load(checkpoints.locate(f"{name}_config", weights).parent, (name,))


class TransformersCodec(LatentCodec):
    """A codec model of `transformers`.

    Only DAC has finite contexts: EnCodec and X-Codec depend on the whole clip, through an LSTM and
    HuBERT, and the attention windows of Mimi span too much audio for chunks.

    Args:
        name: name in the registry.
        loaded: an `EncodecModel`, `DacModel`, `MimiModel` or `XcodecModel`, and its digest.
        beam_width: hypotheses kept at each level of the search. 1 is the package's own greedy
            search, whose codes are nested; with more, encode to the number of codebooks that will
            be decoded (see `ResidualVectorQuantizer.encode`).

    Attributes:
        network: the model.

    Raises:
        ValueError: if `beam_width` is below 1, or the model is of a type that is not supported.
    """

    hop_length: int

    def __init__(self, name: str, loaded: Loaded, beam_width: int) -> None:
        super().__init__()
        self.name, self.beam_width = name, check_beam(beam_width)
        self.network: Any = loaded.network
        self.digest = loaded.digest
        self._stages = at = stages(loaded.network)
        self.sample_rate, self.channels = at.sample_rate, at.channels
        self.hop_length, self.dim = at.hop_length, at.dim
        self.frame_rate = at.sample_rate / at.hop_length
        self.frame_rates = (self.frame_rate,) * at.num_codebooks
        self.codebook_sizes = (at.codebook_size,) * at.num_codebooks
        self.is_causal = at.is_causal
        self.delay_samples = -at.lead
        if at.contexts is not None:
            self.encode_context, self.decode_context = at.contexts

    @property
    def rvq(self) -> ResidualVectorQuantizer | SplitResidualVectorQuantizer:
        """The codebooks as a quantizer of `neuralcodec.quantize`."""
        return self._converted(ResidualVectorQuantizer.from_huggingface, self.network)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        moved = super()._apply(fn, recurse)
        self._stages.after_moving()
        return moved

    def __getstate__(self) -> dict[str, Any]:
        forget_hooks(self.network)
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        register_again(self.network)

    def _analyse(self, wav: Tensor) -> Tensor:
        return self._stages.analyse(wav)

    def _quantize(self, z: Tensor, depth: int) -> Tensor:
        if self.beam_width > 1:
            return super()._quantize(z, depth)
        return self._stages.quantize(z, depth)

    def _dequantize(self, codes: Tensor) -> Tensor:
        return self._stages.dequantize(codes)

    def _synthesise(self, z: Tensor) -> Tensor:
        return self._stages.synthesise(z)


class XCodec(TransformersCodec):
    """X-Codec (Ye et al. 2024, arXiv:2408.17175): 16 kHz, 50 frames/s, 1..8 codebooks of 1024.

    Latents combine those of DAC and of HuBERT, so that tokens carry more of the linguistic content.
    Every token depends on the whole clip.

    Args:
        weights: a folder with config.json and model.safetensors; None: the published model,
            xcodec-hubert-librispeech; "random": that architecture with random weights, whose
            output is noise.
        beam_width: see `TransformersCodec`.

    Raises:
        WeightsMissing: if the weights cannot be found or downloaded.
        ValueError: if the folder holds another model, or not all of its weights.
    """

    def __init__(self, weights: str | Path | None = None, beam_width: int = 1) -> None:
        super().__init__("xcodec", checkpoint("xcodec", weights), beam_width)


class HuggingFace(TransformersCodec):
    """A codec of `transformers`, given by the name of a model on the Hugging Face hub or a folder.

    EnCodec, DAC, Mimi and X-Codec models with safetensors weights are supported, such as
    "facebook/encodec_24khz", "descript/dac_44khz" and "kyutai/mimi". Rates, sizes and codebooks are
    those of the model.

    Args:
        model: name on the hub, or a folder with config.json and model.safetensors.
        revision: commit, tag or branch on the hub; default its main branch.
        beam_width: see `TransformersCodec`.

    Raises:
        WeightsMissing: if the model is not on this machine and cannot be downloaded.
        ValueError: if it is of another type, works in segments, as EnCodec at 48 kHz does, or
            lacks weights.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        beam_width: int = 1,
    ) -> None:
        folder = checkpoints.hub_folder(model, revision)
        super().__init__("huggingface", load(folder), beam_width)
