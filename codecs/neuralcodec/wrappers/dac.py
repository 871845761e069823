"""DAC at 44.1, 24 and 16 kHz, by the package `dac` (Kumar et al. 2023, arXiv:2306.06546).

Networks and quantizer are those of descript-audio-codec, with weight norm multiplied into the
weights. In addition to what the package offers, decoded audio has exactly the input's length and is
aligned with it, any number of codebooks can be used, long audio can be coded in chunks with the
same result, and there is a beam search.
"""

import inspect
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuralcodec.core import torchaudio_guard
from neuralcodec.core.audio import fit_length
from neuralcodec.core.digests import digest_of
from neuralcodec.core.inputs import check_beam
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.names import unknown
from neuralcodec.core.networks import fold_weight_norm, load_saved, seeded, seen
from neuralcodec.quantize import ResidualVectorQuantizer
from neuralcodec.weights import locate

torchaudio_guard.load()

with warnings.catch_warnings():
    # The package scripts a function on import, which torch has deprecated.
    warnings.filterwarnings("ignore", "", DeprecationWarning, r"torch\.jit")
    from dac import DAC


@dataclass(frozen=True)
class _Published:
    """Settings of a published model, from `conf/final` of descriptinc/descript-audio-codec.

    Attributes:
        sample_rate: Hz.
        rates: strides of the encoder; the decoder has them in reverse.
        num_codebooks: number of codebooks, of 1024 entries each.
        lead: samples by which the package's audio is early, see `Dac`.
    """

    sample_rate: int
    rates: tuple[int, ...]
    num_codebooks: int
    lead: int

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.rates)


_MODELS = {
    "44khz": _Published(44100, (2, 4, 8, 8), 9, lead=0),
    "24khz": _Published(24000, (2, 4, 5, 8), 32, lead=8),
    "16khz": _Published(16000, (2, 4, 5, 8), 12, lead=8),
}


def _build(settings: Mapping[str, Any]) -> Any:
    """Build the package's network without changing torch's global random state."""
    with seeded(), warnings.catch_warnings():
        # The package uses an implementation of weight norm that torch has since replaced.
        warnings.filterwarnings("ignore", "", FutureWarning, r"torch\.nn\.utils\.weight_norm")
        return DAC(**settings)


def random_network(model: str) -> Any:
    """Build the published configuration with random weights and codebooks from a fixed seed.

    Codes depend on the audio in every codebook; decoded audio is noise.

    Args:
        model: "44khz", "24khz" or "16khz".

    Returns:
        dac.DAC: on the CPU, with weight norm as in the package.
    """
    published = _MODELS[model]
    network = _build(
        {
            "encoder_dim": 64,
            "encoder_rates": list(published.rates),
            "decoder_dim": 1536,
            "decoder_rates": list(published.rates[::-1]),
            "n_codebooks": published.num_codebooks,
            "sample_rate": published.sample_rate,
        }
    )
    with torch.no_grad():
        for name, parameter in network.encoder.named_parameters():
            if name.endswith("weight_g"):
                # With torch's initialisation latents would be a hundred times smaller than
                # codebook entries, so that all levels but the first would quantize only these.
                parameter.mul_(2**0.5)
    return network


def read_network(path: Path, model: str) -> Any:
    """Read a checkpoint that the package saved: weights and the settings of their network.

    Args:
        path: file of a dict with "state_dict" and, in "metadata", the "kwargs" of `dac.DAC`.
            Unknown ones of these are ignored, as in the package.
        model: "44khz", "24khz" or "16khz"; widths, depth and codebooks are those of the file.

    Raises:
        ValueError: if the file is not such a checkpoint, or its sample rate or hop length is not
            that of `model`.
    """
    saved = load_saved(path)
    try:
        state, given = saved["state_dict"], saved["metadata"]["kwargs"]
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(
            f"{path} is no checkpoint of DAC: it must hold state_dict and metadata.kwargs"
        ) from error
    if not isinstance(state, dict) or not isinstance(given, dict):
        raise ValueError(f"state_dict and metadata.kwargs of {path} must be dicts")
    known = inspect.signature(DAC).parameters
    try:
        network = _build({key: value for key, value in given.items() if key in known})
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"{path} holds settings that make no DAC: {error}") from error
    published = _MODELS[model]
    for what, found, wanted in (
        ("sample rate of", network.sample_rate, published.sample_rate),
        ("hop length of the encoder of", network.hop_length, published.hop_length),
        ("hop length of the decoder of", math.prod(network.decoder_rates), published.hop_length),
    ):
        if found != wanted:
            raise ValueError(f"the {what} {path} is {found}, not {wanted} as in DAC {model}")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} don't fit its settings: {error}") from error
    return network


