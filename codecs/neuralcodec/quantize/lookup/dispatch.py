"""The interface that all lookup backends share, and the choice of a backend."""

import difflib
import importlib
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from neuralcodec.quantize.inputs import check_lengths, check_number, check_tensor
from neuralcodec.quantize.lookup.books import Books, Found
from neuralcodec.quantize.precision import full_precision

BACKENDS = ("reference", "torch", "numba", "cuda")

_KERNELS = {"cpu": "numba", "cuda": "cuda"}  # the backend with a kernel for a type of device


def _module(name: str) -> ModuleType:
    place = "cpu.numba" if name == "numba" else name
    return importlib.import_module(f"neuralcodec.quantize.lookup.{place}")


def backends() -> dict[str, str | None]:
    """Return for each backend why it cannot run here, or None if it can.

    >>> backends()["reference"] is None
    True
    """
    return {name: _module(name).unavailable() for name in BACKENDS}


def _auto(device: torch.device) -> str:
    """Return the fastest backend that runs on a device: its kernel if available, else torch."""
    kernel = _KERNELS.get(device.type, "torch")
    return kernel if _module(kernel).unavailable() is None else "torch"


def choose(backend: str, device: torch.device) -> ModuleType:
    """Return the module of a backend; "auto" selects the fastest one on `device`.

    Raises:
        ValueError: if there is no such backend, or it takes tensors of other devices.
        RuntimeError: if it cannot run here; the message gives the reason.
    """
    if backend == "auto":
        return _module(_auto(device))
    if backend not in BACKENDS:
        near = difflib.get_close_matches(backend, BACKENDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"backend must be 'auto' or one of {BACKENDS}, got {backend!r}{hint}")
    module = _module(backend)
    if (reason := module.unavailable()) is not None:
        raise RuntimeError(f"lookup backend {backend!r} can't run here: {reason}")
    only = next((kind for kind, kernel in _KERNELS.items() if kernel == backend), device.type)
    if device.type != only:
        raise ValueError(f"lookup backend {backend!r} takes {only} tensors, got one on {device}")
    return module


def _choose_beams(backend: str, device: torch.device) -> ModuleType:
    """Return the module with the beam search of a backend: its own, or else torch's."""
    module = choose(backend, device)
    return module if hasattr(module, "beam_search") else _module("torch")


def check_vectors(vectors: Tensor, books: Books) -> None:
    """Check the vectors that are passed to a backend.

    Raises:
        ValueError: if they are not float `[B, T, D]` with the D and the device of the books.
    """
    dim = books.entries.shape[2]
    check_tensor(vectors, f"vectors [B, T, {dim}]")
    if vectors.ndim != 3 or vectors.shape[2] != dim or not vectors.is_floating_point():
        raise ValueError(
            f"vectors must be float [B, T, {dim}], got {vectors.dtype} {list(vectors.shape)}"
        )
    if vectors.device != books.entries.device:
        raise ValueError(
            f"vectors are on {vectors.device}, the codebooks on {books.entries.device}"
        )


@torch.no_grad()
def search(
    vectors: Tensor,
    books: Books,
    *,
    squared_error: bool = False,
    backend: str = "auto",
) -> Found:
    """Encode vectors greedily: each level selects the entry nearest to the residual.

    Algorithm 1 of Zeghidour et al. 2021, SoundStream (arXiv:2107.03312), for all levels in one
    call. Distances are computed in float32 whatever the type of the vectors (`reference`: in
    float64). The `[N, V]` distances are never held at once, so the workspace does not grow with N.

    Args:
        vectors: `[B, T, D]`, of any float type and any strides; B and T may be 0.
        books: the codebooks, with their metric.
        squared_error: also return the squared Euclidean distance between each vector and the sum
            of its entries.
        backend: "auto", "reference", "torch" (any device), "numba" (CPU) or "cuda".

    Returns:
        Found: the codes, with ties broken towards the lowest index, and what else was asked for.

    Raises:
        ValueError: if a shape, type or device does not match, there is no such backend, or a vector
            is not finite or has a squared length above the float32 range.
        RuntimeError: if the backend cannot run here.

    >>> books = Books.of(torch.tensor([[[0.0], [4.0], [4.0]], [[0.0], [1.0], [-1.0]]]))
    >>> search(torch.tensor([[[4.9], [2.8], [0.2]]]), books).codes.tolist()
    [[[1, 1], [1, 2], [0, 0]]]
    """
    check_vectors(vectors, books)
    module = choose(backend, vectors.device)
    with full_precision(vectors):
        found: Found = module.search(vectors.detach(), books, squared_error=squared_error)
    return found


@torch.no_grad()
def beam_search(
    vectors: Tensor,
    books: Books,
    *,
    width: int,
    lengths: Sequence[int],
    backend: str = "auto",
) -> list[Tensor]:
    """Encode vectors with a beam search: extend the `width` best codes of k levels and prune again.

    The search of additive quantizers (Babenko and Lempitsky 2014; Martinez et al. 2014, "Stacked
    quantizers"), in squared Euclidean distance. It is exact once `width` is at least V^(K-1); with
    width 1 it is the greedy search.

    Args:
        vectors: `[B, T, D]`, float; B and T may be 0.
        books: the codebooks, with the Euclidean metric.
        width: number of codes kept at each level, at least 1.
        lengths: numbers of levels, each in 1..K, to return the best codes for.
        backend: as for `search`; "reference" and "cuda" use torch's beam search.

    Returns:
        For each of `lengths`, codes `[B, T, k]` int64. Ties are broken towards the lowest code of
        the first level, then of the second and so on, among the codes that the beam holds.

    Raises:
        ValueError: as `search`; also if the width, a length or the metric is not allowed.
        RuntimeError: if the backend cannot run here.
    """
    check_vectors(vectors, books)
    levels = len(books.sizes)
    check_number("beam_width", width, 1)
    lengths = check_lengths(lengths, levels)
    if books.metric != "euclidean":
        raise ValueError(f"beam search minimizes Euclidean distance, not {books.metric!r}")
    module = _choose_beams(backend, vectors.device)
    with full_precision(vectors):
        found: list[Tensor] = module.beam_search(vectors.detach(), books, width, lengths)
    return found


@torch.no_grad()
def extend_beams(residuals: Tensor, books: Books, *, width: int, backend: str = "auto") -> Tensor:
    """Extend beams by one level and return their residuals: one step of `beam_search`.

    Args:
        residuals: `[N, beams, D]`, float, the residual of each beam of a vector so far.
        books: codebook of one level, with the Euclidean metric.
        width: number of beams to keep, at least 1.
        backend: as for `beam_search`.

    Returns:
        `[N, keep, D]` float32, ordered by increasing error; keep is `width`, or the number of
        extensions if that is smaller.

    Raises:
        ValueError: as `beam_search`.
        RuntimeError: if the backend cannot run here.
    """
    check_vectors(residuals, books)
    if width < 1 or len(books.sizes) != 1 or books.metric != "euclidean":
        raise ValueError(
            f"beams need a width of at least 1 and one Euclidean level, "
            f"got {width}, {len(books.sizes)} and {books.metric!r}"
        )
    module = _choose_beams(backend, residuals.device)
    with full_precision(residuals):
        grown: Tensor = module.extend_beams(residuals.detach().float(), books, width)
    return grown
