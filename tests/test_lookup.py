"""Every backend of the codebook lookup against the definition."""

import itertools
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from neuralcodec.quantize import lookup
from neuralcodec.quantize.lookup import Books, Metric, beam_search, extend_beams, search
from neuralcodec.quantize.lookup import torch as torch_backend
from neuralcodec.quantize.lookup.cpu import few, packing

KERNELS = ["torch", "numba"]
RUNNABLE = ["reference", *KERNELS]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Books]:
    """Vectors `[B, T, D]` of any type and layout, and codebooks of any shape."""
    rng = Generator().manual_seed(draw(st.integers(0, 1 << 20)))
    batch, length = draw(st.integers(0, 3)), draw(st.integers(0, 70))
    dim, levels = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    size = draw(st.sampled_from([1, 2, 7, 8, 9, 16, 33, 64]))
    sizes = draw(st.lists(st.integers(1, size), min_size=levels, max_size=levels))
    order = draw(st.permutations(range(3)))
    shape = [(batch, length, dim)[axis] for axis in order]
    vectors = torch.randn(shape, generator=rng, dtype=torch.float64)
    back = [list(order).index(axis) for axis in range(3)]
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
    vectors = vectors.to(dtype).permute(back)  # strides of any order
    if draw(st.booleans()):
        vectors = vectors[:, ::2]
    scale = draw(st.sampled_from([1e-4, 1.0, 1e4]))
    codebooks = torch.randn(levels, size, dim, generator=rng) * scale
    metric: Metric = draw(st.sampled_from(["euclidean", "cosine"]))
    return vectors * scale, Books.of(codebooks, metric=metric, sizes=sizes)


def level_scores(residual: Tensor, books: Books, level: int) -> Tensor:
    """What a level minimizes, `[..., V]` in float64, infinite beyond its size.

    Half the squared distance, or the negative cosine times the residual's length.
    """
    size = books.sizes[level]
    entries = books.entries[level].double()
    if books.metric == "cosine":
        scores = -residual @ torch.nn.functional.normalize(entries, dim=1).T
    else:
        scores = (residual[..., None, :] - entries).square().sum(-1) / 2
    scores[..., size:] = torch.inf
    return scores


def check_codes(vectors: Tensor, books: Books, codes: Tensor) -> None:
    """Each code names the nearest entry to what is left over, up to float32's rounding."""
    residual = vectors.double()
    for level in range(len(books.sizes)):
        scores = level_scores(residual, books, level)
        chosen = scores.gather(-1, codes[..., level, None])[..., 0]
        entries = books.entries[level].double()
        # What float32 rounds by: the squares and products that a score is made of.
        rounding = residual.square().sum(-1) + entries.square().sum(-1).max()
        assert (chosen - scores.amin(-1) <= 3e-6 * rounding).all()
        residual = residual - entries[codes[..., level]]


@pytest.mark.parametrize("backend", RUNNABLE)
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_codes_name_the_nearest_entries(backend: str, case: tuple[Tensor, Books]) -> None:
    vectors, books = case
    found = search(vectors, books, squared_error=True, backend=backend)
    assert found.squared_error is not None
    batch, length, _ = vectors.shape
    assert found.codes.shape == (batch, length, len(books.sizes))
    assert found.codes.dtype == torch.int64
    assert found.codes.mT.is_contiguous()
    check_codes(vectors.float(), books, found.codes)
    levels = zip(books.entries, found.codes.unbind(-1), strict=True)
    decoded = torch.stack([entries[codes] for entries, codes in levels]).double().sum(0)
    size = float(books.entries.abs().max()) * len(books.sizes)
    error = (vectors.double() - decoded).square().sum(-1)
    rounding = 1e-5 * float(vectors.double().square().sum(-1).max() if error.numel() else 0)
    scale = 1e-5 * size * size * vectors.shape[2]
    torch.testing.assert_close(
        found.squared_error.double(), error, rtol=1e-3, atol=rounding + scale
    )


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_backends_agree_with_the_oracle_on_whole_numbers(
    backend: str, metric: Metric, rng: Generator
) -> None:
    # Whole numbers have exact distances, so that ties are ties in every backend.
    vectors = torch.randint(-3, 4, (2, 500, 3), generator=rng).float()
    codebooks = torch.randint(-3, 4, (3, 40, 3), generator=rng).float()
    books = Books.of(codebooks, metric=metric)
    if metric == "cosine":  # unit lengths are not exact: one nonzero number to an entry
        entries = torch.zeros(3, 6, 3)
        for k in range(3):
            entries[k, torch.arange(6), torch.arange(6) % 3] = torch.tensor([1.0, 2, 1, -1, 4, 2])
        books = Books.of(entries, metric=metric)
    expected = search(vectors, books, backend="reference")
    assert torch.equal(search(vectors, books, backend=backend).codes, expected.codes)


