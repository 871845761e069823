"""SNAC at 24, 32 and 44.1 kHz, by the package `snac` (Siuzdak et al. 2024, arXiv:2410.14411).

The quantizer is multi-scale: coarse codebooks have lower frame rates. Networks and quantizer are
the package's own, with weight norm multiplied into the weights. In addition to what the package
offers, decoding is deterministic, decoded audio has exactly the input's length, and any number of
codebooks can be used.
"""

import inspect
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralcodec.core.audio import fit_length
from neuralcodec.core.digests import digest_of
from neuralcodec.core.inputs import check_cover
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.names import unknown
from neuralcodec.core.networks import fold_weight_norm, load_saved, seeded
from neuralcodec.core.tokens import Tokens
from neuralcodec.weights import locate

with warnings.catch_warnings():
    # The package scripts a function on import, which torch has deprecated.
    warnings.filterwarnings("ignore", "", DeprecationWarning, r"torch\.jit")
    from snac import SNAC

_SPEECH: Mapping[str, Any] = {
    "sampling_rate": 24000,
    "encoder_dim": 48,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 1024,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}
_MUSIC: Mapping[str, Any] = {
    **_SPEECH,
    "sampling_rate": 32000,
    "encoder_dim": 64,
    "encoder_rates": [2, 3, 8, 8],
    "decoder_dim": 1536,
    "decoder_rates": [8, 8, 3, 2],
    "attn_window_size": 32,
    "vq_strides": [8, 4, 2, 1],
}

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "24khz": _SPEECH,
    "32khz": _MUSIC,
    "44khz": {**_MUSIC, "sampling_rate": 44100},
}
"""Settings of `snac.SNAC` in the published models.

Their sizes and rates are those that hubertsiuzdak/snac states: 19.8, 54.5 and 54.5 million
parameters and 0.98, 1.9 and 2.6 kbit/s. The package's defaults (strides 3, 3, 7, 7) differ.
"""


def _build(settings: Mapping[str, Any]) -> Any:
    """Build the package's network without changing torch's global random state."""
    with seeded():
        return SNAC(**settings)


def random_network(model: str) -> Any:
    """Build the published configuration with random weights and codebooks from a fixed seed.

    Codes depend on the audio in every codebook; decoded audio is noise.

    Args:
        model: "24khz", "32khz" or "44khz".

    Returns:
        snac.SNAC: on the CPU, with weight norm as in the package.
    """
    network = _build(PUBLISHED[model])
    # With torch's initialisation convolutions attenuate a signal until the biases dominate.
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.startswith("encoder") and name.endswith("weight.original0"):
                parameter.mul_(2**0.5)
    return network


def read_network(config: Path, weights: Path, model: str) -> Any:
    """Read a model in the format in which it is published.

    Args:
        config: JSON file of the settings of `snac.SNAC`.
        weights: file of tensors by name, as `torch.save` writes it.
        model: "24khz", "32khz" or "44khz"; widths are those of the files.

    Raises:
        ValueError: if a file is not of this format, or the sample rate, hop length or strides are
            not those of `model`.
    """
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
        state = load_saved(weights)
    except ValueError as error:
        raise ValueError(f"{config} and {weights} are no SNAC checkpoint: {error}") from error
    known = inspect.signature(SNAC).parameters
    if not isinstance(settings, dict) or not set(settings) <= set(known):
        raise ValueError(f"{config} must hold settings of SNAC, {', '.join(known)} alone")
    published = PUBLISHED[model]
    try:
        network = _build(settings)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"{config} holds settings that make no SNAC: {error}") from error
    for what, found, wanted in (
        ("sampling_rate", network.sampling_rate, published["sampling_rate"]),
        ("hop length", network.hop_length, math.prod(published["encoder_rates"])),
        ("hop length decoded", math.prod(network.decoder_rates), network.hop_length),
        ("vq_strides", network.vq_strides, published["vq_strides"]),
    ):
        if found != wanted:
            raise ValueError(f"{what} of {config} is {found}, not {wanted} as in SNAC {model}")
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{weights} doesn't fit {config}: {error}") from error
    return network


