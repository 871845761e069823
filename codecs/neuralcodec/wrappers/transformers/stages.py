"""What codec models of `transformers` do, stage by stage, under the same names for all of them.

EnCodec (Defossez et al. 2022), DAC (Kumar et al. 2023), Mimi (Defossez et al. 2024, Moshi) and
X-Codec (Ye et al. 2024, arXiv:2408.17175), each cut at the same three places: the latents before
the quantizer, the codes, and the latents behind it. All stages are the model's own modules.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuralcodec.core.audio import fit_length
from neuralcodec.core.network import seen


@dataclass(frozen=True)
class Stages:
    """What a model does, and to what.

    Attributes:
        sample_rate: Hz.
        channels: of the audio.
        hop_length: samples of a frame.
        dim: D, width of the latents.
        num_codebooks: K.
        codebook_size: entries of each codebook.
        is_causal: whether a frame depends on no later audio than its own; in EnCodec all but the
            first few, in front of which its convolutions reflect what they hear.
        analyse: turns wav `[B, C, T]` into latents `[B, D, ceil(T / hop_length)]`.
        quantize: turns latents and a number of codebooks k into codes `[B, k, frames]`.
        dequantize: turns codes of any number of codebooks into latents.
        synthesise: turns latents into wav `[B, C, frames * hop_length]`, in time with what was
            analysed.
        lead: samples by which the model's own audio comes early.
        contexts: frames before and after a frame that its codes and its audio depend on; None if
            they depend on the whole clip.
    """

    sample_rate: int
    channels: int
    hop_length: int
    dim: int
    num_codebooks: int
    codebook_size: int
    is_causal: bool
    analyse: Callable[[Tensor], Tensor]
    quantize: Callable[[Tensor, int], Tensor]
    dequantize: Callable[[Tensor], Tensor]
    synthesise: Callable[[Tensor], Tensor]
    lead: int = 0
    contexts: tuple[int, int] | None = None


def _encodec(network: Any) -> Stages:
    config, quantizer = network.config, network.quantizer
    if config.chunk_length_s is not None or config.normalize:
        raise ValueError(
            "this EnCodec model scales its input or works in segments; 'encodec_48khz' does that"
        )
    # The package takes a bitrate and rounds it down to whole codebooks.
    kbps = math.log2(config.codebook_size) * quantizer.frame_rate / 1000
    return Stages(
        config.sampling_rate,
        config.audio_channels,
        config.hop_length,
        config.hidden_size,
        len(quantizer.layers),
        config.codebook_size,
        # A group norm over time looks at the whole clip.
        is_causal=config.use_causal_conv and config.norm_type == "weight_norm",
        analyse=network.encoder,
        quantize=lambda z, depth: quantizer.encode(z, (depth + 0.5) * kbps).transpose(0, 1),
        dequantize=lambda codes: quantizer.decode(codes.transpose(0, 1)),
        synthesise=network.decoder,
    )


def _whole_frames(wav: Tensor, hop_length: int) -> Tensor:
    """Add zeros until the last frame is full, as the package's feature extractors do."""
    return fit_length(wav, -(-wav.shape[-1] // hop_length) * hop_length)


def _dac_lead(up: Sequence[int]) -> int:
    """Give the samples by which DAC's audio comes early: as many as its decoder gives too few.

    For each odd stride s it takes off ceil(s / 2) at both ends, one more than there are too many.
    The published models at 16 and 24 kHz have one, 5, and come 8 samples early, so they appear to
    be trained with floor(s / 2): see `neuralcodec.wrappers.dac.Dac`.
    """
    lead = 0
    for stride in up:
        lead = lead * stride + stride % 2
    return lead


def _dac_contexts(network: Any, hop: int, lead: int) -> tuple[int, int]:
    """Give the frames on either side that the codes and the audio of a frame depend on."""
    first, last = seen(network.encoder, 0, 0)
    start, end = seen(network.decoder, -lead, hop - 1 - lead)
    return max(-(first // hop), last // hop), max(-start, end)


def _dac(network: Any) -> Stages:
    config, quantizer = network.config, network.quantizer
    hop, lead = config.hop_length, _dac_lead(config.upsampling_ratios)
    return Stages(
        config.sampling_rate,
        1,
        hop,
        config.hidden_size,
        len(quantizer.quantizers),
        config.codebook_size,
        is_causal=False,
        analyse=lambda wav: network.encoder(_whole_frames(wav, hop)),
        quantize=lambda z, depth: quantizer(z, depth)[1],
        dequantize=lambda codes: quantizer.from_codes(codes)[0],
        synthesise=lambda z: nn.functional.pad(network.decoder(z), (lead, 0)),
        lead=lead,
        contexts=_dac_contexts(network, hop, lead),
    )


def _mimi(network: Any) -> Stages:
    config, quantizer = network.config, network.quantizer
    if not config.use_causal_conv or config.trim_right_ratio != 1:
        raise ValueError(
            f"can run causal Mimi models: this one has use_causal_conv {config.use_causal_conv} "
            f"and trim_right_ratio {config.trim_right_ratio}"
        )
    semantic = config.num_semantic_quantizers  # which the package takes all or none of
    for part in quantizer.children():
        for level in part.layers:
            # The package computes the entries once and keeps them. Made here they are of the
            # weights and the device of now, and no inference tensors, which can't be trained on.
            level.codebook._embed = None
            _ = level.codebook.embed
    return Stages(
        config.sampling_rate,
        config.audio_channels,
        math.prod(config.upsampling_ratios) * config.latent_stride,
        config.hidden_size,
        config.num_quantizers,
        config.codebook_size,
        is_causal=True,
        analyse=lambda wav: network.encoder(wav).latents,
        quantize=lambda z, depth: quantizer.encode(z, max(depth, semantic)).transpose(0, 1)[
            :, :depth
        ],
        dequantize=quantizer.decode,
        synthesise=lambda z: network.decoder(z).audio_values,
    )


def _xcodec(network: Any) -> Stages:
    config, quantizer = network.config, network.quantizer

    def analyse(wav: Tensor) -> Tensor:
        wav = _whole_frames(wav, config.hop_length)
        features = network._extract_semantic_features(wav)  # [B, T, D]
        semantic = network.encoder_semantic(features.transpose(1, 2))
        acoustic = network.acoustic_encoder(wav)
        if acoustic.shape[-1] != semantic.shape[-1]:
            acoustic = network.acoustic_encoder(nn.functional.pad(wav, (network.pad, network.pad)))
        joined = torch.cat([acoustic, semantic], dim=1)
        z: Tensor = network.fc(joined.transpose(1, 2)).transpose(1, 2)
        return z

    def synthesise(z: Tensor) -> Tensor:
        wav: Tensor = network.acoustic_decoder(network.fc2(z.transpose(1, 2)).transpose(1, 2))
        return wav

    kbps = quantizer.get_bandwidth_per_quantizer()  # as for EnCodec
    return Stages(
        config.sample_rate,
        1,
        config.hop_length,
        config.hidden_size,
        len(quantizer.quantizers),
        config.codebook_size,
        is_causal=False,
        analyse=analyse,
        quantize=lambda z, depth: quantizer.encode(z, (depth + 0.5) * kbps).transpose(0, 1),
        dequantize=lambda codes: quantizer.decode(codes.transpose(0, 1)),
        synthesise=synthesise,
    )


_STAGES: dict[str, Callable[[Any], Stages]] = {
    "encodec": _encodec,
    "dac": _dac,
    "mimi": _mimi,
    "xcodec": _xcodec,
}


def stages(network: Any) -> Stages:
    """Find the stages of a model of one of the four kinds.

    Raises:
        ValueError: if it works in segments (EnCodec at 48 kHz) or isn't causal where it should be.
    """
    return _STAGES[network.config.model_type](network)
