"""Latent codecs with our residual vector quantizer of their latents.

The networks stay as they are; only codebooks are fitted, by k-means. So the number of codebooks,
the vocabulary size and, where the codec allows it, the frame rate can be swept without training
networks.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from neuralcodec import __version__
from neuralcodec.core.digests import digest_of, joined
from neuralcodec.core.files import cache_folder, write_whole
from neuralcodec.core.inputs import check_beam
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.loading import find
from neuralcodec.core.loading import load as load_codec
from neuralcodec.core.registry import RVQ_SUFFIX
from neuralcodec.data import Clip, clips
from neuralcodec.latent.retimed import retime
from neuralcodec.quantize import Progress, ResidualVectorQuantizer

LATENTS_PER_ENTRY = 16
"""Number of latents per codebook entry on which a quantizer is fitted, if there is the audio."""

LONGEST = 60
"""Most seconds of fitting audio that are encoded at once."""

RETIMING = ("stack", "latent_rate")
"""Settings of a requantized codec that change the frame rate of its latents."""

BEAM = "beam_width"
"""Setting of a requantized codec that its quantizer takes, not the latent codec."""


class Requantized(LatentCodec):
    """A latent codec with our residual vector quantizer on its latents.

    Args:
        codec: codec that provides analysis and synthesis.
        rvq: quantizer of its latents.
        beam_width: width of the search for codes; 1 is greedy search, whose codes are nested.

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
        """SHA-256 of the codec's digest and the codebooks, 64 hex digits."""
        return joined(self.codec.digest, digest_of({"codebooks": self.rvq.codebooks}))

    def _analyse(self, wav: Tensor) -> Tensor:
        return self.codec._analyse(wav)

    def _synthesise(self, z: Tensor) -> Tensor:
        return self.codec._synthesise(z)


@torch.no_grad()
def fitting_latents(codec: LatentCodec, wavs: Sequence[Tensor], count: int) -> Tensor:
    """Return the latents of some audio, encoded more than once where it has fewer than `count`.

    A frame that starts some samples later has other latents. Where the audio has too few frames it
    is encoded again from offsets spread evenly over a frame: codebooks fitted on these generalise
    better than those fitted on too few latents per entry. Recordings are encoded in pieces of at
    most `LONGEST` seconds, so that memory does not grow with their length.

    Args:
        codec: codec that gives the latents.
        wavs: clips `[C, T]` at the codec's sample rate.
        count: number of latents wanted.

    Returns:
        Latents `[1, D, N]`. N is about `count` or more, unless every offset within a frame was used
        or the clips are no longer than a frame; an offset may cost a clip its last frame.
    """
    hop = round(codec.sample_rate / codec.frame_rate)
    wavs = [piece for wav in wavs for piece in torch.split(wav, LONGEST * codec.sample_rate, -1)]
    first = [codec.encode_latents(wav[None]) for wav in wavs]
    rounds = min(-(-count // sum(latents.shape[-1] for latents in first)), hop)
    parts = []
    for wav, latents in zip(wavs, first, strict=True):
        # All encodings of a piece lie together, since the fit validates on contiguous stretches.
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
    progress: Callable[[Progress], None] | None = None,
) -> Requantized:
    """Fit a quantizer to the latents of some audio and return the codec with it.

    Args:
        codec: codec that provides analysis and synthesis.
        audio: clips to fit on, each mixed down to mono and repeated for every channel of the codec.
        num_codebooks: K.
        codebook_size: V, entries of each codebook.
        seed: seed of the k-means initialisation.
        progress: called after each step of the fit; see `ResidualVectorQuantizer.fit`.

    Raises:
        ValueError: if the audio gives fewer latents than `codebook_size`, or a size is below 1.
    """
    rvq = ResidualVectorQuantizer(codec.dim, num_codebooks, codebook_size)
    wavs = [clip.read(codec.sample_rate).expand(codec.channels, -1) for clip in audio]
    z = fitting_latents(codec, wavs, LATENTS_PER_ENTRY * codebook_size)
    return Requantized(codec, rvq.fit(z, seed=seed, progress=progress))


def latent_codec(
    name: str, settings: Mapping[str, Any], device: str | torch.device = "cpu"
) -> LatentCodec:
    """Build the latent codec `name`, with the frame rate that the settings in `RETIMING` give.

    The setting `BEAM` is ignored: it belongs to the quantizer. A setting "device" goes before the
    argument.

    Raises:
        ValueError: if the codec is unknown or gives no latents, or a value is out of range.
    """
    timing = {key: value for key, value in settings.items() if key in RETIMING}
    device = settings.get("device", device)
    others = {key: settings[key] for key in settings.keys() - timing.keys() - {BEAM, "device"}}
    if not issubclass(find(name), LatentCodec):
        raise ValueError(f"codec {name!r} gives no latents, so it takes no {RVQ_SUFFIX!r}")
    codec = load_codec(name, device=device, **others)
    assert isinstance(codec, LatentCodec)
    return retime(codec, **timing)


def fit_file(codec: LatentCodec, described: Sequence[Any]) -> str:
    """Return the file name of fitted codebooks, which has a hash of all that determines them.

    Args:
        codec: latent codec; its digest is hashed, and so is the version of neuralcodec.
        described: everything else that is hashed, as JSON values: settings, audio, sizes, seed.
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
    """Build the latent codec `name` with a fitted quantizer, read from the cache if it is there.

    Fitted codebooks are cached under a hash of all that determines them: the codec's settings and
    weights, the content of the audio, the arguments of this function and the version. The first
    call takes from seconds to minutes, and shows a progress bar if it runs on a terminal.

    Args:
        name: name of a latent codec, without "+rvq".
        num_codebooks: K.
        codebook_size: V, entries of each codebook.
        audio: source of the clips to fit on, as `neuralcodec.data.clips` takes it.
        seed: seed of the k-means initialisation.
        beam_width: width of the search for codes, which does not affect the fit; 1 is greedy.
        device: device on which the codec computes and the quantizer is fitted.
        **settings: settings of the latent codec, and `stack` and `latent_rate` of
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
    with tqdm(desc=f"fitting {codec.name}{RVQ_SUFFIX}", unit="step", disable=None) as bar:

        def show(done: Progress) -> None:
            bar.total = done.steps
            bar.update()

        fitted = fit(
            codec,
            found,
            num_codebooks=num_codebooks,
            codebook_size=codebook_size,
            seed=seed,
            progress=show,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save({"codebooks": fitted.rvq.codebooks}))
    return Requantized(codec, fitted.rvq, beam_width)
