"""Any latent codec with our residual vector quantizer in its latents: again a codec.

The networks stay as they are; only codebooks are fitted, by k-means. So codebook count, vocabulary
size and, where the codec allows it, frame rate can be swept with no training of networks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralcodec.audio import mix_down
from neuralcodec.codec import RVQ_SUFFIX, LatentCodec
from neuralcodec.codec import load as load_codec
from neuralcodec.data import Clip, clips
from neuralcodec.quantize import ResidualVectorQuantizer
from neuralcodec.tokens import Tokens

LATENTS_PER_ENTRY = 16
"""How many latents the fitting audio should give for each entry of a codebook."""


class Requantized:
    """A `Codec` made of a `LatentCodec` and a residual vector quantizer.

    Args:
        codec: analysis and synthesis.
        rvq: quantizer of its latents.

    Raises:
        ValueError: if the quantizer's `dim` is not the codec's.
    """

    def __init__(self, codec: LatentCodec, rvq: ResidualVectorQuantizer) -> None:
        if rvq.dim != codec.dim:
            raise ValueError(f"{codec.name!r} has latents of dim {codec.dim}, the rvq {rvq.dim}")
        self.codec, self.rvq = codec, rvq
        self.name = codec.name + RVQ_SUFFIX
        self.sample_rate, self.channels = codec.sample_rate, codec.channels
        self.num_codebooks = rvq.num_codebooks
        self.frame_rates = (codec.frame_rate,) * rvq.num_codebooks
        self.codebook_sizes = (rvq.codebook_size,) * rvq.num_codebooks
        self.is_causal = codec.is_causal

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        """Encode `wav [B, C, T]` with the first `num_codebooks` codebooks; default all."""
        return Tokens.uniform(
            self.rvq.encode(self.codec.encode_latents(wav), num_codebooks),
            frame_rate=self.codec.frame_rate,
            codebook_size=self.rvq.codebook_size,
            sample_rate=self.sample_rate,
            num_samples=wav.shape[-1],
        )

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode to wav `[B, C, num_samples]`; tokens may hold any prefix of the codebooks."""
        codes = torch.stack(tokens.streams, dim=1)
        return self.codec.decode_latents(self.rvq.decode(codes), tokens.num_samples)


def fitting_latents(codec: LatentCodec, wavs: Sequence[Tensor], count: int) -> Tensor:
    """Collect at least `count` latents of some audio, if need be by hearing it more than once.

    A frame of audio gives other latents when it starts some samples later. Where the audio has too
    few frames it is encoded again from offsets spread evenly over a frame, which serves unseen
    audio better than more codebook entries than there is data for.

    Args:
        codec: gives the latents.
        wavs: clips `[C, T]` at the codec's sample rate.
        count: latents wanted.

    Returns:
        `[1, D, N]`; N is below `count` only if every offset of a frame was used.
    """
    hop = round(codec.sample_rate / codec.frame_rate)
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
    wavs = [clip.read(codec.sample_rate)[0] for clip in audio]
    wavs = [mix_down(wav).expand(codec.channels, -1) for wav in wavs]
    return Requantized(
        codec, rvq.fit(fitting_latents(codec, wavs, LATENTS_PER_ENTRY * codebook_size), seed=seed)
    )


def load(
    name: str,
    *,
    num_codebooks: int = 8,
    codebook_size: int = 1024,
    audio: str | Path = "starter:fit",
    seed: int = 0,
    **settings: Any,
) -> Requantized:
    """Build the latent codec `name` and fit a quantizer on it.

    Args:
        name: of a latent codec, without "+rvq".
        num_codebooks: K.
        codebook_size: V, entries of each codebook.
        audio: to fit on: a source that `neuralcodec.data.clips` takes.
        seed: of the k-means start.
        **settings: those of the latent codec.

    Raises:
        ValueError: if the codec is unknown or gives no latents, or a value is out of range.
    """
    codec = load_codec(name, **settings)
    if not isinstance(codec, LatentCodec):
        raise ValueError(f"codec {name!r} gives no latents, so it takes no {RVQ_SUFFIX!r}")
    return fit(
        codec, clips(audio), num_codebooks=num_codebooks, codebook_size=codebook_size, seed=seed
    )
