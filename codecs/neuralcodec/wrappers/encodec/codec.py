"""EnCodec at 24 and at 48 kHz, by the package `encodec`.

Defossez et al. 2022 (arXiv:2210.13438). Networks and quantizer are the package's own. Beyond what
it offers there are all numbers of codebooks, not only those of its named bandwidths; streaming;
48 kHz audio of any length in the memory of one segment; and a beam search.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from neuralcodec.core import streaming
from neuralcodec.core.audio import check_wav, fit_length
from neuralcodec.core.checks import (
    check_codes,
    check_cover,
    check_depth,
    check_latents,
    check_piece,
    codes_of,
)
from neuralcodec.core.codec import DecodeStream, EncodeStream
from neuralcodec.core.tokens import Tokens
from neuralcodec.quantize import ResidualVectorQuantizer
from neuralcodec.wrappers.encodec.model import load_model, streamed


class _Encodec:
    """What both have: the package's model as `network`, its quantizer, ours beside it."""

    name: str
    frame_rate: float
    is_causal: bool

    def __init__(
        self, weights: str | Path | None = None, device: str = "cpu", beam_width: int = 1
    ) -> None:
        if beam_width < 1:
            raise ValueError(f"beam_width must be at least 1, got {beam_width}")
        self.network = load_model(self.name, weights).to(device).eval()
        self.sample_rate: int = self.network.sample_rate
        self.channels: int = self.network.channels
        self.hop_length = int(self.network.encoder.hop_length)
        self.num_codebooks: int = self.network.quantizer.n_q
        self.frame_rates = (self.frame_rate,) * self.num_codebooks
        self.codebook_sizes = (int(self.network.quantizer.bins),) * self.num_codebooks
        self.beam_width = beam_width
        self._device = torch.device(device)

    @cached_property
    def rvq(self) -> ResidualVectorQuantizer:
        """The codebooks as a quantizer of ours."""
        with torch.inference_mode(False):  # or codebooks made within it could not be changed
            return ResidualVectorQuantizer.from_encodec(self.network)

    def _depth(self, num_codebooks: int | None) -> int:
        return check_depth(num_codebooks, range(1, self.num_codebooks + 1))

    def _wav(self, wav: Tensor) -> Tensor:
        check_wav(wav, channels=self.channels)
        return wav.to(self._device, torch.float32)

    def _quantize(self, z: Tensor, depth: int) -> Tensor:
        """Turn latents `[B, D, T]` into codes `[B, depth, T]`."""
        if self.beam_width > 1:
            return self.rvq.encode(z, depth, beam_width=self.beam_width)
        codes: Tensor = self.network.quantizer.vq.encode(z, n_q=depth)  # [K, B, T]
        return codes.transpose(0, 1)

    def _dequantize(self, codes: Tensor) -> Tensor:
        """Turn codes `[B, K, T]` into latents `[B, D, T]`."""
        z: Tensor = self.network.quantizer.decode(codes.transpose(0, 1))
        return z

    def _tokens(self, codes: Tensor, num_samples: int, scales: Tensor | None = None) -> Tokens:
        depth = codes.shape[1]
        return Tokens(
            codes,
            frame_rates=self.frame_rates[:depth],
            codebook_sizes=self.codebook_sizes[:depth],
            sample_rate=self.sample_rate,
            num_samples=num_samples,
            side={} if scales is None else {"scales": scales},
            side_bits=0.0 if scales is None else 32.0 * scales.shape[1],
        )


