"""Vocos, a vocoder that predicts spectra, by the package `vocos` (Siuzdak 2023, arXiv:2306.00814).

Two published models: one makes audio of EnCodec's tokens, the other of log-mel frames.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from neuralcodec.core import streaming
from neuralcodec.core.audio import check_wav, fit_length
from neuralcodec.core.checks import (
    check_codes,
    check_cover,
    check_depth,
    check_latents,
    codes_of,
)
from neuralcodec.core.codec import DecodeStream, EncodeStream
from neuralcodec.core.tokens import Tokens
from neuralcodec.wrappers.encodec.codec import Encodec24khz
from neuralcodec.wrappers.vocos.model import EncodecConfig, MelConfig, load_model


class VocosEncodec:
    """EnCodec's tokens at 24 kHz, decoded by Vocos: a `Codec`, a `LatentCodec`, `Streaming`.

    Tokens are those of `Encodec24khz`, but only of as many codebooks as Vocos was trained for: 2,
    4, 8 and 16, which are 1.5, 3, 6 and 12 kbit/s. A frame's audio depends on `decode_context`
    frames before and after it.

    Args:
        weights: a folder with Vocos's `config.yaml` and `pytorch_model.bin`, or the latter's path
            with the former beside it; None: the published ones; "random": always the same random
            ones, which sound like nothing, over random ones of EnCodec.
        device: where to compute.
        encodec_weights: as for `Encodec24khz`.
        bandwidth_kbps: as what `decode_latents` takes its latents, 1.5, 3, 6 or 12.
        beam_width: as for `Encodec24khz`.

    Attributes:
        depths: numbers of codebooks that it can run at.
        encodec: the codec whose tokens they are.
        network: EnCodec's encoder and Vocos.

    Raises:
        WeightsMissing: if weights are nowhere to be found.
        ValueError: if they are of another model, or there is no such bandwidth.
    """

    name = "vocos_encodec_24khz"
    is_causal = False

    def __init__(
        self,
        weights: str | Path | None = None,
        device: str = "cpu",
        encodec_weights: str | Path | None = None,
        bandwidth_kbps: float = 12.0,
        beam_width: int = 1,
    ) -> None:
        is_random = weights == "random"
        if is_random and encodec_weights is None:
            encodec_weights = "random"
        config, vocos = load_model(self.name, EncodecConfig, weights)
        bandwidths = config.feature_extractor.init_args.bandwidths
        if bandwidth_kbps not in bandwidths:
            raise ValueError(f"bandwidth_kbps must be one of {[*bandwidths]}, got {bandwidth_kbps}")
        self.encodec = Encodec24khz(encodec_weights, device, beam_width)
        self.depths: tuple[int, ...] = config.depths
        self.num_codebooks = max(self.depths)
        self.sample_rate, self.channels = self.encodec.sample_rate, self.encodec.channels
        self.hop_length, self.dim = self.encodec.hop_length, self.encodec.dim
        self.frame_rate = self.encodec.frame_rate
        self.frame_rates = self.encodec.frame_rates[: self.num_codebooks]
        self.codebook_sizes = self.encodec.codebook_sizes[: self.num_codebooks]
        self.bandwidth_kbps, self.decode_context = bandwidth_kbps, config.context
        self._latent_depth = self.depths[bandwidths.index(bandwidth_kbps)]
        self._device = torch.device(device)
        self._vocos = vocos.to(device).eval()
        if is_random:
            levels = self.encodec.network.quantizer.vq.layers[: self.num_codebooks]
            with torch.no_grad():
                entries = torch.cat([level.codebook for level in levels])
                self._vocos.feature_extractor.codebook_weights.copy_(entries)
        self.network = nn.ModuleDict(
            {"encoder": self.encodec.network.encoder, "vocos": self._vocos}
        )

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        """Encode `wav [B, 1, T]` with the first `num_codebooks`, one of `depths`; default the most.

        Raises:
            ValueError: if `wav` is of another shape or not finite, or `num_codebooks` not allowed.
        """
        return self.encodec.encode(wav, check_depth(num_codebooks, self.depths))

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode tokens of as many codebooks as `depths` has to wav `[B, 1, num_samples]`.

        Raises:
            ValueError: if the tokens are of another codec or number of codebooks, or their frames
                don't cover the audio.
        """
        codes = codes_of(self, tokens).to(self._device)
        check_depth(tokens.num_codebooks, self.depths)
        check_cover(codes.shape[-1], self.hop_length, tokens.num_samples)
        return self._decode_codes(codes)[..., : tokens.num_samples].clone()

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, 1, T]` into EnCodec's latents `[B, 128, ceil(T / 320)]`."""
        return self.encodec.encode_latents(wav)

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn latents `z [B, 128, frames]` into wav `[B, 1, length]`; default frames * 320.

        Vocos was trained on quantized latents; it takes z as such of `bandwidth_kbps`.
        """
        check_latents(z, self.dim)
        wav = self._synthesise(z.to(self._device, torch.float32), self._latent_depth)
        return fit_length(wav, wav.shape[-1] if length is None else length).clone()

    def stream(self, num_codebooks: int | None = None) -> EncodeStream:
        """Begin to encode with `num_codebooks`, one of `depths`: see `Encodec24khz.stream`."""
        return self.encodec.stream(check_depth(num_codebooks, self.depths))

    def decode_stream(self) -> DecodeStream:
        """Begin to decode codes `[B, K, frames]`, K one of `depths`.

        Audio comes `decode_context` frames late, and each piece is computed with as many frames on
        either side of it: pieces of a second or more keep that cheap.
        """
        decode = streaming.Windowed(
            self._decode_codes, context=self.decode_context, channels=1, ratio=self.hop_length
        )
        return streaming.Stream(decode, self._code_piece)

    def _code_piece(self, codes: Tensor) -> Tensor:
        check_codes(self, codes)
        check_depth(codes.shape[1], self.depths)
        return codes.to(self._device)

    def _decode_codes(self, codes: Tensor) -> Tensor:
        """Turn codes `[B, K, frames]` into wav `[B, 1, frames * 320]`."""
        with torch.inference_mode():
            features = self._vocos.feature_extractor(codes)
        return self._synthesise(features, codes.shape[1])

    def _synthesise(self, features: Tensor, depth: int) -> Tensor:
        bandwidth_id = torch.tensor([self.depths.index(depth)], device=self._device)
        wav: Tensor = self._vocos.decode(features, bandwidth_id=bandwidth_id)
        return wav[:, None]


class VocosMel:
    """Log-mel frames, made audible by Vocos: a `LatentCodec`, `Chunkable`.

    Frames of 1024 samples are centred at the multiples of 256, so T samples have T // 256 + 1.

    Args:
        weights: a folder with `config.yaml` and `pytorch_model.bin`, or the latter's path with the
            former beside it; None: the published ones; "random": always the same random ones,
            which sound like nothing.
        device: where to compute.

    Raises:
        WeightsMissing: if weights are nowhere to be found.
        ValueError: if they are of another model.
    """

    name = "vocos_mel_24khz"
    channels = 1
    is_causal = False  # frames are centred

    def __init__(self, weights: str | Path | None = None, device: str = "cpu") -> None:
        config, network = load_model(self.name, MelConfig, weights)
        mel = config.feature_extractor.init_args
        self.network = network.to(device).eval()
        self.sample_rate, self.dim, self.hop_length = mel.sample_rate, mel.n_mels, mel.hop_length
        self.frame_rate = mel.sample_rate / mel.hop_length
        self.encode_context = -(-mel.n_fft // (2 * mel.hop_length))
        self.decode_context: int = config.context
        self._reflected = mel.n_fft // 2
        self._device = torch.device(device)

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, 1, T]` into natural logs of mel magnitudes, `[B, 100, T // 256 + 1]`.

        Zeros follow audio shorter than half a window, which reflection at its ends needs.
        """
        check_wav(wav, channels=self.channels)
        length = wav.shape[-1]
        padded = fit_length(wav[:, 0], max(length, self._reflected + 1))
        with torch.inference_mode():
            mel: Tensor = self.network.feature_extractor(padded.to(self._device, torch.float32))
        return mel[..., : length // self.hop_length + 1].clone()

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn log-mel frames `z [B, 100, frames]` into wav `[B, 1, length]`; default frames * 256.

        The package stops at the centre of the last frame, up to 255 samples before the end of what
        was encoded; here its half window gives the rest.
        """
        check_latents(z, self.dim)
        wav: Tensor = self.network.decode(z.to(self._device, torch.float32))[:, None]
        return fit_length(wav, wav.shape[-1] if length is None else length).clone()