class Snac(LatentCodec):
    """SNAC at one sample rate; mono, not causal.

    Codes are a tuple of `[B, T_k]`, coarse first: at 24 kHz one code per 4, 2 and 1 frames of 512
    samples; at 32 and 44.1 kHz one per 8, 4, 2 and 1 frames of 384. Audio is padded by silence to
    whole coarse codes, and at 32 and 44.1 kHz to whole attention windows of 32 frames; the codes of
    the padding count like all others. No time shift is known.

    The decoder adds random noise to its activations. Here the noise is drawn from a fixed seed for
    each clip, so that decoding does not depend on the batch. As the noise depends on the length of
    a clip, chunks would get other noise than the whole: long audio is decoded whole, with memory in
    proportion to its length.

    Args:
        model: "24khz" (3 codebooks, for speech), "32khz" or "44khz" (4, for music), each of 4096
            entries.
        weights: a folder with `config.json` and `pytorch_model.bin`, which may have other widths;
            None: the published ones; "random": `random_network`.

    Attributes:
        network: the package's model, with weight norm folded into the weights.
        strides: frames per code, one per codebook.

    Raises:
        WeightsMissing: if the weights cannot be found or downloaded.
        ValueError: if there is no such model, or the weights are of another.
    """

    def __init__(self, model: str = "24khz", weights: str | Path | None = None) -> None:
        super().__init__()
        if model not in PUBLISHED:
            raise unknown("SNAC model", model, PUBLISHED)
        self.name = f"snac_{model}"
        if weights == "random":
            network = random_network(model)
        else:
            folder = None if weights is None else Path(weights)
            network = read_network(
                locate(f"{self.name}_config", folder and folder / "config.json"),
                locate(self.name, folder and folder / "pytorch_model.bin"),
                model,
            )
        self.digest = digest_of(network.state_dict())  # folding rounds differently per machine
        fold_weight_norm(network)
        self.network = network.eval()
        self.sample_rate: int = network.sampling_rate
        self._frame_length = int(network.hop_length)
        self._window: int = network.attn_window_size or 1
        self.strides = tuple(network.vq_strides)
        self.dim: int = network.latent_dim
        self.frame_rate = self.sample_rate / self._frame_length
        self.frame_rates = tuple(self.frame_rate / stride for stride in self.strides)
        self.codebook_sizes = (network.codebook_size,) * network.n_codebooks

    def _encode(self, wav: Tensor, depth: int) -> Tokens:
        codes = self.network.encode(wav)
        return self.tokens(tuple(codes[:depth]), wav.shape[-1])

    def _decode(self, tokens: Tokens) -> Tensor:
        lengths = [stream.shape[1] for stream in tokens.streams]
        frames = lengths[0] * self.strides[0]
        if lengths != [frames // stride for stride in self.strides[: len(lengths)]]:
            raise ValueError(f"{lengths} codes span different times at strides {self.strides}")
        if frames % self._window:
            raise ValueError(f"{frames} frames are no multiple of a window of {self._window}")
        check_cover(frames, self._frame_length, tokens.num_samples)
        return self._sound(self._add_up(tokens.streams))

    def _analyse(self, wav: Tensor) -> Tensor:
        z: Tensor = self.network.encoder(self.network.preprocess(wav))
        return z

    def _synthesise(self, z: Tensor) -> Tensor:
        frames = z.shape[-1]
        whole = fit_length(z, -(-frames // self._window) * self._window)  # attention windows
        return self._sound(whole)[..., : frames * self._frame_length]

    def _add_up(self, streams: Sequence[Tensor]) -> Tensor:
        """Return the sum `[B, D, frames]` of the codebook entries of codes `[B, T_k]`."""
        z = torch.zeros((), device=self.device)
        for level, codes in zip(self.network.quantizer.quantizers, streams, strict=False):
            entries = level.out_proj(level.decode_code(codes))
            z = z + entries.repeat_interleave(level.stride, dim=-1)
        return z

    def _sound(self, z: Tensor) -> Tensor:
        """Return wav `[B, 1, frames * hop]` of latents, with noise from a fixed seed."""
        clips = []
        for each in torch.split(z, 1):
            with seeded(z.device):
                clips.append(self.network.decoder(each))
        return torch.cat(clips)