@pytest.mark.parametrize("backend", RUNNABLE)
def test_the_lowest_of_equal_entries_is_taken(backend: str) -> None:
    entry = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    books = Books.of(entry.repeat(30, 1)[None])  # every entry 30 times, in several groups
    vectors = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [0.0, -1.0], [0.0, 0.0], [-9.0, 0.0]]])
    assert search(vectors, books, backend=backend).codes[0, :, 0].tolist() == [0, 1, 0, 0, 3]


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_give_the_codes_of_their_float32_values(
    backend: str, dtype: torch.dtype, rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_CONVERTED", 1000)  # several parts
    vectors = torch.randn(3, 170, 12, generator=rng).to(dtype)
    books = Books.of(torch.randn(3, 20, 12, generator=rng))
    rounded = search(vectors.float(), books, squared_error=True, backend=backend)
    found = search(vectors, books, squared_error=True, backend=backend)
    assert torch.equal(found.codes, rounded.codes)
    # The reference computes the errors of float64 vectors from their float64 values.
    torch.testing.assert_close(found.squared_error, rounded.squared_error)


@pytest.mark.parametrize("backend", KERNELS)
def test_batches_and_blocks_change_nothing(
    backend: str, rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = torch.randn(4, 150, 9, generator=rng)
    books = Books.of(torch.randn(3, 50, 9, generator=rng))
    whole = search(vectors, books, backend=backend).codes
    one_by_one = [search(item[None], books, backend=backend).codes for item in vectors]
    assert torch.equal(whole, torch.cat(one_by_one))
    halves = [
        search(half, books, backend=backend).codes for half in torch.split(vectors, 77, dim=1)
    ]
    assert torch.equal(whole, torch.cat(halves, dim=1))
    monkeypatch.setitem(torch_backend._WORKSPACE, "cpu", 1000)
    assert torch.equal(whole, search(vectors, books, backend=backend).codes)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (5, 7, 3), (8, 64, 8), (33, 100, 2), (64, 16, 46), (130, 1024, 3)]
)
def test_few_vectors_have_bit_by_bit_what_they_have_among_many(
    metric: Metric, shape: tuple[int, int, int], rng: Generator
) -> None:
    dim, size, levels = shape
    sizes = [max(1, size - 3 * k) for k in range(levels)]
    books = Books.of(torch.randn(levels, size, dim, generator=rng), metric=metric, sizes=sizes)
    vectors = torch.randn(2, 40, dim, generator=rng)
    vectors[1, :8] = vectors[0, :8]  # near ties and equal vectors alike
    many = search(vectors, books, squared_error=True, backend="numba")
    assert many.squared_error is not None
    for count in (1, 2, few.FEW // 2):  # of each of two clips, so that strides matter
        for start in (0, 17, 40 - count):
            part = slice(start, start + count)
            found = search(vectors[:, part], books, squared_error=True, backend="numba")
            assert torch.equal(found.codes, many.codes[:, part])
            assert found.squared_error is not None
            assert torch.equal(found.squared_error, many.squared_error[:, part])


def test_wide_codebooks_are_searched_in_parts(rng: Generator) -> None:
    vectors = torch.randn(1, 400, 300, generator=rng)  # more numbers than the kernel caches
    books = Books.of(torch.randn(2, 600, 300, generator=rng))
    check_codes(vectors, books, search(vectors, books, backend="numba").codes)


def test_threads_change_nothing_and_may_call_at_once(rng: Generator) -> None:
    vectors = torch.randn(2, 700, 16, generator=rng)
    books = Books.of(torch.randn(4, 64, 16, generator=rng))
    expected = search(vectors, books, backend="numba").codes
    seen: list[bool] = []

    def work() -> None:
        for _ in range(10):
            seen.append(torch.equal(search(vectors, books, backend="numba").codes, expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 40
    before = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert torch.equal(search(vectors, books, backend="numba").codes, expected)
    finally:
        torch.set_num_threads(before)


def test_works_in_a_forked_process() -> None:
    code = """
import os, torch
from neuralcodec.quantize.lookup import Books, search
books, vectors = Books.of(torch.randn(2, 8, 4)), torch.randn(1, 2000, 4)
before = search(vectors, books, backend="numba").codes
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0 if torch.equal(search(vectors, books, backend="numba").codes, before) else 1)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_values_without_distances_are_refused(backend: str, value: float) -> None:
    books = Books.of(torch.ones(2, 3, 4))
    vectors = torch.zeros(2, 60, 4)
    vectors[1, 59, 2] = value
    with pytest.raises(ValueError, match="vectors hold NaN or infinite"):
        search(vectors, books, backend=backend)
    with pytest.raises(ValueError, match="vectors hold NaN or infinite"):
        search(vectors[1:, 58:], books, backend=backend)
    with pytest.raises(ValueError, match="vectors hold NaN or infinite"):
        beam_search(vectors, books, width=2, lengths=[2], backend=backend)
    with pytest.raises(ValueError, match="codebooks hold NaN or infinite"):
        Books.of(torch.full((1, 2, 3), value))


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize(
    ("dim", "size", "levels", "width"), [(4, 5, 3, 25), (2, 3, 4, 27), (7, 6, 2, 99)]
)
def test_a_beam_that_holds_everything_is_exact(
    backend: str, dim: int, size: int, levels: int, width: int, rng: Generator
) -> None:
    books = Books.of(torch.randn(levels, size, dim, generator=rng))
    vectors = torch.randn(3, 60, dim, generator=rng)
    for length in range(1, levels + 1):
        every = torch.tensor(list(itertools.product(range(size), repeat=length)))
        sums = torch.stack([books.entries[k][every[:, k]] for k in range(length)]).sum(0)
        nearest = torch.cdist(vectors.double(), sums.double()[None]).argmin(-1)
        (codes,) = beam_search(vectors, books, width=width, lengths=[length], backend=backend)
        assert torch.equal(codes, every[nearest])


def test_books_of_a_level_and_of_the_first_are_those_alone(rng: Generator) -> None:
    vectors, sizes = torch.randn(1, 50, 4, generator=rng), (9, 5, 7)
    entries = torch.randn(3, 9, 4, generator=rng)
    books = Books.of(entries, sizes=sizes)
    for k, size in enumerate(sizes):
        alone = Books.of(entries[k : k + 1, :size])
        assert torch.equal(search(vectors, books.level(k)).codes, search(vectors, alone).codes)
        assert books.level(k).sizes == (size,)
    assert torch.equal(search(vectors, books.first(2)).codes, search(vectors, books).codes[..., :2])


def beam_by_hand(vector: Tensor, books: Books, width: int) -> list[tuple[int, ...]]:
    """The best code of each number of levels: whole numbers, all extensions in a list, sorted.

    Equal errors leave the list in its order: the earlier beam first, then the lower entry.
    """
    beams: list[tuple[int, ...]] = [()]
    best = []
    for size in books.sizes:
        errors = {}
        for beam in beams:
            for entry in range(size):
                code = (*beam, entry)
                taken = torch.stack([books.entries[k, c] for k, c in enumerate(code)]).sum(0)
                errors[code] = float((vector - taken).square().sum())
        beams = sorted(errors, key=lambda code: errors[code])[:width]
        best.append(beams[0])
    return best


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("width", [2, 3, 5])
def test_of_equal_codes_a_beam_keeps_the_earlier_beam_and_the_lower_entry(
    backend: str, width: int, rng: Generator
) -> None:
    # Whole numbers have exact errors, and entries that repeat make ties in every list of beams.
    entries = torch.randint(-2, 3, (3, 40, 2), generator=rng).float()
    books = Books.of(entries, sizes=[40, 17, 33])
    vectors = torch.randint(-5, 6, (1, 30, 2), generator=rng).float()
    by_hand = [beam_by_hand(vector, books, width) for vector in vectors[0]]
    found = beam_search(vectors, books, width=width, lengths=[1, 2, 3], backend=backend)
    for level, codes in enumerate(found):
        assert [tuple(code) for code in codes[0].tolist()] == [best[level] for best in by_hand]


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("width", [1, 3, 99])
def test_beams_grow_by_their_best_extensions_the_best_first(
    backend: str, width: int, rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(torch_backend._WORKSPACE, "cpu", 1000)  # several parts
    beams = torch.randint(-5, 6, (70, 2, 3), generator=rng).float()  # whole numbers, with ties
    entries = torch.randint(-5, 6, (11, 3), generator=rng).float()
    grown = extend_beams(beams, Books.of(entries[None]), width=width, backend=backend)
    every = (beams[:, :, None] - entries).flatten(1, 2)  # the earlier beam, then the lower entry
    order = every.square().sum(2).sort(dim=1, stable=True).indices[:, :width]
    assert torch.equal(grown, every.gather(1, order[..., None].expand(-1, -1, 3)))


@pytest.mark.parametrize("backend", KERNELS)
def test_a_beam_of_one_is_greedy_and_wider_ones_are_better(backend: str, rng: Generator) -> None:
    scale = 0.7 ** torch.arange(6)[:, None, None]
    books = Books.of(torch.randn(6, 32, 8, generator=rng) * scale)
    vectors = torch.randn(2, 300, 8, generator=rng)
    greedy = search(vectors, books, backend="reference").codes
    errors = []
    for width in (1, 2, 4, 16, 64):
        (codes,) = beam_search(vectors, books, width=width, lengths=[6], backend=backend)
        if width == 1:
            assert torch.equal(codes, greedy)
        levels = zip(books.entries, codes.unbind(-1), strict=True)
        sums = torch.stack([entries[code] for entries, code in levels]).sum(0)
        errors.append(float((vectors - sums).square().sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[0]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    shape=st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(1, 20)),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    width=st.integers(1, 70),
)
def test_beams_of_both_kernels_agree(
    seed: int, shape: tuple[int, int, int], sizes: list[int], width: int
) -> None:
    rng = Generator().manual_seed(seed)
    vectors = torch.randn(shape, generator=rng)
    books = Books.of(torch.randn(len(sizes), max(sizes), shape[2], generator=rng), sizes=sizes)
    lengths = list(range(len(sizes), 0, -1))
    ours, theirs = (
        beam_search(vectors, books, width=width, lengths=lengths, backend=backend)
        for backend in KERNELS
    )
    for length, one, other in zip(lengths, ours, theirs, strict=True):
        assert one.shape == (*shape[:2], length)
        sums = [
            torch.stack([books.entries[k][codes[..., k]] for k in range(length)]).sum(0)
            for codes in (one, other)
        ]
        first, second = ((vectors - each).square().sum(-1) for each in sums)
        # Near ties may fall either way, and change what the rest of the beam holds.
        assert (first - second).abs().gt(1e-4).float().mean() <= 0.02 if first.numel() else True


def test_prefix_lengths_give_what_each_length_gives_alone(rng: Generator) -> None:
    books = Books.of(torch.randn(5, 16, 8, generator=rng))
    vectors = torch.randn(1, 200, 8, generator=rng)
    together = beam_search(vectors, books, width=8, lengths=[2, 5, 3])
    for length, codes in zip([2, 5, 3], together, strict=True):
        (alone,) = beam_search(vectors, books.first(length), width=8, lengths=[length])
        assert torch.equal(codes, alone)


def test_bad_arguments_name_value_and_limit() -> None:
    books = Books.of(torch.ones(2, 3, 4))
    vectors = torch.zeros(1, 5, 4)
    with pytest.raises(ValueError, match=r"float \[B, T, 4\].*\[1, 5, 3\]"):
        search(vectors[..., :3], books)
    with pytest.raises(ValueError, match=r"got torch\.int64"):
        search(vectors.long(), books)
    with pytest.raises(ValueError, match="did you mean 'numba'"):
        search(vectors, books, backend="numbra")
    with pytest.raises(ValueError, match="beam_width must be at least 1, got 0"):
        beam_search(vectors, books, width=0, lengths=[2])
    with pytest.raises(ValueError, match=r"prefix_lengths must be numbers in 1..2, got \[3\]"):
        beam_search(vectors, books, width=1, lengths=[3])
    with pytest.raises(ValueError, match="Euclidean distance, not 'cosine'"):
        beam_search(vectors, Books.of(torch.ones(2, 3, 4), metric="cosine"), width=1, lengths=[2])
    with pytest.raises(ValueError, match="metric must be one of"):
        Books.of(torch.ones(2, 3, 4), metric="manhattan")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"sizes must be 2 numbers in 1..3, got \(3,\)"):
        Books.of(torch.ones(2, 3, 4), sizes=[3])
    with pytest.raises(ValueError, match=r"\[K, V, D\] and not empty"):
        Books.of(torch.ones(2, 0, 4))


def test_unavailable_backends_say_why() -> None:
    why = lookup.backends()
    assert why["reference"] is None
    assert why["torch"] is None
    assert why["numba"] is None
    if why["cuda"] is not None:
        with pytest.raises(RuntimeError, match="'cuda' can't run here: "):
            search(torch.zeros(1, 5, 4), Books.of(torch.ones(2, 3, 4)), backend="cuda")