class Encodec24khz(_Encodec):
    """EnCodec at 24 kHz, mono, 75 frames/s, 1..32 codebooks: a `Codec`, `LatentCodec`, `Streaming`.

    Frames of 320 samples depend on no later audio, but for the first: the convolutions pad a clip
    at its start with what they hear first, reflected, so that nothing comes out before seven
    frames went in. An LSTM looks back without limit: long audio goes through `stream`.

    Args:
        weights: checkpoint of the package, `encodec_24khz-*.th`; None: the published one; "random":
            `random_model`.
        device: where to compute.
        beam_width: 1: the package's own greedy search; more: ours, on the same codebooks, with a
            smaller error (see `ResidualVectorQuantizer.encode`; then k codebooks asked for are
            better than the first k of more).

    Raises:
        WeightsMissing: if the weights are nowhere to be found.
        ValueError: if they are of another model, or `beam_width` is below 1.
    """

    name = "encodec_24khz"
    frame_rate = 75.0
    is_causal = True

    def __init__(
        self, weights: str | Path | None = None, device: str = "cpu", beam_width: int = 1
    ) -> None:
        super().__init__(weights, device, beam_width)
        self.dim: int = self.network.encoder.dimension

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        """Encode `wav [B, 1, T]` with the first `num_codebooks` of 32.

        Returns:
            Tokens: codes `[B, K, ceil(T / 320)]`.

        Raises:
            ValueError: if `wav` is of another shape or not finite, or `num_codebooks` not 1..32.
        """
        depth, wav = self._depth(num_codebooks), self._wav(wav)
        with torch.inference_mode():
            codes = self._quantize(self.network.encoder(wav), depth)
        return self._tokens(codes.clone(), wav.shape[-1])

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode tokens of any number of codebooks to wav `[B, 1, num_samples]`.

        Raises:
            ValueError: if the tokens are of another codec, or their frames don't cover the audio.
        """
        codes = codes_of(self, tokens).to(self._device)
        check_cover(codes.shape[-1], self.hop_length, tokens.num_samples)
        with torch.inference_mode():
            wav: Tensor = self.network.decoder(self._dequantize(codes))
        return wav[..., : tokens.num_samples].clone()

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, 1, T]` into what the quantizer would get, `z [B, 128, ceil(T / 320)]`."""
        wav = self._wav(wav)
        with torch.inference_mode():
            z: Tensor = self.network.encoder(wav)
        return z.clone()

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn latents `z [B, 128, frames]` into wav `[B, 1, length]`; default frames * 320."""
        check_latents(z, self.dim)
        with torch.inference_mode():
            wav: Tensor = self.network.decoder(z.to(self._device, torch.float32))
        return fit_length(wav, wav.shape[-1] if length is None else length).clone()

    def stream(self, num_codebooks: int | None = None) -> EncodeStream:
        """Begin to encode with the first `num_codebooks` of 32.

        A frame's codes come as soon as its last sample is in, but for the first seven frames, which
        come together. Joined they are `encode`'s, whatever the pieces; sums are rounded in another
        order, so where two entries are about equally near the other one may be taken.

        Raises:
            ValueError: if `num_codebooks` is not 1..32.
        """
        depth = self._depth(num_codebooks)
        quantize = streaming.Pointwise(lambda z: self._quantize(z, depth))
        return streaming.Stream(
            streaming.Chain([streamed(self.network.encoder.model), quantize]), self._piece
        )

    def decode_stream(self) -> DecodeStream:
        """Begin to decode codes `[B, K, frames]` of any one number of codebooks.

        A frame's audio comes with its codes, but for the start: seven frames and some samples.
        """
        dequantize = streaming.Pointwise(self._dequantize)
        return streaming.Stream(
            streaming.Chain([dequantize, streamed(self.network.decoder.model)]), self._code_piece
        )

    def _piece(self, wav: Tensor) -> Tensor:
        check_piece(wav, channels=self.channels)
        return wav.to(self._device, torch.float32)

    def _code_piece(self, codes: Tensor) -> Tensor:
        check_codes(self, codes)
        return codes.to(self._device)


class Encodec48khz(_Encodec):
    """EnCodec at 48 kHz, stereo, 1..16 codebooks: a `Codec`.

    Audio is cut into segments of 1 s that share 1 %, each scaled to unit power and encoded alone,
    as 150 frames of 320 samples for every 0.99 s. The last is as short as what is left, and so may
    be the one before. The codes of all segments stand one behind the other; their scales, a float
    each, are `side["scales"]`, `[B, segments]`, at 32 bits. The rate is that of long audio; a clip
    of a single segment has no overlap and costs 1 % less than it tells.

    Args:
        weights: checkpoint of the package, `encodec_48khz-*.th`; None: the published one; "random":
            `random_model`.
        device: where to compute.
        beam_width: as for `Encodec24khz`.

    Raises:
        WeightsMissing: if the weights are nowhere to be found.
        ValueError: if they are of another model, or `beam_width` is below 1.
    """

    name = "encodec_48khz"
    frame_rate = 150 / 0.99
    is_causal = False

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        """Encode `wav [B, 2, T]` with the first `num_codebooks` of 16, segment by segment.

        Raises:
            ValueError: if `wav` is of another shape or not finite, or `num_codebooks` not 1..16.
        """
        depth = self._depth(num_codebooks)
        check_wav(wav, channels=self.channels)
        parts = [
            self._encode_segment(wav[..., start:end].to(self._device, torch.float32), depth)
            for start, end in self._segments(wav.shape[-1])
        ]
        codes, scales = zip(*parts, strict=True)
        return self._tokens(torch.cat(codes, dim=-1), wav.shape[-1], torch.cat(scales, dim=-1))

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode tokens of any number of codebooks to wav `[B, 2, num_samples]`.

        Segments are cross-faded by triangular weights, as in the package, one at a time.

        Raises:
            ValueError: if the tokens are of another codec, or codes or scales are not of as many
                frames or segments as `num_samples` has.
        """
        codes = codes_of(self, tokens).to(self._device)
        segments = [*self._segments(tokens.num_samples)]
        frames = [-(-(end - start) // self.hop_length) for start, end in segments]
        scales = tokens.side.get("scales", torch.zeros(0))
        expected = (tokens.batch_size, len(segments))
        if codes.shape[-1] != sum(frames) or scales.shape != expected or not segments:
            raise ValueError(
                f"{tokens.num_samples} samples are {sum(frames)} frames with scales "
                f"{[*expected]}, got {codes.shape[-1]} with {[*scales.shape]}"
            )
        ramp = torch.linspace(0, 1, frames[0] * self.hop_length + 2, device=self._device)[1:-1]
        weight = 0.5 - (ramp - 0.5).abs()
        wav = torch.zeros(len(codes), self.channels, tokens.num_samples, device=self._device)
        total = torch.zeros(tokens.num_samples, device=self._device)
        pieces = torch.split(codes, frames, dim=-1)
        for (start, _), piece, scale in zip(segments, pieces, scales.unbind(-1), strict=True):
            audio = self._decode_segment(piece, scale.to(self._device))
            # A segment before a very short one may reach beyond the end.
            place = slice(start, min(start + audio.shape[-1], tokens.num_samples))
            used = weight[: place.stop - start]
            wav[..., place] += used * audio[..., : len(used)]
            total[place] += used
        return wav.div_(total)

    def _segments(self, num_samples: int) -> Iterator[tuple[int, int]]:
        """Give start and end of each segment, in samples."""
        for start in range(0, num_samples, self.network.segment_stride):
            yield start, min(start + self.network.segment_length, num_samples)

    def _encode_segment(self, wav: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """Turn a segment into codes `[B, depth, frames]` and its scale `[B, 1]`."""
        with torch.inference_mode():
            power = wav.mean(dim=1, keepdim=True).pow(2).mean(dim=2, keepdim=True)
            scale = 1e-8 + power.sqrt()  # [B, 1, 1]
            codes = self._quantize(self.network.encoder(wav / scale), depth)
        return codes.clone(), scale[:, :, 0].clone()

    def _decode_segment(self, codes: Tensor, scale: Tensor) -> Tensor:
        """Turn codes `[B, K, frames]` and scale `[B]` into wav `[B, 2, frames * 320]`."""
        with torch.inference_mode():
            wav: Tensor = self.network.decoder(self._dequantize(codes)) * scale.view(-1, 1, 1)
        return wav
