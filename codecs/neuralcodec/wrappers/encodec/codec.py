"""EnCodec at 24 and at 48 kHz, by the package `encodec`.

Defossez et al. 2022 (arXiv:2210.13438). Networks and quantizer are the package's own. In addition
to what it offers, all numbers of codebooks work, not only those of its named bandwidths; the 24 kHz
model streams; at 48 kHz networks run on one segment at a time; and there is a beam search.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralcodec.core.codec import Codec
from neuralcodec.core.digests import digest_of
from neuralcodec.core.inputs import check_beam
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.networks import fold_weight_norm
from neuralcodec.core.streaming import Layer
from neuralcodec.core.tokens import Tokens
from neuralcodec.quantize import ResidualVectorQuantizer
from neuralcodec.wrappers.encodec.model import load_model, streamed


class _Encodec(Codec):
    """Base class of both models: the package's network, and its codebooks as our quantizer."""

    frame_rate: float

    def __init__(self, weights: str | Path | None = None, beam_width: int = 1) -> None:
        super().__init__()
        self.beam_width = check_beam(beam_width)
        network = load_model(self.name, weights)
        self.digest = digest_of(network.state_dict())  # folding rounds differently per machine
        fold_weight_norm(network)
        self.network: Any = network.eval()
        self.sample_rate, self.channels = network.sample_rate, network.channels
        self.frame_rates = (self.frame_rate,) * network.quantizer.n_q
        self.codebook_sizes = (int(network.quantizer.bins),) * network.quantizer.n_q

    @property
    def rvq(self) -> ResidualVectorQuantizer:
        """The codebooks as a `ResidualVectorQuantizer`."""
        return self._converted(ResidualVectorQuantizer.from_encodec, self.network)

    @property
    def _hop(self) -> int:
        """Samples per frame of the network; at 48 kHz within a segment only."""
        return int(self.network.encoder.hop_length)

    def _quantize(self, z: Tensor, depth: int) -> Tensor:
        """Return the codes `[B, depth, T]` of latents `[B, D, T]`."""
        if self.beam_width > 1:
            return self.rvq.encode(z, depth, beam_width=self.beam_width)
        codes: Tensor = self.network.quantizer.vq.encode(z, n_q=depth)  # [K, B, T]
        return codes.transpose(0, 1)

    def _dequantize(self, codes: Tensor) -> Tensor:
        """Return the latents `[B, D, T]` of codes `[B, K, T]`."""
        z: Tensor = self.network.quantizer.decode(codes.transpose(0, 1))
        return z


class Encodec24khz(_Encodec, LatentCodec):
    """EnCodec at 24 kHz: mono, 75 frames/s, 1..32 codebooks.

    Frames of 320 samples depend on no later audio, except for the first ones: the convolutions pad
    the start of a clip with its reflection, so that a stream returns nothing before it has taken
    seven frames. Because of an LSTM the receptive field extends back without limit, so long audio
    is coded by `stream`.

    Args:
        weights: checkpoint of the package, `encodec_24khz-*.th`; None: the published one; "random":
            random weights from a fixed seed, whose output is noise.
        beam_width: 1: the package's own greedy search; more: our beam search over the same
            codebooks, with a smaller error (see `ResidualVectorQuantizer.encode`).

    Attributes:
        network: the package's model, with weight norm folded into the weights.

    Raises:
        WeightsMissing: if the weights cannot be found or downloaded.
        ValueError: if they are of another model, or `beam_width` is below 1.
    """

    name = "encodec_24khz"
    hop_length: int
    frame_rate = 75.0
    is_causal = True
    is_streaming = True

    def __init__(self, weights: str | Path | None = None, beam_width: int = 1) -> None:
        super().__init__(weights, beam_width)
        self.dim = int(self.network.encoder.dimension)
        self.hop_length = self._hop

    def _analyse(self, wav: Tensor) -> Tensor:
        z: Tensor = self.network.encoder(wav)
        return z

    def _synthesise(self, z: Tensor) -> Tensor:
        wav: Tensor = self.network.decoder(z)
        return wav

    def _analysis_layer(self) -> Layer:
        return streamed(self.network.encoder.model)

    def _synthesis_layer(self) -> Layer:
        return streamed(self.network.decoder.model)