class Dac(LatentCodec):
    """DAC at one sample rate; mono, not causal.

    With the published 24 and 16 kHz models the package's audio is 8 samples early: aligned, the
    SI-SNR of a speech clip rises from 2.5 to 21.1 and from -0.2 to 12.9 dB (README of codecscope
    0.1.0). `decode` compensates for that; the first 8 samples, which the package lacks, are zeros.

    The cause is the odd stride, 5, for which the package pads by ceil(5 / 2) in both encoder and
    decoder. As both pad the same side, nothing is shifted, but decoded audio is 8 samples short.
    With that the repository's own training at 16 kHz fails: its clips of 0.38 s are 19 whole
    frames, and the losses compare 6080 samples with 6072. With floor(5 / 2) in the decoder alone,
    as in the repository's first version, both models train. So the published weights were
    apparently trained that way, and in later versions their output is 1 sample of that layer,
    4 * 2 = 8 samples of audio, early.

    Args:
        model: "44khz" (9 codebooks), "24khz" (32) or "16khz" (12), each of 1024 entries.
        weights: a checkpoint that the package saved or published, which may have other widths and
            another number of codebooks; None: the published one; "random": `random_network`.
        beam_width: 1: the package's own greedy search; more: our beam search over the same
            codebooks, with a smaller error (see `ResidualVectorQuantizer.encode`).

    Attributes:
        network: the package's model, with weight norm folded into the weights.

    Raises:
        WeightsMissing: if the weights cannot be found or downloaded.
        ValueError: if there is no such model, the weights are of another, or `beam_width` is
            below 1.
    """

    hop_length: int
    encode_context: int
    decode_context: int

    def __init__(
        self, model: str = "44khz", weights: str | Path | None = None, beam_width: int = 1
    ) -> None:
        super().__init__()
        if model not in _MODELS:
            raise unknown("DAC model", model, _MODELS)
        self.beam_width = check_beam(beam_width)
        self.name = f"dac_{model}"
        if weights == "random":
            network = random_network(model)
        else:
            network = read_network(locate(self.name, weights), model)
        self.digest = digest_of(network.state_dict())  # folding rounds differently per machine
        fold_weight_norm(network)
        self.network = network.eval()
        published = _MODELS[model]
        self.sample_rate, self.hop_length = published.sample_rate, published.hop_length
        self.dim: int = network.latent_dim
        self.frame_rate = self.sample_rate / self.hop_length
        self.frame_rates = (self.frame_rate,) * network.n_codebooks
        self.codebook_sizes = (network.codebook_size,) * network.n_codebooks
        self.delay_samples = -published.lead
        first, last = seen(network.encoder, 0, 0)
        self.encode_context = max(-(first // self.hop_length), last // self.hop_length)
        start = self.delay_samples  # index of a frame's audio in the decoder's output
        first, last = seen(network.decoder, start, start + self.hop_length - 1)
        self.decode_context = max(-first, last)

    @property
    def rvq(self) -> ResidualVectorQuantizer:
        """The codebooks as a `ResidualVectorQuantizer`."""
        return self._converted(ResidualVectorQuantizer.from_dac, self.network)

    def _analyse(self, wav: Tensor) -> Tensor:
        z: Tensor = self.network.encoder(self.network.preprocess(wav, self.sample_rate))
        return z

    def _quantize(self, z: Tensor, depth: int) -> Tensor:
        if self.beam_width > 1:
            return super()._quantize(z, depth)
        codes: Tensor = self.network.quantizer(z, depth)[1]
        return codes

    def _dequantize(self, codes: Tensor) -> Tensor:
        z: Tensor = self.network.quantizer.from_codes(codes)[0]
        return z

    def _synthesise(self, z: Tensor) -> Tensor:
        late = nn.functional.pad(self.network.decode(z), (-self.delay_samples, 0))
        return fit_length(late, z.shape[-1] * self.hop_length)
