"""Hold the CUDA lookup to the reference in numba's simulator: run by test_lookup_cuda.py.

The simulator is chosen by an environment variable when numba is imported, so it has a process of
its own. It runs every thread of a kernel in Python, barriers and shared memory included.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Generator, Tensor

from neuralcodec.quantize.lookup import Books, Metric, cuda, reference

RNG = Generator().manual_seed(1234)
SMALL = {True: cuda.Shape(4, 2, True), False: cuda.Shape(2, 4, False)}  # 8 threads: quick


@contextmanager
def kernel(shape: cuda.Shape, workspace: int = 1 << 25) -> Iterator[None]:
    """Let `cuda.search` use one shape, whatever it is given."""
    before = cuda.choose, cuda._WORKSPACE
    cuda.choose, cuda._WORKSPACE = lambda count, size, dim: shape, workspace
    yield
    cuda.choose, cuda._WORKSPACE = before


def check(vectors: Tensor, books: Books) -> None:
    found = cuda.search(vectors, books, squared_error=True)
    right = reference.search(vectors, books, squared_error=True)
    assert found.squared_error is not None
    assert found.codes.tolist() == right.codes.tolist(), (vectors.shape, books.entries.shape)
    torch.testing.assert_close(found.squared_error, right.squared_error)


def random(
    batch: int,
    length: int,
    dim: int,
    levels: int,
    size: int,
    metric: Metric = "euclidean",
    sizes: tuple[int, ...] | None = None,
) -> tuple[Tensor, Books]:
    codebooks = torch.randn(levels, size, dim, generator=RNG)
    vectors = 2 * torch.randn(batch, length, dim, generator=RNG)
    return vectors, Books.of(codebooks, metric=metric, sizes=sizes)


def check_sizes() -> None:
    """Blocks of 16 and 32 vectors, tiles of 32 and 16 entries: less, just as many, and more."""
    for shape in SMALL.values():
        with kernel(shape):
            check(*random(1, 1, 1, 1, 1))
            check(*random(0, 5, 3, 2, 4))
            check(*random(3, 0, 3, 2, 4))
            check(*random(1, shape.vectors, 8, 2, shape.entries))
            check(*random(3, 11, 11, 2, shape.entries + 1))
            check(*random(2, 3, 17, 2, 2 * shape.entries - 1, "cosine"))
            check(*random(1, 9, 5, 3, shape.entries + 3, sizes=(1, shape.entries + 3, 7)))


def check_shapes_in_use() -> None:
    """The kernels that run on devices, of at least 32 threads."""
    for shape in cuda.SHAPES.values():
        with kernel(shape):
            check(*random(1, 5, 3, 2, 5))


def check_ties() -> None:
    """Small whole numbers, of which scores are exact and many are equal."""
    codebooks = torch.randint(-1, 2, (2, 34, 2), generator=RNG).float()
    vectors = torch.randint(-2, 3, (1, 25, 2), generator=RNG).float()
    for shape in SMALL.values():
        with kernel(shape):
            check(vectors, Books.of(codebooks))
            check(torch.zeros(1, 3, 2), Books.of(torch.ones(1, 34, 2)))


def check_inputs() -> None:
    """Types, strides, and blocks that are cut because the workspace is small."""
    vectors, books = random(2, 21, 6, 2, 9)
    with kernel(SMALL[True]):
        for kind in (torch.float64, torch.float16, torch.bfloat16):
            check(vectors[:, :8].to(kind), books)
        check(vectors.mT.contiguous().mT, books)
        check(vectors[:, ::2], books.first(1))
        check(vectors[:1, :1].expand(2, 5, 6), books)
        only_codes = cuda.search(vectors, books)
        assert only_codes.squared_error is None
        assert only_codes.codes.equal(reference.search(vectors, books).codes)
    with kernel(SMALL[True], workspace=60):
        check(vectors, books)
    with kernel(SMALL[False], workspace=2 * 8 * 32):  # scratch for two blocks of threads
        check(*random(1, 85, 6, 2, 9))


def check_errors() -> None:
    """Numbers whose square is no float32."""
    vectors, books = random(1, 3, 2, 1, 2)
    for bad in (torch.nan, torch.inf, 2e19):
        vectors[0, 1, 1] = bad
        with pytest.raises(ValueError, match="vectors hold NaN or infinite values"):
            cuda.search(vectors, books)


if __name__ == "__main__":
    assert cuda.unavailable() is None
    check_sizes()
    check_shapes_in_use()
    check_ties()
    check_inputs()
    check_errors()
