"""SNAC at 24, 32 and 44.1 kHz, by the package `snac` (Siuzdak et al. 2024, arXiv:2410.14411).

Multi-scale: the coarser a codebook, the fewer its codes. Networks and quantizer are the package's
own, with weight norm multiplied into the weights. Beyond what the package offers there are audio of
exactly the input's length, always the same for the same codes, and prefixes of the codebooks.
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

from neuralcodec.core.audio import check_wav, fit_length
from neuralcodec.core.checks import check_cover, check_depth, check_latents, check_tokens
from neuralcodec.core.names import unknown
from neuralcodec.core.network import fold_weight_norm, load_saved, seeded
from neuralcodec.core.tokens import Tokens
from neuralcodec.weights import locate

with warnings.catch_warnings():
    # The package scripts a function on import, which torch has come to advise against.
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

They have the sizes that hubertsiuzdak/snac publishes: 19.8, 54.5 and 54.5 million parameters and
0.98, 1.9 and 2.6 kbit/s, which the package's defaults (strides 3, 3, 7, 7) don't.
"""


def _build(settings: Mapping[str, Any]) -> Any:
    """Make the package's network; torch's global random state is left alone."""
    with seeded():
        return SNAC(**settings)


def random_network(model: str) -> Any:
    """Build the published configuration with random weights and codebooks, always the same ones.

    Codes vary with the audio in every codebook; what is decoded sounds like nothing.

    Args:
        model: "24khz", "32khz" or "44khz".

    Returns:
        snac.SNAC: on the CPU, weight norm as the package has it.
    """
    network = _build(PUBLISHED[model])
    # As torch starts them, convolutions shrink a signal, and biases would be most of what is left.
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.startswith("encoder") and name.endswith("weight.original0"):
                parameter.mul_(2**0.5)
    return network


def read_network(config: Path, weights: Path, model: str) -> Any:
    """Read a model as it is published.

    Args:
        config: JSON of the settings of `snac.SNAC`.
        weights: tensors by name, as torch saves them.
        model: "24khz", "32khz" or "44khz"; widths are the file's own.

    Raises:
        ValueError: if a file is no such file, or of another sample rate, hop or strides.
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


def _seed(device: torch.device) -> None:
    """Seed the random numbers that are drawn on a device, and no others."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(0)
    else:
        torch.default_generator.manual_seed(0)


