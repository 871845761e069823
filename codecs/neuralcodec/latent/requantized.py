"""Any latent codec with our residual vector quantizer in its latents: again a codec.

The networks stay as they are; only codebooks are fitted, by k-means. So codebook count, vocabulary
size and, where the codec allows it, frame rate can be swept with no training of networks.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from neuralcodec import __version__
from neuralcodec.core.audio import mix_down
from neuralcodec.core.digests import digest_of, joined
from neuralcodec.core.files import cache_folder, write_whole
from neuralcodec.core.inputs import check_beam
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.loading import find
from neuralcodec.core.loading import load as load_codec
from neuralcodec.core.registry import RVQ_SUFFIX
from neuralcodec.data import Clip, clips
from neuralcodec.latent.retimed import retime
from neuralcodec.quantize import ResidualVectorQuantizer

LATENTS_PER_ENTRY = 16
"""How many latents the fitting audio should give for each entry of a codebook."""

LONGEST = 60
"""Seconds of fitting audio that go through a codec at once."""

RETIMING = ("stack", "latent_rate")
"""Settings of a requantized codec that change the frame rate of its latents."""

BEAM = "beam_width"
"""Setting of a requantized codec that its search takes, and not the codec within."""


class Requantized(LatentCodec):
    """A latent codec with our residual vector quantizer on its latents.

    Args:
        codec: analysis and synthesis.
        rvq: quantizer of its latents.
        beam_width: of the search for codes; 1 is greedy, whose codes are nested.

    Raises:
        ValueError: if the quantizer's `dim` is not the codec's, or `beam_width` is below 1.
    """

    def __init__(
        self, codec: LatentCodec, rvq: ResidualVectorQuantizer, beam_width: int = 1
    ) -> None:
        super().__init__()
        if rvq.dim != codec.dim:
            raise ValueError(f"{codec.name!r} has latents of dim {codec.dim}, the rvq {rvq.dim}")
        self.codec, self.rvq = codec, rvq.to(codec.device)
        self.device_types = codec.device_types
        self.beam_width = check_beam(beam_width)
        self.name = codec.name + RVQ_SUFFIX
        self.sample_rate, self.channels = codec.sample_rate, codec.channels
        self.dim, self.frame_rate = codec.dim, codec.frame_rate
        self.frame_rates = (codec.frame_rate,) * rvq.num_codebooks
        self.codebook_sizes = tuple(rvq.codebook_sizes)
        self.is_causal, self.delay_samples = codec.is_causal, codec.delay_samples
        self.hop_length = codec.hop_length if codec.is_chunkable else None
        self.encode_context, self.decode_context = codec.encode_context, codec.decode_context

    @property
    def digest(self) -> str:  # type: ignore[override]  # read, never assigned
        """Of the codec and of the codebooks."""
        return joined(self.codec.digest, digest_of({"codebooks": self.rvq.codebooks}))

    def _analyse(self, wav: Tensor) -> Tensor:
        return self.codec._analyse(wav)

    def _synthesise(self, z: Tensor) -> Tensor:
        return self.codec._synthesise(z)


@torch.no_grad()
def fitting_latents(codec: LatentCodec, wavs: Sequence[Tensor], count: int) -> Tensor:
    """Collect at least `count` latents of some audio, if need be by hearing it more than once.

    A frame of audio gives other latents when it starts some samples later. Where the audio has too
    few frames it is encoded again from offsets spread evenly over a frame, which serves unseen
    audio better than more codebook entries than there is data for. Long recordings are heard in
    pieces of `LONGEST` seconds, so that memory doesn't grow with them.

    Args:
        codec: gives the latents.
        wavs: clips `[C, T]` at the codec's sample rate.
        count: latents wanted.

    Returns:
        `[1, D, N]`; N is below `count` only if every offset of a frame was used.
    """
    hop = round(codec.sample_rate / codec.frame_rate)
    wavs = [piece for wav in wavs for piece in torch.split(wav, LONGEST * codec.sample_rate, -1)]
    first = [codec.encode_latents(wav[None]) for wav in wavs]
    rounds = min(-(-count // sum(latents.shape[-1] for latents in first)), hop)
    parts = []
    for wav, latents in zip(wavs, first, strict=True):
        # What was heard again lies beside its first hearing: the fit validates on whole stretches.
        parts.append(latents)
        for step in range(1, rounds if wav.shape[-1] > hop else 1):
            parts.append(codec.encode_latents(wav[None, :, step * hop // rounds :]))
    return torch.cat(parts, dim=-1)


def fit(
    codec: LatentCodec,
    audio: Sequence[Clip],
    *,
    num_codebooks: int,
    codebook_size: int,
    seed: int = 0,
) -> Requantized:
    """Fit a quantizer on the latents that `codec` gives of some audio.

    Args:
        codec: analysis and synthesis.
        audio: clips to fit on; mixed down to mono for a codec of one channel.
        num_codebooks: K.
        codebook_size: V, entries of each codebook.
        seed: of the k-means start.

    Raises:
        ValueError: if the audio gives fewer latents than `codebook_size`, or a size is below 1.
    """
    rvq = ResidualVectorQuantizer(codec.dim, num_codebooks, codebook_size)
    wavs = [clip.read(codec.sample_rate) for clip in audio]
    wavs = [mix_down(wav).expand(codec.channels, -1) for wav in wavs]
    return Requantized(
        codec, rvq.fit(fitting_latents(codec, wavs, LATENTS_PER_ENTRY * codebook_size), seed=seed)
    )


def latent_codec(
    name: str, settings: Mapping[str, Any], device: str | torch.device = "cpu"
) -> LatentCodec:
    """Build the latent codec `name`; the settings in `RETIMING`, if any, change its frame rate.

    `BEAM` among them is left to the quantizer.

    Raises:
        ValueError: if the codec is unknown or gives no latents, or a value is out of range.
    """
    timing = {key: value for key, value in settings.items() if key in RETIMING}
    others = {key: settings[key] for key in settings.keys() - timing.keys() - {BEAM}}
    if not issubclass(find(name), LatentCodec):
        raise ValueError(f"codec {name!r} gives no latents, so it takes no {RVQ_SUFFIX!r}")
    codec = load_codec(name, device=device, **others)
    assert isinstance(codec, LatentCodec)
    return retime(codec, **timing)


def fit_file(codec: LatentCodec, described: Sequence[Any]) -> str:
    """Name the file of the codebooks that a fit gives, after a hash of all that decides them.

    Args:
        codec: as it is built: what it has learned goes into the hash, and so does our version.
        described: the rest, as JSON has it: settings, audio, sizes, seed.
    """
    text = json.dumps([*described, codec.digest, __version__], sort_keys=True)
    return f"{codec.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"


def load(
    name: str,
    *,
    num_codebooks: int = 8,
    codebook_size: int = 1024,
    audio: str | Path = "starter:fit",
    seed: int = 0,
    beam_width: int = 1,
    device: str | torch.device = "cpu",
    **settings: Any,
) -> Requantized:
    """Build the latent codec `name` and fit a quantizer on it, or find the one fitted before.

    Fitted codebooks are kept in the cache, under a hash of all that decides them: the codec's
    settings and weights, the content of the audio, and the arguments here.

    Args:
        name: of a latent codec, without "+rvq".
        num_codebooks: K.
        codebook_size: V, entries of each codebook.
        audio: to fit on: a source that `neuralcodec.data.clips` takes.
        seed: of the k-means start.
        beam_width: of the search for codes; 1 is greedy.
        device: where the codec computes, and where the quantizer is fitted.
        **settings: those of the latent codec, and `stack` and `latent_rate` of
            `neuralcodec.latent.retimed.retime`.

    Raises:
        ValueError: if the codec is unknown or gives no latents, or a value is out of range.
    """
    check_beam(beam_width)
    codec, found = latent_codec(name, settings, device), clips(audio)
    fitted_on = [clip.digest() for clip in found]
    described: list[Any] = [name, {key: str(value) for key, value in settings.items()}, fitted_on]
    described += [num_codebooks, codebook_size, seed]
    path = cache_folder() / "rvq" / fit_file(codec, described)
    if path.exists():
        codebooks = load_file(path)["codebooks"]
        return Requantized(codec, ResidualVectorQuantizer.from_codebooks(codebooks), beam_width)
    fitted = fit(codec, found, num_codebooks=num_codebooks, codebook_size=codebook_size, seed=seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save({"codebooks": fitted.rvq.codebooks}))
    return Requantized(codec, fitted.rvq, beam_width)
