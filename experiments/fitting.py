"""What `bench_fit` compares: ways to fit codebooks, a split by speakers, and the error measured."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lookup_peers import faiss_quantizer, library, unpacked
from lyra_latents import Latents
from torch import Tensor

from neuralcodec.quantize import ResidualVectorQuantizer

POOLS = ("precise", "pico_wake")
"""Manifest "speakers" that are crowds of unnamed people, who may be the named ones too."""


@dataclass(frozen=True)
class Split:
    """Latents to fit on and latents to score, `[N, D]`, and whose they are: no speaker in both."""

    fit: Tensor
    score: Tensor
    fit_speakers: tuple[str, ...]
    score_speakers: tuple[str, ...]


def nmse(z: Tensor, quantized: Tensor) -> float:
    """Normalised mean squared error, sum |z - q|^2 / sum |z|^2, the mean of z not taken out.

    >>> nmse(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 3.0]]))
    0.04
    """
    error = (z.double() - quantized.double()).square().sum()
    return float(error / z.double().square().sum())


def choose_speakers(frames: dict[str, int], wanted: int, seed: int) -> list[str]:
    """Choose speakers at random, each that still fits into the number of frames wanted.

    >>> choose_speakers({"a": 60, "b": 50, "c": 30}, 95, seed=0)
    ['a', 'c']
    """
    names = sorted(frames)
    random.Random(seed).shuffle(names)
    chosen, total = [], 0
    for name in names:
        if total + frames[name] <= wanted:
            chosen.append(name)
            total += frames[name]
    return sorted(chosen)


def split_speakers(latents: Latents, fit_frames: int, score_frames: int, seed: int = 0) -> Split:
    """Split latents by speakers: about `fit_frames` to fit on, at most `score_frames` to score.

    Raises:
        ValueError: if no speaker is left to score.
    """
    frames: dict[str, int] = {}
    for name, count in zip(latents.speakers, latents.frames, strict=True):
        if name not in POOLS:
            frames[name] = frames.get(name, 0) + count
    fit = choose_speakers(frames, fit_frames, seed)
    score = sorted(set(frames) - set(fit))
    if not fit or not score:
        raise ValueError(f"{fit_frames} frames take {len(fit)} of {len(frames)} speakers")
    rest = latents.of(score)
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))
    return Split(latents.of(fit), rest[order[:score_frames]], tuple(fit), tuple(score))


def quantizer_of(codebooks: Tensor) -> ResidualVectorQuantizer:
    """Our quantizer with given codebooks `[K, V, D]`."""
    return ResidualVectorQuantizer.from_codebooks(codebooks)


def quantized(rvq: ResidualVectorQuantizer, codes: Tensor) -> Tensor:
    """Decode `[1, K, N]` to vectors `[N, D]`."""
    return rvq.decode(codes)[0].T


def fit_ours(vectors: Tensor, num_codebooks: int, codebook_size: int) -> Tensor:
    """Fit with `ResidualVectorQuantizer.fit` at its defaults."""
    rvq = ResidualVectorQuantizer(vectors.shape[1], num_codebooks, codebook_size)
    return rvq.fit(vectors.T[None]).codebooks.detach()


def fit_faiss(vectors: Tensor, num_codebooks: int, codebook_size: int) -> Tensor:
    """Fit with FAISS's ResidualQuantizer at its defaults; `codebook_size` is a power of two."""
    faiss = library("faiss")
    dim, bits = vectors.shape[1], codebook_size.bit_length() - 1
    quantizer = faiss.ResidualQuantizer(dim, num_codebooks, bits)
    quantizer.train(vectors.numpy())
    books = faiss.vector_to_array(quantizer.codebooks)
    return torch.from_numpy(books.reshape(num_codebooks, codebook_size, dim))


def fit_vector_quantize_pytorch(vectors: Tensor, num_codebooks: int, codebook_size: int) -> Tensor:
    """Fit with the k-means start of vector-quantize-pytorch, 10 iterations a level."""
    torch.manual_seed(0)
    model = (
        library("vector_quantize_pytorch")
        .ResidualVQ(
            dim=vectors.shape[1],
            num_quantizers=num_codebooks,
            codebook_size=codebook_size,
            kmeans_init=True,
            kmeans_iters=10,
        )
        .eval()
    )
    with torch.no_grad():
        model(vectors[None])  # the first batch starts the codebooks, in evaluation mode too
    books: Tensor = model.codebooks
    return books


OURS = "ours, fit"
FITS: dict[str, tuple[str, Callable[[Tensor, int, int], Tensor]]] = {
    "FAISS ResidualQuantizer": ("faiss", fit_faiss),
    "vector-quantize-pytorch": ("vector_quantize_pytorch", fit_vector_quantize_pytorch),
}
"""Rivals by name: the package that is needed, and the fit."""


@dataclass(frozen=True)
class FaissEncoder:
    """FAISS's own encoding with given codebooks, to check and to race ours.

    Args:
        codebooks: `[K, V, D]`, V a power of two.
        beam_width: its `max_beam_size`.
        tables: use look-up tables of inner products (`use_beam_LUT`), faster for wide vectors.
    """

    quantizer: Any

    @classmethod
    def of(cls, codebooks: Tensor, beam_width: int, *, tables: bool = False) -> "FaissEncoder":
        """Make it ready; tables are computed here."""
        quantizer = faiss_quantizer(codebooks, beam_width=beam_width)
        if tables:
            quantizer.use_beam_LUT = 1
            quantizer.compute_codebook_tables()
        return cls(quantizer)

    def encode(self, vectors: Any) -> Any:
        """Give FAISS's packed codes for a NumPy array `[N, D]` float32."""
        return self.quantizer.compute_codes(vectors)

    def codes(self, packed: Any) -> Tensor:
        """Unpack codes, `[1, K, N]` int64."""
        return unpacked(self.quantizer, packed).T[None]


def truncated(codes: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Cut codes `[B, K, T]` to their first levels, for several numbers of these."""
    return [codes[:, :length] for length in lengths]