class Snac:
    """SNAC of one sample rate, a `Codec` and `LatentCodec`; mono, not causal.

    Codes are a tuple of `[B, T_k]`, coarse first: every 4th, 2nd and each frame of 512 samples at
    24 kHz; every 8th, 4th, 2nd and each of 384 at 32 and 44.1 kHz. Audio is filled up with silence
    to whole coarse codes, and at 32 and 44.1 kHz to whole windows of attention of 32 frames; the
    padding's codes are codes like others. No time shift is known.

    The decoder adds random noise to its activations. Here the numbers are drawn anew from a fixed
    seed for each clip, so that codes mean the same audio in any batch. As they hang on a clip's
    length, chunks would be given other noise than the whole: this is no `Chunkable`, and long
    audio takes memory in proportion.

    Args:
        model: "24khz" (3 codebooks, made for speech), "32khz" or "44khz" (4, made for music), each
            of 4096 entries.
        weights: a folder with `config.json` and `pytorch_model.bin`, which may have other widths;
            None: the published ones; "random": `random_network`.
        device: where to compute.

    Attributes:
        network: the package's model, weight norm folded.
        strides: frames of a code, one a codebook.

    Raises:
        WeightsMissing: if the weights are nowhere to be found.
        ValueError: if there is no such model, or the weights are of another.
    """

    channels = 1
    is_causal = False
    delay_samples = 0

    def __init__(
        self, model: str = "24khz", weights: str | Path | None = None, device: str = "cpu"
    ) -> None:
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
        fold_weight_norm(network)
        self.network = network.to(device).eval()
        self._device = torch.device(device)
        self.sample_rate: int = network.sampling_rate
        self._hop_length = int(network.hop_length)
        self._window: int = network.attn_window_size or 1
        self.strides = tuple(network.vq_strides)
        self.num_codebooks: int = network.n_codebooks
        self.frame_rate = self.sample_rate / self._hop_length
        self.frame_rates = tuple(self.frame_rate / stride for stride in self.strides)
        self.codebook_sizes: tuple[int, ...] = (network.codebook_size,) * self.num_codebooks
        self.dim: int = network.latent_dim

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        """Encode `wav [B, 1, T]` with the first, coarsest `num_codebooks`: a tuple of `[B, T_k]`.

        Raises:
            ValueError: if `wav` is of another shape or not finite, or `num_codebooks` out of range.
        """
        depth = check_depth(num_codebooks, range(1, self.num_codebooks + 1))
        check_wav(wav, channels=1)
        with torch.inference_mode():
            codes = self.network.encode(wav.to(self._device, torch.float32))
        return Tokens(
            tuple(stream.clone() for stream in codes[:depth]),
            frame_rates=self.frame_rates[:depth],
            codebook_sizes=self.codebook_sizes[:depth],
            sample_rate=self.sample_rate,
            num_samples=wav.shape[-1],
        )

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode tokens of any number of codebooks to wav `[B, 1, num_samples]`.

        Raises:
            ValueError: if the tokens are of another codec, are no whole windows of attention, or
                don't cover the audio.
        """
        check_tokens(self, tokens)
        lengths = [stream.shape[1] for stream in tokens.streams]
        frames = lengths[0] * self.strides[0]
        if lengths != [frames // stride for stride in self.strides[: len(lengths)]]:
            raise ValueError(f"{lengths} codes span different times at strides {self.strides}")
        if frames % self._window:
            raise ValueError(f"{frames} frames are no multiple of a window of {self._window}")
        check_cover(frames, self._hop_length, tokens.num_samples)
        with torch.inference_mode():
            wav = self._synthesise(self._dequantize(tokens.streams))
        return wav[..., : tokens.num_samples].clone()

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, 1, T]` into what the quantizer would get, `z [B, D, frames]`, with padding.

        Raises:
            ValueError: if `wav` is of another shape or not finite.
        """
        check_wav(wav, channels=1)
        with torch.inference_mode():
            padded = self.network.preprocess(wav.to(self._device, torch.float32))
            z: Tensor = self.network.encoder(padded)
        return z.clone()

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn latents `z [B, D, frames]` into wav `[B, 1, length]`; by default all z covers.

        What lacks to a whole window of attention is filled up with zeros.

        Raises:
            ValueError: if `z` is of another shape.
        """
        check_latents(z, self.dim)
        frames = z.shape[-1]
        whole = fit_length(z, -(-frames // self._window) * self._window)
        with torch.inference_mode():
            wav = self._synthesise(whole.to(self._device, torch.float32))
        return fit_length(wav, frames * self._hop_length if length is None else length).clone()

    def _dequantize(self, streams: Sequence[Tensor]) -> Tensor:
        """Add up what the codes of the first codebooks stand for, `[B, D, frames]`."""
        z = torch.zeros((), device=self._device)
        for level, codes in zip(self.network.quantizer.quantizers, streams, strict=False):
            entries = level.out_proj(level.decode_code(codes.to(self._device)))
            z = z + entries.repeat_interleave(level.stride, dim=-1)
        return z

    def _synthesise(self, z: Tensor) -> Tensor:
        """Turn `[B, D, frames]` into wav `[B, 1, frames * hop]`, the noise from a fixed seed."""
        devices = [self._device] if self._device.type == "cuda" else []
        clips = []
        for index in range(len(z)):
            with torch.random.fork_rng(devices=devices):
                _seed(self._device)
                clips.append(self.network.decoder(z[index : index + 1]))
        return torch.cat(clips)
