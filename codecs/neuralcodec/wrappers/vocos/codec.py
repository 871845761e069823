"""Vocos, a vocoder that predicts spectra, by the package `vocos` (Siuzdak 2023, arXiv:2306.00814).

There are two published models: one decodes EnCodec's tokens, the other log-mel frames.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuralcodec.core.audio import fit_length
from neuralcodec.core.digests import digest_of, joined
from neuralcodec.core.inputs import check_cover
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.streaming import Layer, Windowed
from neuralcodec.core.tokens import Tokens
from neuralcodec.quantize import ResidualVectorQuantizer
from neuralcodec.wrappers.encodec.codec import Encodec24khz
from neuralcodec.wrappers.vocos.model import EncodecConfig, MelConfig, load_model


class VocosEncodec(LatentCodec):
    """EnCodec's tokens at 24 kHz, decoded by Vocos.

    Tokens are those of `Encodec24khz`, but only with the numbers of codebooks for which Vocos was
    trained: 2, 4, 8 and 16, or 1.5, 3, 6 and 12 kbit/s. The audio of a frame depends on
    `decode_context` frames before and after it. So a decode stream has a delay of as many frames
    and computes each piece with that context on either side, which costs little for pieces of a
    second or more. `decode_latents` treats latents as those of `bandwidth_kbps`.

    Args:
        weights: a folder with Vocos's `config.yaml` and `pytorch_model.bin`, or the path of the
            latter, in the same folder as the former; None: the published ones; "random": random
            weights from a fixed seed for Vocos and, by default, EnCodec, whose output is noise.
        encodec_weights: as the `weights` of `Encodec24khz`.
        bandwidth_kbps: bandwidth of the latents that `decode_latents` takes: 1.5, 3, 6 or 12.
        beam_width: as in `Encodec24khz`.

    Attributes:
        encodec: the codec whose tokens are decoded.
        vocos: the vocoder.
        network: EnCodec's encoder and Vocos.

    Raises:
        WeightsMissing: if the weights cannot be found or downloaded.
        ValueError: if they are of another model, there is no such bandwidth, or `beam_width` is
            below 1.
    """

    name = "vocos_encodec_24khz"
    hop_length: int
    decode_context: int
    is_streaming = True

    def __init__(
        self,
        weights: str | Path | None = None,
        encodec_weights: str | Path | None = None,
        bandwidth_kbps: float = 12.0,
        beam_width: int = 1,
    ) -> None:
        super().__init__()
        is_random = weights == "random"
        if is_random and encodec_weights is None:
            encodec_weights = "random"
        config, vocos = load_model(self.name, EncodecConfig, weights)
        bandwidths = config.feature_extractor.init_args.bandwidths
        if bandwidth_kbps not in bandwidths:
            raise ValueError(f"bandwidth_kbps must be one of {[*bandwidths]}, got {bandwidth_kbps}")
        self.encodec = Encodec24khz(encodec_weights, beam_width)
        self.beam_width = beam_width
        self.vocos: Any = vocos.eval()
        self._depths: tuple[int, ...] = config.depths
        most = max(self._depths)
        self.sample_rate, self.channels = self.encodec.sample_rate, self.encodec.channels
        self.hop_length, self.dim = self.encodec.hop_length, self.encodec.dim
        self.frame_rate = self.encodec.frame_rate
        self.frame_rates = self.encodec.frame_rates[:most]
        self.codebook_sizes = self.encodec.codebook_sizes[:most]
        self.bandwidth_kbps, self.decode_context = bandwidth_kbps, config.context
        self._latent_depth = self._depths[bandwidths.index(bandwidth_kbps)]
        if is_random:
            levels = self.encodec.network.quantizer.vq.layers[:most]
            with torch.no_grad():
                entries = torch.cat([level.codebook for level in levels])
                self.vocos.feature_extractor.codebook_weights.copy_(entries)
        self.digest = joined(self.encodec.digest, digest_of(self.vocos.state_dict()))

    @property
    def network(self) -> nn.ModuleDict:
        """EnCodec's encoder and Vocos."""
        return nn.ModuleDict({"encoder": self.encodec.network.encoder, "vocos": self.vocos})

    @property
    def rvq(self) -> ResidualVectorQuantizer:
        """EnCodec's codebooks as a `ResidualVectorQuantizer`."""
        return self.encodec.rvq

    @property
    def depths(self) -> tuple[int, ...]:
        """Numbers of codebooks for which Vocos was trained."""
        return self._depths

    def _quantize(self, z: Tensor, depth: int) -> Tensor:
        return self.encodec._quantize(z, depth)

    def _decode(self, tokens: Tokens) -> Tensor:
        codes = torch.stack(tokens.streams, dim=1)
        check_cover(codes.shape[-1], self.hop_length, tokens.num_samples)
        return self._decode_codes(codes)

    def _analyse(self, wav: Tensor) -> Tensor:
        return self.encodec._analyse(wav)

    def _synthesise(self, z: Tensor) -> Tensor:
        return self._sound(z, self._latent_depth)

    def _analysis_layer(self) -> Layer:
        return self.encodec._analysis_layer()

    def _decode_layer(self) -> Layer:
        return Windowed(
            self._decode_codes, context=self.decode_context, channels=1, ratio=self.hop_length
        )

    def _decode_codes(self, codes: Tensor) -> Tensor:
        """Return wav `[B, 1, frames * 320]` of codes `[B, K, frames]`."""
        return self._sound(self.vocos.feature_extractor(codes), codes.shape[1])

    def _sound(self, features: Tensor, depth: int) -> Tensor:
        bandwidth_id = torch.tensor([self._depths.index(depth)], device=features.device)
        # The package's `decode` does the same, but under `no_grad`.
        hidden = self.vocos.backbone(features, bandwidth_id=bandwidth_id)
        if hidden.is_meta:  # the inverse transform reads values
            return features.new_empty(len(features), 1, features.shape[-1] * self.hop_length)
        wav: Tensor = self.vocos.head(hidden)
        return wav[:, None]


