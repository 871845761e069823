"""Codebook lookup on NVIDIA GPUs: all levels in one launch of a `numba.cuda` kernel.

A lookup is a matrix product of which only the argmin of each row is kept, and the kernel is tiled
like a matrix product. A block of `across * down` threads processes `8 * down` vectors and iterates
over a codebook in tiles of `8 * across` entries. A thread holds the scores of 8 vectors with 8
entries in registers, so that 16 elements read from shared memory feed 64 multiply-adds. The
codebook is copied to shared memory one step (8 dimensions) of a tile at a time, double-buffered:
while one buffer is used, the next step is loaded from global memory.

A block keeps its vectors for all levels, and therefore their residuals: in shared memory up to 64
dimensions ("resident"), otherwise in scratch memory whose size does not depend on the number of
vectors, from which they pass through two more buffers like the codebook ("streamed"). There are no
atomics, so results do not depend on the order in which threads run.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# (The functions that numba compiles are typed by `signature`.)

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from neuralcodec.quantize.lookup.books import Books, Found, blocks, check_squares, empty_codes


def _numba_cuda() -> Any:
    try:
        return importlib.import_module("numba.cuda")
    except ImportError:
        return None


cuda = _numba_cuda()  # a global, because numba's simulator replaces it while a kernel runs

_SIDE = 8  # number of vectors, and of entries, whose scores a thread holds
_STEP = 8  # dimensions staged at a time
_RESIDENT = 64  # dimensions that fit in the 48 KiB of shared memory, next to the buffers
_NARROW = 16  # entries of a tile that is two threads wide
_FEW = 4096  # number of vectors up to which blocks of 64 would leave half of a large GPU idle
_WORKSPACE = 1 << 25  # elements held at a time: vectors converted to float32, or scratch
# Masks an index, to tell the compiler that it isn't negative (it would count from the end).
_NATURAL = (1 << 62) - 1


class Shape(NamedTuple):
    """A block of `across` threads over entries by `down` over vectors, residuals shared or not."""

    across: int
    down: int
    resident: bool

    @property
    def threads(self) -> int:
        """Number of threads of a block."""
        return self.across * self.down

    @property
    def vectors(self) -> int:
        """Number of vectors of a block."""
        return _SIDE * self.down

    @property
    def entries(self) -> int:
        """Number of entries of a tile."""
        return _SIDE * self.across


SHAPES = {
    "narrow": Shape(2, 16, True),
    "resident": Shape(16, 8, True),
    "resident, few": Shape(32, 4, True),
    "streamed": Shape(16, 8, False),
    "streamed, few": Shape(32, 4, False),
}


def choose(count: int, size: int, dim: int) -> Shape:
    """Return the shape for `count` vectors of `dim` dimensions and codebooks of `size` entries."""
    if size <= _NARROW and dim <= _RESIDENT:
        return SHAPES["narrow"]
    kind = "resident" if dim <= _RESIDENT else "streamed"
    return SHAPES[f"{kind}, few" if count <= _FEW else kind]


def simulated() -> bool:
    """Return whether numba simulates kernels in Python on CPU tensors (NUMBA_ENABLE_CUDASIM=1)."""
    return bool(cuda.config.ENABLE_CUDASIM)


def unavailable() -> str | None:
    """Return why this backend cannot run here, or None if it can."""
    if cuda is None or importlib.util.find_spec("numba_cuda") is None:
        return "it needs numba-cuda: pip install 'numba-cuda[cu13]'"
    if simulated():
        return None
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return None if cuda.is_available() else "numba.cuda finds no CUDA driver"


def _four_in_python(array, at):
    return array[at], array[at + 1], array[at + 2], array[at + 3]


@functools.cache
def _four() -> Callable[..., Any]:
    """Return `four(array, at)`, which reads four floats that begin at a multiple of 16 bytes.

    It compiles to one instruction. Indexing would compile to four, since the compiler cannot prove
    the alignment.
    """
    if simulated():
        return _four_in_python
    from llvmlite import ir
    from numba import types
    from numba.cuda.extending import intrinsic

    vector = ir.VectorType(ir.FloatType(), 4)

    def four(typingctx, array, at):
        def generate(context, builder, signature, args):
            data = context.make_array(array)(context, builder, args[0]).data
            place = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
            value = builder.load(place, align=16)
            lanes = [builder.extract_element(value, ir.IntType(32)(i)) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, lanes)

        return types.UniTuple(types.float32, 4)(array, types.intp), generate

    made: Callable[..., Any] = intrinsic(four)
    return made


def signature() -> tuple[Any, ...]:
    """Return the types of a kernel's arguments."""
    from numba import boolean, float32, int64

    return (
        float32[:, :, :],  # vectors [B, T, D]
        float32[:, ::1],  # table, see `_table`
        float32[:, :, ::1],  # bias [K, tiles, entries of a tile]
        float32[:, :, ::1],  # entries [K, V, D]
        int64[:, :, :],  # codes [B, T, K]
        float32[:, :],  # errors [B, T], written if `squared_error`
        float32[:, ::1],  # scratch, a row to a block
        boolean,  # squared_error
    )


