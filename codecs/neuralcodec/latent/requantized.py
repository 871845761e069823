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
from neuralcodec.core.checks import check_cover, codes_of
from neuralcodec.core.codec import RVQ_SUFFIX, Chunkable, LatentCodec
from neuralcodec.core.codec import load as load_codec
from neuralcodec.core.files import cache_folder, write_whole
from neuralcodec.core.tokens import Tokens
from neuralcodec.data import Clip, clips
from neuralcodec.latent.retimed import Resampled, Stacked, retime
from neuralcodec.quantize import ResidualVectorQuantizer

LATENTS_PER_ENTRY = 16
"""How many latents the fitting audio should give for each entry of a codebook."""

LONGEST = 60
"""Seconds of fitting audio that go through a codec at once."""

RETIMING = ("stack", "latent_rate")
"""Settings of a requantized codec that change the frame rate of its latents."""

BEAM = "beam_width"
"""Setting of a requantized codec that its search takes, and not the codec within."""


def _check_beam(width: int) -> None:
    if width < 1:
        raise ValueError(f"beam_width must be at least 1, got {width}")


class Requantized:
    """A `Codec` made of a `LatentCodec` and a residual vector quantizer.

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
        if rvq.dim != codec.dim:
            raise ValueError(f"{codec.name!r} has latents of dim {codec.dim}, the rvq {rvq.dim}")
        _check_beam(beam_width)
        self.codec, self.rvq, self.beam_width = codec, rvq, beam_width
        self.name = codec.name + RVQ_SUFFIX
        self.sample_rate, self.channels = codec.sample_rate, codec.channels
        self.num_codebooks = rvq.num_codebooks
        self.frame_rates = (codec.frame_rate,) * rvq.num_codebooks
        self.codebook_sizes = (rvq.codebook_size,) * rvq.num_codebooks
        self.is_causal = codec.is_causal
        if isinstance(codec, Chunkable):
            self.hop_length = codec.hop_length
            self.encode_context, self.decode_context = codec.encode_context, codec.decode_context

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        """Encode `wav [B, C, T]` with the first `num_codebooks` codebooks; default all."""
        return Tokens.uniform(
            self.rvq.encode(
                self.codec.encode_latents(wav), num_codebooks, beam_width=self.beam_width
            ),
            frame_rate=self.codec.frame_rate,
            codebook_size=self.rvq.codebook_size,
            sample_rate=self.sample_rate,
            num_samples=wav.shape[-1],
        )

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode to wav `[B, C, num_samples]`; tokens may hold any prefix of the codebooks.

        Raises:
            ValueError: if the tokens are of another codec, or their frames don't cover the audio.
        """
        codes, length = codes_of(self, tokens), tokens.num_samples
        hop_length = self.sample_rate / self.codec.frame_rate
        # Resampled latents, of any rate, may end a millionth of a frame early.
        check_cover(codes.shape[-1], hop_length * (1 + 2e-6), length)
        return self.codec.decode_latents(self.rvq.decode(codes), length)


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


def latent_codec(name: str, settings: Mapping[str, Any]) -> LatentCodec:
    """Build the latent codec `name`; the settings in `RETIMING`, if any, change its frame rate.

    `BEAM` among them is left to the quantizer.

    Raises:
        ValueError: if the codec is unknown or gives no latents, or a value is out of range.
    """
    timing = {key: value for key, value in settings.items() if key in RETIMING}
    others = {key: settings[key] for key in settings.keys() - timing.keys() - {BEAM}}
    codec = load_codec(name, **others)
    if not isinstance(codec, LatentCodec):
        raise ValueError(f"codec {name!r} gives no latents, so it takes no {RVQ_SUFFIX!r}")
    return retime(codec, **timing)


def _content(codec: Any) -> str:
    """Hash what a codec has learned, so that other weights are another codec."""
    while isinstance(codec, Stacked | Resampled):
        codec = codec.codec
    digest = hashlib.sha256(getattr(codec, "weights_digest", "").encode())
    network, rvq = getattr(codec, "network", None), getattr(codec, "rvq", None)
    learned = network.state_dict() if network else {"": rvq.codebooks} if rvq else {}
    for name, value in learned.items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def fit_file(codec: LatentCodec, described: Sequence[Any]) -> str:
    """Name the file of the codebooks that a fit gives, after a hash of all that decides them.

    Args:
        codec: as it is built: what it has learned goes into the hash, and so does our version.
        described: the rest, as JSON has it: settings, audio, sizes, seed.
    """
    text = json.dumps([*described, _content(codec), __version__], sort_keys=True)
    return f"{codec.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"


def load(
    name: str,
    *,
    num_codebooks: int = 8,
    codebook_size: int = 1024,
    audio: str | Path = "starter:fit",
    seed: int = 0,
    beam_width: int = 1,
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
        **settings: those of the latent codec, and `stack` and `latent_rate` of
            `neuralcodec.latent.retimed.retime`.

    Raises:
        ValueError: if the codec is unknown or gives no latents, or a value is out of range.
    """
    _check_beam(beam_width)
    codec, found = latent_codec(name, settings), clips(audio)
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
