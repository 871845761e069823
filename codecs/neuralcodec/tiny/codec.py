"""The tiny codec as a codec among others, with the checkpoints that come with the package."""

from pathlib import Path

import torch
from torch import Tensor

from neuralcodec.core.audio import fit_length
from neuralcodec.core.digests import digest_of
from neuralcodec.core.inputs import check_beam
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.networks import seeded
from neuralcodec.quantize import ResidualVectorQuantizer
from neuralcodec.tiny.checkpoint import load_model
from neuralcodec.tiny.model import SAMPLE_RATE, TinyConfig, TinyModel

SHIPPED = Path(__file__).parent / "shipped"
"""Folder of the checkpoints that come with the package, each with its model card."""


class Tiny(LatentCodec):
    """Our own codec for speech at 16 kHz.

    Args:
        model: one that comes with the package, such as "50hz".
        weights: path of a model that `neuralcodec train` wrote, in place of `model`; "random":
            reproducible random weights in the sizes of `model`, whose output is noise.
        beam_width: of the search for codes; 1 is greedy, whose codes are nested.

    Attributes:
        network: the `TinyModel`.
        facts: how the weights were trained.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no tiny model, or `beam_width` is below 1.
    """

    sample_rate = SAMPLE_RATE
    hop_length: int
    encode_context: int
    decode_context: int

    def __init__(
        self, model: str = "50hz", weights: str | Path | None = None, beam_width: int = 1
    ) -> None:
        super().__init__()
        self.beam_width = check_beam(beam_width)
        shipped = SHIPPED / f"tiny_{model}.safetensors"
        if weights is None and not shipped.is_file():
            known = sorted(p.stem.removeprefix("tiny_") for p in SHIPPED.glob("*.safetensors"))
            raise ValueError(f"model must be one of {', '.join(known)}, got {model!r}")
        network, self.facts = load_model(shipped if weights in (None, "random") else weights)
        if weights == "random":
            network, self.facts = _random(network.config), {}
        self._take(network)

    @classmethod
    def of(cls, network: TinyModel, beam_width: int = 1) -> "Tiny":
        """Return a codec of a model that exists already, on the model's device."""
        codec = cls.__new__(cls)
        LatentCodec.__init__(codec)
        codec.beam_width, codec.facts = check_beam(beam_width), {}
        codec._take(network)
        return codec

    def _take(self, network: TinyModel) -> None:
        config = network.config
        self.network = network.eval()
        self.name = f"tiny_{config.frame_rate:g}hz"
        self.dim, self.frame_rate = config.dim, float(config.frame_rate)
        self.hop_length, self.is_causal = config.hop_length, config.causal
        self.frame_rates = (self.frame_rate,) * config.num_codebooks
        self.codebook_sizes = (config.codebook_size,) * config.num_codebooks
        self.encode_context = config.encode_context
        self.decode_context = config.decode_context
        learned = network.state_dict()
        del learned["rvq.layout"]  # it was added later, and says what the sizes of the others say
        self.digest = digest_of(learned)

    @property
    def rvq(self) -> ResidualVectorQuantizer:
        """The quantizer."""
        return self.network.rvq

    def _analyse(self, wav: Tensor) -> Tensor:
        frames = -(-wav.shape[-1] // self.hop_length)
        z: Tensor = self.network.encoder(fit_length(wav[:, 0], frames * self.hop_length))
        return z

    def _synthesise(self, z: Tensor) -> Tensor:
        wav: Tensor = self.network.decoder(z)
        return wav[:, None]


def _random(config: TinyConfig) -> TinyModel:
    """Make a model with weights and codebooks that are always the same."""
    with seeded():
        model = TinyModel(config)
        books = torch.randn_like(model.rvq.codebooks) * 0.1
    model.rvq = ResidualVectorQuantizer.from_codebooks(books, frame_rate=config.frame_rate)
    return model