class Encodec48khz(_Encodec):
    """EnCodec at 48 kHz: stereo, 1..16 codebooks.

    Audio is cut into segments of 1 s that overlap by 1 %. Each is scaled to unit power and encoded
    alone, as 150 frames of 320 samples per 0.99 s. The last one may be shorter, and so may the one
    before it. The codes of all segments are concatenated; their scales, one float of 32 bits per
    segment, are `side["scales"]`, `[B, segments]`. The stated rate is that of long audio; a clip of
    a single segment has no overlap and costs 1 % less. Segments are decoded one at a time and, as
    in the package, cross-faded by triangular weights.

    Args:
        weights: checkpoint of the package, `encodec_48khz-*.th`; None: the published one; "random":
            random weights from a fixed seed, whose output is noise.
        beam_width: as in `Encodec24khz`.

    Attributes:
        network: the package's model, with weight norm folded into the weights.

    Raises:
        WeightsMissing: if the weights cannot be found or downloaded.
        ValueError: if they are of another model, or `beam_width` is below 1.
    """

    name = "encodec_48khz"
    frame_rate = 150 / 0.99

    def _encode(self, wav: Tensor, depth: int) -> Tokens:
        segments = self._segments(wav.shape[-1])
        parts = [self._encode_segment(wav[..., start:end], depth) for start, end in segments]
        codes, scales = zip(*parts, strict=True)
        tokens = self.tokens(torch.cat(codes, dim=-1), wav.shape[-1])
        return replace(
            tokens, side={"scales": torch.cat(scales, dim=-1)}, side_bits=32.0 * len(scales)
        )

    def _decode(self, tokens: Tokens) -> Tensor:
        codes = torch.stack(tokens.streams, dim=1)
        segments = [*self._segments(tokens.num_samples)]
        frames = [-(-(end - start) // self._hop) for start, end in segments]
        scales = tokens.side.get("scales", torch.zeros(0))
        expected = (tokens.batch_size, len(segments))
        if codes.shape[-1] != sum(frames) or scales.shape != expected or not segments:
            raise ValueError(
                f"{tokens.num_samples} samples are {sum(frames)} frames with scales "
                f"{[*expected]}, got {codes.shape[-1]} with {[*scales.shape]}"
            )
        ramp = torch.linspace(0, 1, frames[0] * self._hop + 2, device=codes.device)[1:-1]
        weight = 0.5 - (ramp - 0.5).abs()
        wav = scales.new_zeros(len(codes), self.channels, tokens.num_samples)
        total = weight.new_zeros(tokens.num_samples)
        pieces = torch.split(codes, frames, dim=-1)
        for (start, _), piece, scale in zip(segments, pieces, scales.unbind(-1), strict=True):
            audio = self.network.decoder(self._dequantize(piece)) * scale.view(-1, 1, 1)
            # The segment before a very short one may extend beyond the end.
            place = slice(start, min(start + audio.shape[-1], tokens.num_samples))
            used = weight[: place.stop - start]
            wav[..., place] += used * audio[..., : len(used)]
            total[place] += used
        return wav.div_(total)

    def _segments(self, num_samples: int) -> Iterator[tuple[int, int]]:
        """Yield the start and the end of each segment, in samples."""
        for start in range(0, num_samples, self.network.segment_stride):
            yield start, min(start + self.network.segment_length, num_samples)

    def _encode_segment(self, wav: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """Return the codes `[B, depth, frames]` of a segment `[B, C, T]` and its scale `[B, 1]`."""
        power = wav.mean(dim=1, keepdim=True).pow(2).mean(dim=2, keepdim=True)
        scale = 1e-8 + power.sqrt()  # [B, 1, 1]
        codes = self._quantize(self.network.encoder(wav / scale), depth)
        return codes, scale[:, :, 0]