def define(shape: Shape) -> Callable[..., None]:
    """Return the kernel of a shape: a Python function for `numba.cuda` to compile."""
    from numba import float32, int32

    across, down, resident = shape
    threads, width, tile_width = shape.threads, shape.vectors, shape.entries
    # A thread processes entries 4x..4x+3 of either half of a tile, and vectors 4y..4y+3 of either
    # half of the block: the elements that a warp reads at once are then in different banks.
    half, tile_half = width // 2, tile_width // 2
    # A warp is at most 8 threads across: 8 by 4 threads read fewer elements than 32 by 1.
    strip = min(across, 8)
    # Residuals are stored dimension by dimension. Shared rows are padded by 4 elements, so that 8
    # dimensions of 4 vectors, which a warp loads or updates at once, are in 32 banks.
    pitch = width + 4 if resident else width
    group = threads // 8  # vectors whose dimensions are loaded or updated at once
    batch = min(width // group, 8)
    book_size, window_size = _STEP * tile_width, _STEP * width
    book_loads, window_loads = book_size // threads, window_size // threads
    row = across + 1  # stride of the lowest scores, one per thread across; odd, for the banks
    held_room, row_room = _RESIDENT * pitch, row * width
    book_room, window_room = 2 * book_size, 2 * window_size
    aligned = None if simulated() else 16
    infinity, four = float("inf"), _four()

    def kernel(vectors, table, bias, entries, codes, errors, scratch, squared_error):
        me = cuda.threadIdx.x & (threads - 1)
        x = (me & (strip - 1)) + strip * (me // (strip * down))
        y = me // strip & (down - 1)
        length, dim = vectors.shape[1], vectors.shape[2]
        count = vectors.shape[0] * length
        levels, tiles, _ = bias.shape
        chunks = (dim + _STEP - 1) // _STEP

        def take(first, rows, held):
            # Elements beyond the last vector or dimension are zero.
            for v in range(me // 8, width, group):
                n = first + v
                known = dim if n < count else 0
                for d in range(me % 8, rows, 8):
                    held[d * pitch + v] = vectors[n // length, n % length, d] if d < known else 0.0

        def multiply(window, at, book, book_at, scores):
            a = cuda.local.array(_SIDE, float32)
            b = cuda.local.array(_SIDE, float32)
            a[0], a[1], a[2], a[3] = four(window, at)
            a[4], a[5], a[6], a[7] = four(window, at + half)
            b[0], b[1], b[2], b[3] = four(book, book_at)
            b[4], b[5], b[6], b[7] = four(book, book_at + tile_half)
            for i in range(_SIDE):
                for j in range(_SIDE):
                    scores[i, j] += a[i] * b[j]

        def multiply_step(window, at, book, book_at, scores):
            for _ in range(0, _STEP, 2):  # by two, since the compiler does not unroll this loop
                multiply(window, at, book, book_at, scores)
                multiply(window, at + pitch, book, book_at + tile_width, scores)
                at += 2 * pitch
                book_at += 2 * tile_width

        def keep_least(scores, tile, least, places):
            for i in range(_SIDE):
                slot = (i // 4 * half + 4 * y + i % 4) * row + x
                score, place = least[slot], places[slot]
                for j in range(_SIDE):
                    if scores[i, j] < score:  # ties are broken towards the first entry
                        score = scores[i, j]
                        place = tile * tile_width + j // 4 * tile_half + 4 * x + j % 4
                least[slot], places[slot] = score, place

        def settle(least, places):
            # The entries of threads are not in order, so ties need a comparison of the index.
            for v in range(me, width, threads):
                score, place = least[v * row], places[v * row]
                for slot in range(v * row + 1, v * row + across):
                    if least[slot] < score or (least[slot] == score and places[slot] < place):
                        score, place = least[slot], places[slot]
                places[v * row] = place

        def subtract(held, book, places):
            # Several vectors at a time, so that their entries are loaded concurrently.
            code = cuda.local.array(batch, int32)
            taken = cuda.local.array(batch, float32)
            for start in range(0, width, batch * group):
                v = (start + me // 8) & _NATURAL
                for i in range(batch):
                    code[i] = places[(v + i * group) * row]
                d = me % 8
                while d < dim:
                    at = (d * pitch + v) & _NATURAL
                    for i in range(batch):
                        taken[i] = book[code[i], d]
                    for i in range(batch):
                        held[at + i * group] -= taken[i]
                    d = (d + 8) & _NATURAL

        def measure(first, held):
            for v in range(me, min(width, count - first), threads):
                total = float32(0.0)
                for d in range(dim):
                    total += held[d * pitch + v] * held[d * pitch + v]
                errors[(first + v) // length, (first + v) % length] = total

        books = cuda.shared.array(book_room, float32, aligned)
        least = cuda.shared.array(row_room, float32)
        places = cuda.shared.array(row_room, int32)
        next_book = cuda.local.array(book_loads, float32)
        scores = cuda.local.array((_SIDE, _SIDE), float32)
        if resident:
            held = cuda.shared.array(held_room, float32, aligned)
        else:
            held = scratch[cuda.blockIdx.x]
            windows = cuda.shared.array(window_room, float32, aligned)
            next_window = cuda.local.array(window_loads, float32)

        for first in range(cuda.blockIdx.x * width, count, cuda.gridDim.x * width):
            take(first, chunks * _STEP, held)
            for i in range(book_loads):
                books[i * threads + me] = table[0, i * threads + me]
            cuda.syncthreads()
            step = 0  # current row of the table; its lowest bit selects the buffer
            for k in range(levels):
                if not resident:
                    for i in range(window_loads):
                        windows[(step & 1) * window_size + i * threads + me] = held[
                            i * threads + me
                        ]
                    cuda.syncthreads()
                for i in range(_SIDE):
                    slot = (i // 4 * half + 4 * y + i % 4) * row + x
                    least[slot], places[slot] = infinity, 0
                for tile in range(tiles):
                    for j in range(_SIDE):
                        for i in range(_SIDE):
                            scores[i, j] = bias[k, tile, j // 4 * tile_half + 4 * x + j % 4]
                    for chunk in range(chunks):
                        now, after = step & 1, (step + 1) & 1
                        step += 1
                        if step < table.shape[0]:
                            for i in range(book_loads):
                                next_book[i] = table[step, i * threads + me]
                        book_at = now * book_size + 4 * x
                        if resident:
                            at = chunk * _STEP * pitch + 4 * y
                            multiply_step(held, at, books, book_at, scores)
                        else:
                            at = chunk + 1 if chunk + 1 < chunks else 0
                            at = (at * window_size + me) & _NATURAL
                            for i in range(window_loads):
                                next_window[i] = held[at + i * threads]
                            at = now * window_size + 4 * y
                            multiply_step(windows, at, books, book_at, scores)
                            for i in range(window_loads):
                                windows[after * window_size + i * threads + me] = next_window[i]
                        for i in range(book_loads):
                            books[after * book_size + i * threads + me] = next_book[i]
                        cuda.syncthreads()
                    keep_least(scores, tile, least, places)
                cuda.syncthreads()
                settle(least, places)
                cuda.syncthreads()
                for v in range(me, min(width, count - first), threads):
                    codes[(first + v) // length, (first + v) % length, k] = places[v * row]
                subtract(held, entries[k], places)
                cuda.syncthreads()
            if squared_error:
                measure(first, held)
            cuda.syncthreads()

    return kernel


@functools.cache
def _compiled(shape: Shape) -> Any:
    return cuda.jit(signature())(define(shape))


def _table(books: Books, shape: Shape) -> tuple[Tensor, Tensor]:
    """Return codebooks in the order in which the kernel reads them.

    Returns:
        Table `[K * tiles * steps, 8 * entries of a tile]`: the negated targets, one step per row,
        entries contiguous, zero-padded; bias `[K, tiles, entries of a tile]`, padded with infinity.
    """
    levels, size, dim = books.targets.shape
    wide, deep = -size % shape.entries, -dim % _STEP
    targets = functional.pad(-books.targets, (0, deep, 0, wide))
    tiled = targets.view(levels, -1, shape.entries, (dim + deep) // _STEP, _STEP)
    table = tiled.permute(0, 1, 3, 4, 2).reshape(-1, _STEP * shape.entries)
    bias = functional.pad(books.bias, (0, wide), value=torch.inf)
    return table, bias.view(levels, -1, shape.entries)


def _launch(shape: Shape, grid: int, tensors: list[Tensor], squared_error: bool) -> None:
    """Start the kernel on the tensors themselves, on the current stream of their device."""
    if simulated():
        views = [cuda.devicearray.FakeCUDAArray(tensor.numpy()) for tensor in tensors]
        _compiled(shape)[grid, shape.threads](*views, squared_error)
        return
    device = tensors[0].device
    with torch.cuda.device(device), cuda.gpus[device.index], warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba warns about any grid of fewer than 128 blocks
        stream = cuda.external_stream(torch.cuda.current_stream(device).cuda_stream)
        views = [cuda.as_cuda_array(tensor, sync=False) for tensor in tensors]
        _compiled(shape)[grid, shape.threads, stream](*views, squared_error)


def search(vectors: Tensor, books: Books, *, squared_error: bool = False) -> Found:
    """Find the nearest entry of every level with the kernel: see `lookup.search`."""
    batch, length, dim = vectors.shape
    levels, size, _ = books.entries.shape
    device = vectors.device
    codes = empty_codes(vectors, levels)
    errors = torch.empty(batch, length, device=device) if squared_error else None
    shape = choose(batch * length, size, dim)
    table, bias = _table(books, shape)
    entries = books.entries.contiguous()
    held = -(-dim // _STEP) * _STEP * shape.vectors  # elements that a block keeps
    for b, t in blocks(vectors, max(1, _WORKSPACE // dim)):
        block = vectors[b, t].detach().float()
        check_squares(block.square().sum(dim=2), "vectors")
        grid = -(-block.shape[0] * block.shape[1] // shape.vectors)
        if not shape.resident:
            grid = min(grid, max(1, _WORKSPACE // held))
        scratch = torch.empty((1, 1) if shape.resident else (grid, held), device=device)
        # Errors that aren't requested aren't written: any tensor of the type will do.
        block_errors = bias[0] if errors is None else errors[b, t]
        tensors = [block, table, bias, entries, codes[b, t], block_errors, scratch]
        _launch(shape, grid, tensors, squared_error)
    return Found(codes, errors)
