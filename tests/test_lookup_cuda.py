"""The CUDA lookup: its kernel in numba's simulator, compiled without a device, and on a device."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from neuralcodec.quantize.lookup import Books, cuda, reference, search

needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)


@needs_numba_cuda
def test_kernel_finds_what_the_reference_finds() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", Path(__file__).with_name("cuda_simulator.py")],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def ptx(name: str, target: tuple[int, int]) -> str:
    """Compile a kernel for a compute capability; no device is needed."""
    from cuda.pathfinder import DynamicLibNotFoundError
    from numba.cuda.cudadrv.error import NvvmSupportError

    try:
        code, _ = cuda.cuda.compile(
            cuda.define(cuda.SHAPES[name]),
            cuda.signature(),
            cc=target,
            output="ptx",
            device=False,
            abi="numba",
        )
    except (DynamicLibNotFoundError, NvvmSupportError):
        pytest.skip("numba-cuda has no compiler here: pip install 'neuralcodec[cuda]'")
    return str(code)


@needs_numba_cuda
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("narrow", (8, 0)),
        ("resident", (8, 0)),
        ("streamed", (8, 0)),
        ("streamed", (9, 0)),
        pytest.param("resident, few", (8, 0), marks=pytest.mark.slow),
        pytest.param("streamed, few", (8, 0), marks=pytest.mark.slow),
    ],
)
def test_kernel_compiles_into_registers(name: str, target: tuple[int, int], tmp_path: Path) -> None:
    code = ptx(name, target)
    assert f".target sm_{target[0]}{target[1]}" in code
    assert ".local" not in code  # no array of a thread's is in memory
    # The inner loop takes two dimensions: for each, 8 vectors and 8 entries, four at a time.
    assert code.count("ld.shared.v4.f32") == 8
    assert code.count("fma.rn.f32") >= 2 * 8 * 8
    if (ptxas := shutil.which("ptxas")) is None:
        pytest.skip("compiled to PTX; ptxas, which tells the registers, is not on PATH")
    source = tmp_path / "kernel.ptx"
    # A ptxas refuses PTX of a later version than its own, though nothing in it is that new.
    source.write_text(re.sub(r"(?m)^\.version .*", ".version 8.0", code), encoding="utf-8")
    for architecture in {f"sm_{target[0]}{target[1]}", "sm_90"}:  # a later one takes it too
        told = subprocess.run(
            [ptxas, "-v", f"-arch={architecture}", source, "-o", tmp_path / "kernel.cubin"],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in told
        registers = int(re.findall(r"Used (\d+) registers", told)[0])
        shared = int(re.findall(r"(\d+) bytes smem", told)[0])
        assert shared <= 48 << 10  # what a kernel may have without asking for more
        assert registers * cuda.SHAPES[name].threads <= 1 << 15  # two blocks to a multiprocessor


def test_shapes_fit_what_they_are_for() -> None:
    assert cuda.choose(22_500, 16, 64) is cuda.SHAPES["narrow"]
    assert cuda.choose(22_500, 1024, 8) is cuda.SHAPES["resident"]
    assert cuda.choose(22_500, 16, 65) is cuda.SHAPES["streamed"]
    assert cuda.choose(1_000, 2048, 256) is cuda.SHAPES["streamed, few"]
    for shape in cuda.SHAPES.values():
        assert shape.threads % 32 == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_why() -> None:
    assert cuda.unavailable()
    with pytest.raises(RuntimeError, match=r"'cuda' can't run here: \w+"):
        search(torch.zeros(1, 1, 2), Books.of(torch.zeros(1, 1, 2)), backend="cuda")


on_device = pytest.mark.skipif(cuda.unavailable() is not None, reason=f"{cuda.unavailable()}")


def check_on_device(vectors: Tensor, books: Books) -> None:
    """Compare distances, not codes: of near ties either entry will do."""
    found = search(vectors, books, squared_error=True, backend="cuda")
    residual = vectors.double()
    for k in range(len(books.sizes)):
        one = Books.of(books.entries[k : k + 1], metric=books.metric, sizes=books.sizes[k : k + 1])
        best = reference.search(residual, one).codes[:, :, 0]
        cost = one.bias[0].double() - residual @ one.targets[0].double().T
        code = found.codes[:, :, k]
        excess = cost.gather(2, code[:, :, None]) - cost.gather(2, best[:, :, None])
        assert excess.max() <= 1e-4 * (1 + cost[cost.isfinite()].abs().max())
        residual = residual - books.entries[k].double()[code]
    torch.testing.assert_close(
        found.squared_error, residual.square().sum(2).float(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.gpu
@on_device
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    ("count", "dim", "size", "levels"),
    [(1, 1, 1, 1), (9000, 8, 1024, 4), (300, 64, 16, 46), (5000, 130, 257, 3), (100, 512, 100, 2)],
)
def test_device_finds_what_the_reference_finds(
    kind: torch.dtype, count: int, dim: int, size: int, levels: int, rng: Generator
) -> None:
    vectors = torch.randn(2, count, dim, generator=rng).to("cuda", kind)
    codebooks = torch.randn(levels, size, dim, generator=rng).cuda()
    check_on_device(vectors, Books.of(codebooks))
    check_on_device(vectors.mT.contiguous().mT, Books.of(codebooks, metric="cosine"))
    check_on_device(vectors[:, ::3], Books.of(codebooks, sizes=[1 + size // 2] * levels))


@pytest.mark.gpu
@on_device
def test_device_works_on_the_current_stream(rng: Generator) -> None:
    books = Books.of(torch.randn(2, 64, 16, generator=rng).cuda())
    source = torch.randn(1, 20_000, 16, generator=rng).cuda()
    expected = search(source, books, backend="cuda").codes
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        vectors = torch.zeros_like(source)
        # A kernel on another stream would see the zeros.
        torch.cuda._sleep(50_000_000)  # type: ignore[no-untyped-call]
        vectors.copy_(source)
        codes = search(vectors, books, backend="cuda").codes
        assert codes.tolist() == expected.tolist()


@pytest.mark.gpu
@on_device
def test_device_gives_the_same_twice_and_takes_none(rng: Generator) -> None:
    books = Books.of(torch.randn(3, 300, 96, generator=rng).cuda())
    vectors = torch.randn(3, 7_000, 96, generator=rng).cuda()
    first = search(vectors, books, squared_error=True, backend="cuda")
    again = search(vectors, books, squared_error=True, backend="cuda")
    assert first.codes.equal(again.codes)
    assert first.squared_error is not None
    assert again.squared_error is not None
    assert first.squared_error.equal(again.squared_error)
    assert search(vectors[:0], books, backend="cuda").codes.shape == (0, 7_000, 3)
    vectors[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        search(vectors, books, backend="cuda")
