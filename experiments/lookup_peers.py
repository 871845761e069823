"""The contestants of `bench_lookup`: our backends, the searches of other packages, and `sgemm`.

Before timing, each contestant receives the same vectors and codebooks in its preferred layout and
builds its model. The timed part is the search for the codes of all levels and, for our backends,
also the preparation of the codebooks, which callers with external codebooks pay for.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralcodec.core import torchaudio_guard
from neuralcodec.quantize.lookup import Books, Metric, search
from neuralcodec.quantize.lookup.dispatch import choose

_SAMPLE = 512  # vectors from which the residual variance of a level is estimated

Shape = tuple[int, int, int]
"""D, V, K: dimension of a vector, entries per codebook, number of codebooks."""


@dataclass(frozen=True)
class Case:
    """The input of a search: vectors `[N, D]` and codebooks `[K, V, D]`, float32, on one device."""

    vectors: Tensor
    codebooks: Tensor

    def first(self, count: int) -> "Case":
        """Return the case with only its first `count` vectors."""
        return Case(self.vectors[:count], self.codebooks)

    @property
    def operations(self) -> float:
        """Number of floating-point operations of the inner products, 2 * N * D * V * K."""
        return 2.0 * self.vectors.numel() * self.codebooks.shape[0] * self.codebooks.shape[1]


@dataclass(frozen=True)
class Ready:
    """A contestant, prepared for a case.

    Attributes:
        run: the function to time.
        codes: converts the result of `run` to codes `[N, K]` int64, for the comparison.
    """

    run: Callable[[], Any]
    codes: Callable[[Any], Tensor]


@dataclass(frozen=True)
class Contestant:
    """A search method.

    Attributes:
        name: name in the tables.
        load: prepares it for a case.
        metric: metric of the search; None if it does not return codes.
        package: package that must be installed.
        matrices: approximate number of `[N, V]` matrices that it holds at a time.
        devices: devices that it runs on.
    """

    name: str
    load: Callable[[Case], Ready]
    metric: Metric | None = "euclidean"
    package: str = "torch"
    matrices: int = 0
    devices: tuple[str, ...] = ("cpu", "cuda")

    @property
    def installed(self) -> bool:
        """Whether its package is installed."""
        return importlib.util.find_spec(self.package) is not None


def library(name: str) -> Any:
    """Import a package that only benchmarks use and that the type checker does not know."""
    return importlib.import_module(name)


def gaussian_case(shape: Shape, count: int, *, device: str = "cpu") -> Case:
    """Return random vectors and codebooks such that every level has a residual to quantize.

    The codebooks are those of Shannon's random coding: Gaussian entries with 1 - 4^-R of the
    residual variance, at a rate of R = log2(V) / D bits per dimension.
    """
    dim, size, levels = shape
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(_SAMPLE, dim, generator=generator)
    codebooks = torch.empty(levels, size, dim)
    for book in codebooks:
        scale = float(residual.square().mean() * (1 - size ** (-2 / dim))) ** 0.5
        book.normal_(0, scale, generator=generator)
        residual = residual - book[torch.cdist(residual, book).argmin(dim=1)]
    vectors = torch.empty(count, dim).normal_(generator=generator)
    return Case(vectors.to(device), codebooks.to(device))


def ours(metric: Metric = "euclidean", backend: str = "auto") -> Callable[[Case], Ready]:
    """Return the loader of our search with a metric and a backend."""

    def load(case: Case) -> Ready:
        vectors = case.vectors[None]

        def run() -> Tensor:
            return search(vectors, Books.of(case.codebooks, metric=metric), backend=backend).codes

        return Ready(run, lambda codes: codes[0])

    return load


def _faiss_flat(case: Case) -> Ready:
    faiss = library("faiss")
    dim = case.codebooks.shape[2]
    books, vectors = case.codebooks.numpy(), case.vectors.numpy()
    indexes = [faiss.IndexFlatL2(dim) for _ in books]
    for index, book in zip(indexes, books, strict=True):
        index.add(book)

    def run() -> Any:
        residual, codes = vectors, []
        for index, book in zip(indexes, books, strict=True):
            codes.append(index.search(residual, 1)[1][:, 0])
            residual = residual - book[codes[-1]]
        return np.stack(codes)

    return Ready(run, lambda codes: torch.from_numpy(codes.T))


def faiss_quantizer(codebooks: Tensor, *, beam_width: int = 1) -> Any:
    """Return FAISS's ResidualQuantizer with codebooks `[K, V, D]`; V must be a power of two."""
    faiss = library("faiss")
    levels, size, dim = codebooks.shape
    quantizer = faiss.ResidualQuantizer(dim, levels, size.bit_length() - 1)
    faiss.copy_array_to_vector(codebooks.numpy().ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    quantizer.max_beam_size = beam_width
    return quantizer


def unpacked(quantizer: Any, packed: Any) -> Tensor:
    """Convert FAISS's packed codes to `[N, K]` int64."""
    faiss = library("faiss")
    bits = faiss.vector_to_array(quantizer.nbits)
    levels, count = len(bits), len(packed)
    codes = faiss.unpack_bitstrings(packed, levels, int(bits[0]))
    return torch.from_numpy(np.asarray(codes, dtype=np.int64).reshape(count, levels))


def _faiss_residual(case: Case) -> Ready:
    quantizer = faiss_quantizer(case.codebooks)
    vectors = case.vectors.numpy()
    return Ready(lambda: quantizer.compute_codes(vectors), lambda codes: unpacked(quantizer, codes))


def _vector_quantize_pytorch(case: Case) -> Ready:
    levels, size, dim = case.codebooks.shape
    model = library("vector_quantize_pytorch").ResidualVQ(
        dim=dim, codebook_size=size, num_quantizers=levels
    )
    model = model.to(case.vectors.device).eval()
    for layer, book in zip(model.layers, case.codebooks, strict=True):
        layer._codebook.embed.data.copy_(book[None])
    vectors = case.vectors[None]
    return Ready(lambda: model(vectors)[1], lambda codes: codes[0])


def _encodec(case: Case) -> Ready:
    torchaudio_guard.load()
    package = library("encodec.quantization")
    levels, size, dim = case.codebooks.shape
    model = package.ResidualVectorQuantizer(dimension=dim, n_q=levels, bins=size, kmeans_init=False)
    model = model.to(case.vectors.device).eval()
    for layer, book in zip(model.vq.layers, case.codebooks, strict=True):
        layer._codebook.embed.copy_(book)
    vectors = case.vectors.T[None].contiguous()
    return Ready(lambda: model.vq.encode(vectors), lambda codes: codes[:, 0].T)


def _dac(case: Case) -> Ready:
    """Prepare DAC's lookup alone: its projections are replaced by the identity."""
    torchaudio_guard.load()
    package = library("dac.nn.quantize")
    levels, size, dim = case.codebooks.shape
    with warnings.catch_warnings():  # about projections that are replaced below
        warnings.simplefilter("ignore", FutureWarning)
        model = package.ResidualVectorQuantize(dim, levels, size, dim)
    model = model.to(case.vectors.device).eval()
    for layer, book in zip(model.quantizers, case.codebooks, strict=True):
        layer.in_proj = layer.out_proj = torch.nn.Identity()
        layer.codebook.weight.data.copy_(book)
    vectors = case.vectors.T[None].contiguous()
    return Ready(lambda: model(vectors)[1], lambda codes: codes[0].T)


def _naive(case: Case) -> Ready:
    def run() -> Tensor:
        residual, codes = case.vectors, []
        for book in case.codebooks:
            codes.append(torch.cdist(residual, book).argmin(dim=1))
            residual = residual - book[codes[-1]]
        return torch.stack(codes)

    return Ready(run, lambda codes: codes.T)


def _sgemm(case: Case) -> Ready:
    """Prepare the matrix products alone, into allocated memory: a lower bound of the time."""
    books = [book.T.contiguous() for book in case.codebooks]
    out = case.vectors.new_empty(len(case.vectors), case.codebooks.shape[1])

    def run() -> Tensor:
        for book in books:
            torch.mm(case.vectors, book, out=out)
        return out

    return Ready(run, lambda out: out)


FLAT, RESIDUAL, VQP, CHUNKED, NUMBA, SGEMM = (
    "FAISS IndexFlatL2",
    "FAISS ResidualQuantizer",
    "vector-quantize-pytorch",
    "ours, torch (chunked)",
    "ours, numba",
    "sgemm",
)

CONTESTANTS = (
    Contestant(FLAT, _faiss_flat, package="faiss", devices=("cpu",)),
    Contestant(RESIDUAL, _faiss_residual, package="faiss", matrices=1, devices=("cpu",)),
    Contestant(VQP, _vector_quantize_pytorch, package="vector_quantize_pytorch", matrices=5),
    Contestant("encodec", _encodec, package="encodec", matrices=4),
    Contestant("dac", _dac, metric="cosine", package="dac", matrices=4),
    Contestant("naive torch", _naive, matrices=2),
    Contestant(CHUNKED, ours(backend="torch")),
    Contestant(NUMBA, ours(backend="numba"), devices=("cpu",)),
    Contestant(SGEMM, _sgemm, metric=None, matrices=1),
)


def _adds(contestant: Contestant, device: str) -> bool:
    """Return whether a contestant differs from "auto" and, if it is our backend, runs here."""
    backend = {CHUNKED: "torch", NUMBA: "numba"}.get(contestant.name)
    if backend is None:
        return True
    where = torch.device(device)
    try:
        return choose(backend, where) is not choose("auto", where)
    except RuntimeError:
        return False


def contestants(device: str) -> list[Contestant]:
    """Return those that can run on a device, except for the backend that "auto" selects there."""
    return [
        contestant
        for contestant in CONTESTANTS
        if contestant.installed and device in contestant.devices and _adds(contestant, device)
    ]


def worst_excess(case: Case, codes: Tensor, metric: Metric) -> float:
    """Return the largest excess of a code's distance over that of the nearest entry, in float64.

    Each level is evaluated on the actual residual of the levels before it, so that a near tie that
    was resolved differently causes no error in later levels.

    Args:
        case: the vectors and codebooks.
        codes: `[N, K]`, of these vectors.
        metric: "euclidean": the excess of the squared distance, relative to the squared length of
            the vector. "cosine": the excess of the cosine, times the relative length of the
            residual.
    """
    residual, worst = case.vectors.double(), 0.0
    lengths = residual.norm(dim=1).clamp_min(1e-30)
    for book, code in zip(case.codebooks.double(), codes.T, strict=True):
        if metric == "euclidean":
            scores = book.square().sum(dim=1) - 2 * residual @ book.T
            scale = lengths.square()
        else:
            scores = -residual @ torch.nn.functional.normalize(book, dim=1).T
            scale = lengths
        chosen = scores.gather(1, code[:, None])[:, 0]
        worst = max(worst, float(((chosen - scores.amin(dim=1)) / scale).max()))
        residual = residual - book[code]
    return worst