class VocosMel(LatentCodec):
    """Log-mel frames, decoded by Vocos.

    Frames of 1024 samples are centred at the multiples of 256, so T samples have T // 256 + 1
    frames. Audio no longer than half a window is padded by zeros, because its ends are reflected.
    The package's audio ends at the centre of the last frame, up to 255 samples before the end of
    the input; here the second half of its window gives the remaining samples.

    Args:
        weights: a folder with `config.yaml` and `pytorch_model.bin`, or the path of the latter, in
            the same folder as the former; None: the published ones; "random": random weights from
            a fixed seed, whose output is noise.

    Raises:
        WeightsMissing: if the weights cannot be found or downloaded.
        ValueError: if they are of another model.
    """

    name = "vocos_mel_24khz"
    hop_length: int
    encode_context: int
    decode_context: int
    has_codebooks = False

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        config, network = load_model(self.name, MelConfig, weights)
        mel = config.feature_extractor.init_args
        self.network: Any = network.eval()
        self.sample_rate, self.dim = mel.sample_rate, mel.n_mels
        self.hop_length = int(mel.hop_length)
        self.frame_rate = mel.sample_rate / mel.hop_length
        self.encode_context = -(-mel.n_fft // (2 * mel.hop_length))
        self.decode_context = config.context
        self._reflected = mel.n_fft // 2
        self.digest = digest_of(network.state_dict())

    def _analyse(self, wav: Tensor) -> Tensor:
        length = wav.shape[-1]
        padded = fit_length(wav[:, 0], max(length, self._reflected + 1))
        mel: Tensor = self.network.feature_extractor(padded)
        return mel[..., : length // self.hop_length + 1]

    def _synthesise(self, z: Tensor) -> Tensor:
        hidden = self.network.backbone(z)
        if hidden.is_meta:  # the inverse transform reads values
            return z.new_empty(len(z), 1, z.shape[-1] * self.hop_length)
        wav: Tensor = self.network.head(hidden)
        return wav[:, None]
