"""Mimi, the codec of Moshi (Defossez et al. 2024, arXiv:2410.00037), offline and streaming.

The network is `transformers`' own. Of streaming the package has half: caches for the encoder, that
take whole frames and know no end, and for the decoder's transformer, but none for the convolutions
behind it. Here every layer remembers what it needs, transformers in the package's own cache, so
that a stream gives what the whole signal gives, from its first sample to its last.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuralcodec.core import streaming, torchaudio_guard
from neuralcodec.core.checks import check_piece
from neuralcodec.core.codec import DecodeStream, EncodeStream
from neuralcodec.wrappers.transformers.codec import TransformersCodec, checkpoint

torchaudio_guard.load()

from transformers.models.mimi.modeling_mimi import (  # noqa: E402  # it imports torchaudio
    MimiConv1d,
    MimiConvTranspose1d,
    MimiResnetBlock,
)


class _Transformer:
    """A transformer over time, each step of which attends to a window of steps before it."""

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


def _frame_by_frame(function: Callable[[Tensor], Tensor]) -> streaming.Pointwise:
    """Make a layer of a function of single frames that needs at least one of them."""
    return streaming.Pointwise(
        lambda x: function(x) if x.shape[-1] else function(functional.pad(x, (0, 1)))[..., :0]
    )


def _streamed(module: Any) -> streaming.Layer:
    """Make the streaming twin of a module of Mimi's convolutional parts."""
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
    """Mimi: 24 kHz, 12.5 frames/s, 1..32 codebooks of 2048: `Codec`, `LatentCodec`, `Streaming`.

    The first codebook was trained to tell what WavLM hears and stands for itself ("semantic"); the
    other 31 are a residual quantizer, and both parts quantize the same latents. Moshi uses 8.

    A frame of 1920 samples depends on no later audio. It depends on earlier audio through 8 layers
    of attention with windows of 10 s: chunks would need 80 s of context, so long audio goes
    through `stream`.

    Args:
        weights: a folder with config.json and model.safetensors; None: the published model;
            "random": that architecture with random weights, which sounds like nothing.
        device: where to compute.
        beam_width: see `TransformersCodec`; each of the two parts has a beam of its own.

    Raises:
        WeightsMissing: if there are no weights.
        ValueError: if the folder holds another model, not all of its weights, or one that isn't
            causal.
    """

    def __init__(
        self, weights: str | Path | None = None, device: str = "cpu", beam_width: int = 1
    ) -> None:
        super().__init__("mimi", checkpoint("mimi", weights), device, beam_width)

    def stream(self, num_codebooks: int | None = None) -> EncodeStream:
        """Begin to encode with the first `num_codebooks` of K; default all.

        A frame's codes come with its last sample. Joined they are `encode`'s, whatever the pieces;
        sums are rounded in another order, so where two entries are about equally near the other
        one may be taken.

        Raises:
            ValueError: if `num_codebooks` is not 1..K.
        """
        depth, encoder = self._depth(num_codebooks), self.network.encoder
        layers = [
            _streamed(encoder.encoder_seanet.layers),
            _Transformer(encoder.encoder_transformer),
            _streamed(encoder.downsample),
            _frame_by_frame(lambda z: self._quantize(z, depth)),
        ]
        return streaming.Stream(streaming.Chain(layers), self._piece)

    def decode_stream(self) -> DecodeStream:
        """Begin to decode codes `[B, K, frames]` of any one number of codebooks.

        A frame's 1920 samples come with its codes; joined they are `decode`'s but for rounding.
        """
        decoder = self.network.decoder
        layers = [
            _frame_by_frame(self._stages.dequantize),
            _streamed(decoder.upsample),
            _Transformer(decoder.decoder_transformer),
            _streamed(decoder.decoder_seanet.layers),
        ]
        return streaming.Stream(streaming.Chain(layers), self._code_piece)

    def _piece(self, wav: Tensor) -> Tensor:
        check_piece(wav, channels=self.channels)
        return wav.to(self._device, torch.float32)

    def _code_piece(self, codes: Tensor) -> Tensor:
        if codes.ndim != 3:
            raise ValueError(f"codes must be [B, K, frames], got {list(codes.shape)}")
        self._depth(codes.shape[1])
        self._tokens(codes, 0)  # checks type and range
        return codes.to(self._device)
