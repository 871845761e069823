"""A common interface to the stages of the codec models of `transformers`.

EnCodec (Defossez et al. 2022), DAC (Kumar et al. 2023), Mimi (Defossez et al. 2024, Moshi) and
X-Codec (Ye et al. 2024, arXiv:2408.17175) are each split at the latents before the quantizer, the
codes, and the latents after it. All stages run the model's own modules.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralcodec.core import torchaudio_guard
from neuralcodec.core.audio import fit_length
from neuralcodec.core.networks import seen

torchaudio_guard.load()

from transformers.models.mimi.modeling_mimi import MimiConv1d  # noqa: E402  # it imports torchaudio


class Stages(ABC):
    """A model, split into its stages.

    Args:
        network: the model.

    Attributes:
        network: the model.
        sample_rate: Hz.
        channels: number of audio channels.
        hop_length: samples per frame.
        dim: D, width of the latents.
        num_codebooks: K.
        codebook_size: entries of each codebook.
        is_causal: whether a frame depends on no audio later than its own; in EnCodec except for
            the first frames, because its convolutions pad the start with a reflection.
        lead: samples by which the model's own audio is early.
        contexts: frames before and after a frame on which its codes depend, and those on which its
            audio depends; None if unlimited or unknown.
    """

    channels: int = 1
    is_causal: bool = False
    lead: int = 0
    contexts: tuple[int, int] | None = None

    def __init__(self, network: Any) -> None:
        config = network.config
        self.network = network
        self.sample_rate, self.hop_length = self._rates()
        self.dim: int = config.hidden_size
        self.codebook_size: int = config.codebook_size
        self.num_codebooks = self._count()

    def _rates(self) -> tuple[int, int]:
        """Return the sample rate in Hz and the samples per frame."""
        return self.network.config.sampling_rate, self.network.config.hop_length

    def _count(self) -> int:
        """Return the number of codebooks."""
        return len(self.network.quantizer.quantizers)

    def after_moving(self) -> None:  # noqa: B027  # most models need nothing
        """Put right what a move to another device or type leaves wrong in the model."""

    @abstractmethod
    def analyse(self, wav: Tensor) -> Tensor:
        """Return the latents `[B, D, ceil(T / hop_length)]` of wav `[B, C, T]`."""

    @abstractmethod
    def quantize(self, z: Tensor, depth: int) -> Tensor:
        """Return the codes `[B, depth, frames]` of latents."""

    @abstractmethod
    def dequantize(self, codes: Tensor) -> Tensor:
        """Return the latents of codes of any number of codebooks."""

    @abstractmethod
    def synthesise(self, z: Tensor) -> Tensor:
        """Return wav `[B, C, frames * hop_length]`, aligned with the analysed audio."""


class _ByBitrate(Stages):
    """A model whose quantizer takes a bitrate for a depth, and puts the codebooks first."""

    _kbps: float  # of one codebook; the package rounds the number of codebooks down

    def quantize(self, z: Tensor, depth: int) -> Tensor:
        """See `Stages`."""
        codes: Tensor = self.network.quantizer.encode(z, (depth + 0.5) * self._kbps)
        return codes.transpose(0, 1)

    def dequantize(self, codes: Tensor) -> Tensor:
        """See `Stages`."""
        z: Tensor = self.network.quantizer.decode(codes.transpose(0, 1))
        return z


class Encodec(_ByBitrate):
    """EnCodec at 24 kHz and models like it."""

    def __init__(self, network: Any) -> None:
        config = network.config
        if config.chunk_length_s is not None or config.normalize:
            raise ValueError(
                "this EnCodec model scales its input or works in segments; 'encodec_48khz' does "
                "that"
            )
        super().__init__(network)
        self.channels = config.audio_channels
        # A group norm over time depends on the whole clip.
        self.is_causal = config.use_causal_conv and config.norm_type == "weight_norm"
        self._kbps = math.log2(config.codebook_size) * network.quantizer.frame_rate / 1000

    def _count(self) -> int:
        return len(self.network.quantizer.layers)

    def analyse(self, wav: Tensor) -> Tensor:
        """See `Stages`."""
        z: Tensor = self.network.encoder(wav)
        return z

    def synthesise(self, z: Tensor) -> Tensor:
        """See `Stages`."""
        wav: Tensor = self.network.decoder(z)
        return wav


def _whole_frames(wav: Tensor, hop_length: int) -> Tensor:
    """Add zeros until the last frame is full, as the package's feature extractors do."""
    return fit_length(wav, -(-wav.shape[-1] // hop_length) * hop_length)


def _dac_lead(up: Sequence[int]) -> int:
    """Return the samples by which DAC's audio is early, which its decoder also returns too few.

    For each odd stride s the decoder trims ceil(s / 2) samples at both ends, one in total too many.
    The published models at 16 and 24 kHz have one such stride, 5, and are 8 samples early, so they
    appear to be trained with floor(s / 2): see `neuralcodec.wrappers.dac.Dac`.
    """
    lead = 0
    for stride in up:
        lead = lead * stride + stride % 2
    return lead


class Dac(Stages):
    """DAC at any rate."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.lead = _dac_lead(network.config.upsampling_ratios)
        hop, lead = self.hop_length, self.lead
        first, last = seen(network.encoder, 0, 0)
        start, end = seen(network.decoder, -lead, hop - 1 - lead)
        self.contexts = max(-(first // hop), last // hop), max(-start, end)

    def analyse(self, wav: Tensor) -> Tensor:
        """See `Stages`."""
        z: Tensor = self.network.encoder(_whole_frames(wav, self.hop_length))
        return z

    def quantize(self, z: Tensor, depth: int) -> Tensor:
        """See `Stages`."""
        codes: Tensor = self.network.quantizer(z, depth)[1]
        return codes

    def dequantize(self, codes: Tensor) -> Tensor:
        """See `Stages`."""
        z: Tensor = self.network.quantizer.from_codes(codes)[0]
        return z

    def synthesise(self, z: Tensor) -> Tensor:
        """See `Stages`."""
        return nn.functional.pad(self.network.decoder(z), (self.lead, 0))


class Mimi(Stages):
    """Mimi, causal."""

    is_causal = True

    def __init__(self, network: Any) -> None:
        config = network.config
        if not config.use_causal_conv or config.trim_right_ratio != 1:
            raise ValueError(
                f"can run causal Mimi models: this one has use_causal_conv "
                f"{config.use_causal_conv} and trim_right_ratio {config.trim_right_ratio}"
            )
        super().__init__(network)
        self.channels = config.audio_channels

    def _rates(self) -> tuple[int, int]:
        config = self.network.config
        return config.sampling_rate, math.prod(config.upsampling_ratios) * config.latent_stride

    def _count(self) -> int:
        return int(self.network.config.num_quantizers)

    def after_moving(self) -> None:
        """Keep the sizes of the convolutions on the CPU.

        The package has them as tensors, which it reads in each call to compute the padding: on a
        GPU each would wait for the device, and on the meta device they have no value.
        """
        for module in self.network.modules():
            if isinstance(module, MimiConv1d):
                conv = module.conv
                reach = (conv.kernel_size[0] - 1) * conv.dilation[0] + 1
                module.kernel_size = nn.Buffer(torch.tensor(reach), persistent=False)
                module.stride = nn.Buffer(torch.tensor(conv.stride[0]), persistent=False)
                total = torch.tensor(reach - conv.stride[0])
                module.padding_total = nn.Buffer(total, persistent=False)

    def _refresh(self) -> None:
        """Compute the package's cached codebooks unless they are on the device of the model.

        The package computes them once. They would stay on the old device, and if they were computed
        in inference mode, autograd could not use them.
        """
        for part in self.network.quantizer.children():  # semantic, acoustic
            for level in part.layers:
                book = level.codebook
                if book._embed is None or book._embed.device != book.embed_sum.device:
                    book._embed = None
                    with torch.inference_mode(False):
                        _ = book.embed

    def analyse(self, wav: Tensor) -> Tensor:
        """See `Stages`."""
        if wav.is_meta:  # the package's attention reads values
            return wav.new_empty(len(wav), self.dim, -(-wav.shape[-1] // self.hop_length))
        z: Tensor = self.network.encoder(wav).latents
        return z

    def quantize(self, z: Tensor, depth: int) -> Tensor:
        """See `Stages`."""
        self._refresh()
        semantic = self.network.config.num_semantic_quantizers  # at least these
        codes: Tensor = self.network.quantizer.encode(z, max(depth, semantic))
        return codes.transpose(0, 1)[:, :depth]

    def dequantize(self, codes: Tensor) -> Tensor:
        """See `Stages`."""
        self._refresh()
        z: Tensor = self.network.quantizer.decode(codes)
        return z

    def synthesise(self, z: Tensor) -> Tensor:
        """See `Stages`."""
        if z.is_meta:  # likewise
            return z.new_empty(len(z), self.channels, z.shape[-1] * self.hop_length)
        wav: Tensor = self.network.decoder(z).audio_values
        return wav


class XCodec(_ByBitrate):
    """X-Codec: DAC and HuBERT in parallel."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self._kbps = network.quantizer.get_bandwidth_per_quantizer()

    def _rates(self) -> tuple[int, int]:
        return self.network.config.sample_rate, self.network.config.hop_length

    def analyse(self, wav: Tensor) -> Tensor:
        """See `Stages`."""
        network = self.network
        wav = _whole_frames(wav, self.hop_length)
        features = network._extract_semantic_features(wav)  # [B, T, D]
        semantic = network.encoder_semantic(features.transpose(1, 2))
        acoustic = network.acoustic_encoder(wav)
        if acoustic.shape[-1] != semantic.shape[-1]:
            acoustic = network.acoustic_encoder(nn.functional.pad(wav, (network.pad, network.pad)))
        both = torch.cat([acoustic, semantic], dim=1)
        z: Tensor = network.fc(both.transpose(1, 2)).transpose(1, 2)
        return z

    def synthesise(self, z: Tensor) -> Tensor:
        """See `Stages`."""
        hidden = self.network.fc2(z.transpose(1, 2)).transpose(1, 2)
        wav: Tensor = self.network.acoustic_decoder(hidden)
        return wav


_STAGES: dict[str, type[Stages]] = {
    "encodec": Encodec,
    "dac": Dac,
    "mimi": Mimi,
    "xcodec": XCodec,
}


def stages(network: Any) -> Stages:
    """Return the stages of a model of one of the four kinds.

    Raises:
        ValueError: if it works in segments (EnCodec at 48 kHz) or is not causal where it should be.
    """
    return _STAGES[network.config.model_type](network)
