"""Mimi, the codec of Moshi (Defossez et al. 2024, arXiv:2410.00037), offline and streaming.

The network is that of `transformers`. The package supports streaming in part: it has caches for the
encoder, which take whole frames and do not handle the end of a signal, and for the decoder's
transformer, but none for the convolutions after it. Here every layer keeps the state it needs,
transformers in the package's own cache, so that a stream gives the result of the whole signal.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from neuralcodec.core import streaming, torchaudio_guard
from neuralcodec.core.streaming import Layer
from neuralcodec.wrappers.transformers.codec import TransformersCodec, checkpoint

torchaudio_guard.load()

from transformers.models.mimi.modeling_mimi import (  # noqa: E402  # it imports torchaudio
    MimiConv1d,
    MimiConvTranspose1d,
    MimiResnetBlock,
)


class _Transformer:
    """A causal transformer over time with a cache; each step attends to a window of past steps."""

    def __init__(self, transformer: Any) -> None:
        self._transformer = transformer
        self._past: Any = None

    def step(self, x: Tensor, last: bool) -> Tensor:
        """See `streaming.Layer`."""
        if x.shape[-1] == 0:
            return x
        out = self._transformer(x.mT, past_key_values=self._past, use_cache=True)
        self._past = out.past_key_values
        hidden: Tensor = out.last_hidden_state
        return hidden.mT


def _streamed(module: Any) -> streaming.Layer:
    """Return the streaming layer of a module of Mimi's convolutional parts."""
    if isinstance(module, nn.ModuleList):
        return streaming.Chain([_streamed(child) for child in module])
    if isinstance(module, MimiResnetBlock):
        return streaming.Sum(_streamed(module.shortcut), _streamed(module.block))
    if isinstance(module, MimiConv1d):
        return streaming.Conv(module.conv, module.pad_mode, whole=module)
    if isinstance(module, MimiConvTranspose1d):
        return streaming.TransposedConv(module.conv)
    assert isinstance(module, nn.ELU | nn.Identity)
    return streaming.Pointwise(module)


class Mimi(TransformersCodec):
    """Mimi: 24 kHz, 12.5 frames/s, 1..32 codebooks of 2048.

    The first codebook is a quantizer of its own ("semantic"), distilled from WavLM; the other 31
    are a residual quantizer, and both quantize the same latents. Moshi uses 8 codebooks.

    A frame of 1920 samples depends on no later audio. It depends on earlier audio through 8 layers
    of attention with windows of 10 s: chunks would need 80 s of context, so long audio is coded by
    `stream`.

    Args:
        weights: a folder with config.json and model.safetensors; None: the published model;
            "random": that architecture with random weights, whose output is noise.
        beam_width: see `TransformersCodec`; each of the two quantizers has a beam of its own.

    Raises:
        WeightsMissing: if the weights cannot be found or downloaded.
        ValueError: if the folder holds another model, not all of its weights, or a model that is
            not causal.
    """

    is_streaming = True

    def __init__(self, weights: str | Path | None = None, beam_width: int = 1) -> None:
        super().__init__("mimi", checkpoint("mimi", weights), beam_width)

    def _analysis_layer(self) -> Layer:
        encoder = self.network.encoder
        return streaming.Chain(
            [
                _streamed(encoder.encoder_seanet.layers),
                _Transformer(encoder.encoder_transformer),
                _streamed(encoder.downsample),
            ]
        )

    def _synthesis_layer(self) -> Layer:
        decoder = self.network.decoder
        return streaming.Chain(
            [
                _streamed(decoder.upsample),
                _Transformer(decoder.decoder_transformer),
                _streamed(decoder.decoder_seanet.layers),
            ]
        )
