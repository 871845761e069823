"""The tiny codec as a codec among others, with the checkpoints that come along."""

from pathlib import Path

import torch
from torch import Tensor

from neuralcodec.core.audio import check_wav, fit_length
from neuralcodec.core.checks import check_cover, check_depth, check_latents, codes_of
from neuralcodec.core.network import seeded
from neuralcodec.core.tokens import Tokens
from neuralcodec.quantize import ResidualVectorQuantizer
from neuralcodec.tiny.checkpoint import load_model
from neuralcodec.tiny.model import SAMPLE_RATE, TinyConfig, TinyModel

SHIPPED = Path(__file__).parent / "shipped"
"""Folder of the checkpoints that come along, each with its model card."""


class Tiny:
    """Our own codec for speech at 16 kHz: a `Codec`, a `LatentCodec`, `Chunkable`.

    Args:
        model: one that comes along, such as "50hz".
        weights: path of a model that `neuralcodec train` wrote, in place of `model`; "random":
            always the same random weights, in the sizes of `model`, which sound like nothing.
        device: where to compute.
        beam_width: of the search for codes; 1 is greedy, whose codes are nested.

    Attributes:
        network: the `TinyModel`.
        facts: how the weights came about.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no tiny model, or `beam_width` is below 1.
    """

    channels = 1
    sample_rate = SAMPLE_RATE

    def __init__(
        self,
        model: str = "50hz",
        weights: str | Path | None = None,
        device: str = "cpu",
        beam_width: int = 1,
    ) -> None:
        if beam_width < 1:
            raise ValueError(f"beam_width must be at least 1, got {beam_width}")
        shipped = SHIPPED / f"tiny_{model}.safetensors"
        if weights is None and not shipped.is_file():
            known = sorted(p.stem.removeprefix("tiny_") for p in SHIPPED.glob("*.safetensors"))
            raise ValueError(f"model must be one of {', '.join(known)}, got {model!r}")
        network, self.facts = load_model(shipped if weights in (None, "random") else weights)
        if weights == "random":
            network, self.facts = _random(network.config), {}
        self._take(network, device, beam_width)

    @classmethod
    def of(cls, network: TinyModel, beam_width: int = 1) -> "Tiny":
        """Make a codec of a model that is there already, where it is."""
        codec = cls.__new__(cls)
        codec.facts = {}
        codec._take(network, next(network.parameters()).device, beam_width)
        return codec

    def _take(self, network: TinyModel, device: str | torch.device, beam_width: int) -> None:
        config = network.config
        self.network = network.to(device).eval()
        self.beam_width, self._device = beam_width, torch.device(device)
        self.name = f"tiny_{config.frame_rate:g}hz"
        self.num_codebooks, self.dim = config.num_codebooks, config.dim
        self.frame_rate, self.hop_length = float(config.frame_rate), config.hop_length
        self.frame_rates = (self.frame_rate,) * config.num_codebooks
        self.codebook_sizes = (config.codebook_size,) * config.num_codebooks
        self.is_causal = config.causal
        self.encode_context = config.encode_context
        self.decode_context = config.decode_context

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        """Encode `wav [B, 1, T]` with the first `num_codebooks` codebooks; default all.

        Raises:
            ValueError: if `wav` is of another shape or not finite, or `num_codebooks` out of range.
        """
        depth = check_depth(num_codebooks, range(1, self.num_codebooks + 1))
        z = self.encode_latents(wav)
        return Tokens.uniform(
            self.network.rvq.encode(z, depth, beam_width=self.beam_width),
            frame_rate=self.frame_rate,
            codebook_size=self.codebook_sizes[0],
            sample_rate=self.sample_rate,
            num_samples=wav.shape[-1],
        )

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode to wav `[B, 1, num_samples]`; tokens may hold any prefix of the codebooks.

        Raises:
            ValueError: if the tokens are of another codec, or their frames don't cover the audio.
        """
        codes = codes_of(self, tokens).to(self._device)
        check_cover(codes.shape[-1], self.hop_length, tokens.num_samples)
        return self.decode_latents(self.network.rvq.decode(codes), tokens.num_samples)

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, 1, T]` into latents `[B, D, ceil(T / hop_length)]`; zeros fill the last."""
        check_wav(wav, channels=self.channels)
        frames = -(-wav.shape[-1] // self.hop_length)
        padded = fit_length(wav[:, 0].to(self._device, torch.float32), frames * self.hop_length)
        with torch.inference_mode():
            z: Tensor = self.network.encoder(padded)
        return z.clone()

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn latents `z [B, D, frames]` into wav `[B, 1, length]`; default all z covers."""
        check_latents(z, self.dim)
        with torch.inference_mode():
            wav: Tensor = self.network.decoder(z.to(self._device, torch.float32))[:, None]
        return fit_length(wav, wav.shape[-1] if length is None else length).clone()


def _random(config: TinyConfig) -> TinyModel:
    """Make a model with weights and codebooks that are always the same."""
    with seeded():
        model = TinyModel(config)
        books = torch.randn_like(model.rvq.codebooks) * 0.1
    model.rvq = ResidualVectorQuantizer.from_codebooks(books, frame_rate=config.frame_rate)
    return model
