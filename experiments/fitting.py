"""Components of `bench_fit`: fitting methods, a split by speaker, and the error measure."""

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
"""Manifest "speakers" that are groups of unnamed people, possibly including the named ones."""


@dataclass(frozen=True)
class Split:
    """Latents `[N, D]` to fit on and to score, with their speakers; no speaker is in both."""

    fit: Tensor
    score: Tensor
    fit_speakers: tuple[str, ...]
    score_speakers: tuple[str, ...]


def nmse(z: Tensor, quantized: Tensor) -> float:
    """Return the normalised mean squared error, sum |z - q|^2 / sum |z|^2, without centring z.

    >>> nmse(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 3.0]]))
    0.04
    """
    error = (z.double() - quantized.double()).square().sum()
    return float(error / z.double().square().sum())


def choose_speakers(frames: dict[str, int], wanted: int, seed: int) -> list[str]:
    """Choose speakers in random order, each if it still fits in the number of frames wanted.

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
    """Split latents by speaker, at most `fit_frames` to fit on and `score_frames` to score.

    Raises:
        ValueError: if no speaker is left to fit on or to score.
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
    """Return our quantizer with the given codebooks `[K, V, D]`."""
    return ResidualVectorQuantizer.from_codebooks(codebooks)


def quantized(rvq: ResidualVectorQuantizer, codes: Tensor) -> Tensor:
    """Decode codes `[1, K, N]` to vectors `[N, D]`."""
    return rvq.decode(codes)[0].T


def fit_ours(vectors: Tensor, num_codebooks: int, codebook_size: int) -> Tensor:
    """Fit with `ResidualVectorQuantizer.fit` and its default settings."""
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
    """Fit with the k-means initialisation of vector-quantize-pytorch, 10 iterations per level."""
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
        model(vectors[None])  # the first batch initialises the codebooks, also in evaluation mode
    books: Tensor = model.codebooks
    return books


OURS = "ours, fit"
FITS: dict[str, tuple[str, Callable[[Tensor, int, int], Tensor]]] = {
    "FAISS ResidualQuantizer": ("faiss", fit_faiss),
    "vector-quantize-pytorch": ("vector_quantize_pytorch", fit_vector_quantize_pytorch),
}
"""Other methods by name: the required package, and the function."""


@dataclass(frozen=True)
class FaissEncoder:
    """FAISS's own encoder with given codebooks, as a reference for codes and speed.

    Attributes:
        quantizer: FAISS's ResidualQuantizer.
    """

    quantizer: Any

    @classmethod
    def of(cls, codebooks: Tensor, beam_width: int, *, tables: bool = False) -> "FaissEncoder":
        """Return an encoder with codebooks of ours.

        Args:
            codebooks: `[K, V, D]`, V a power of two.
            beam_width: its `max_beam_size`.
            tables: whether to use look-up tables of inner products (`use_beam_LUT`), which are
                computed here; they are faster for vectors of many dimensions.
        """
        quantizer = faiss_quantizer(codebooks, beam_width=beam_width)
        if tables:
            quantizer.use_beam_LUT = 1
            quantizer.compute_codebook_tables()
        return cls(quantizer)

    def encode(self, vectors: Any) -> Any:
        """Return FAISS's packed codes of a NumPy array `[N, D]` float32."""
        return self.quantizer.compute_codes(vectors)

    def codes(self, packed: Any) -> Tensor:
        """Unpack codes to `[1, K, N]` int64."""
        return unpacked(self.quantizer, packed).T[None]


def truncated(codes: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Return the first levels of codes `[B, K, T]`, for each of several numbers of levels."""
    return [codes[:, :length] for length in lengths]
