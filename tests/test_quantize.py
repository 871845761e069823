"""Laws of the residual vector quantizer."""

from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from neuralcodec.quantize import ResidualVectorQuantizer, SplitResidualVectorQuantizer
from neuralcodec.quantize.kmeans import kmeans, nearest
from neuralcodec.quantize.lookup import Books, beam_search, search
from neuralcodec.quantize.statistics import histogram


def excess(z: Tensor, codebooks: Tensor, codes: Tensor) -> Tensor:
    """How much farther than the nearest entry of each level the named one is, `[N, K]`.

    Squared distances in double precision, as parts of the squared length of the vector; a search
    in float32 may miss the nearest entry by some 1e-6.

    Args:
        z: `[N, D]`.
        codebooks: `[K, V, D]`.
        codes: `[N, K]`.
    """
    residual, lost = z.double(), []
    for codebook, code in zip(codebooks.double(), codes.T, strict=True):
        distances = (residual[:, None] - codebook).square().sum(-1)
        lost.append(distances.gather(1, code[:, None])[:, 0] - distances.amin(1))
        residual = residual - codebook[code]
    scale = z.double().square().sum(1, keepdim=True) + codebooks.double().square().sum(-1).amax()
    return torch.stack(lost, 1) / scale


def every_code(codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """All V^K codes `[V^K, K]` and what they add up to `[V^K, D]`."""
    levels, size, _ = codebooks.shape
    codes = torch.tensor(list(product(range(size), repeat=levels)))
    return codes, torch.stack([codebooks[k][codes[:, k]] for k in range(levels)]).sum(0)


@pytest.fixture
def latents(rng: Generator) -> Tensor:
    """Correlated latents `[2, 6, 400]`, so that levels have something to find."""
    return torch.einsum(
        "de,bet->bdt", torch.randn(6, 6, generator=rng), torch.randn(2, 6, 400, generator=rng)
    )


def test_codes_of_lyras_codebooks_are_those_of_brute_force(shared: Path, rng: Generator) -> None:
    path = shared / "models" / "lyra" / "codebooks.npz"
    if not path.is_file():
        pytest.skip("no Lyra codebooks")
    archive = np.load(path)
    codebooks = torch.from_numpy(archive[archive.files[0]]).float()
    assert codebooks.shape == (46, 16, 64)
    rvq = ResidualVectorQuantizer.from_codebooks(codebooks)
    z = 3 * torch.randn(3, 64, 700, generator=rng)
    codes = rvq.encode(z)
    flat = codes.mT.flatten(0, 1)  # [N, K]
    assert (excess(z.mT.flatten(0, 1), codebooks, flat) < 1e-6).all()
    summed = torch.stack([codebooks[k][flat[:, k]] for k in range(46)]).sum(0)
    torch.testing.assert_close(rvq.decode(codes).mT.flatten(0, 1), summed, atol=1e-4, rtol=0)


def test_codes_of_k_levels_are_the_prefix_of_all(latents: Tensor) -> None:
    rvq = ResidualVectorQuantizer(6, 5, 16).fit(latents)
    codes = rvq.encode(latents)
    assert codes.shape == (2, 5, 400)
    for depth in range(1, 6):
        assert (rvq.encode(latents, depth) == codes[:, :depth]).all()


@settings(max_examples=25, deadline=None)
@given(
    levels=st.integers(1, 3),
    size=st.integers(1, 5),
    dim=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_a_wide_beam_finds_the_best_code_there_is(
    levels: int, size: int, dim: int, seed: int
) -> None:
    rng = Generator().manual_seed(seed)
    codebooks = torch.randn(levels, size, dim, generator=rng)
    z = torch.randn(1, dim, 7, generator=rng)
    rvq = ResidualVectorQuantizer.from_codebooks(codebooks)
    lengths = list(range(1, levels + 1))
    found = rvq.encode(z, beam_width=max(2, size ** (levels - 1)), prefix_lengths=lengths)
    for k, codes in zip(lengths, found, strict=True):
        assert codes.shape == (1, k, 7)
        _, sums = every_code(codebooks[:k])
        least = torch.cdist(z[0].T.double(), sums.double()).square().amin(1)
        error = (z - rvq.decode(codes)).double().square().sum(1)[0]
        assert (error <= least + 1e-5 * (1 + least)).all()


def test_a_wider_beam_has_less_error_and_width_one_is_greedy(latents: Tensor) -> None:
    rvq = ResidualVectorQuantizer(6, 5, 8).fit(latents)

    def error(codes: Tensor) -> float:
        return float((latents - rvq.decode(codes)).square().mean())

    errors = [error(rvq.encode(latents, beam_width=width)) for width in (1, 2, 4, 16)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9 * errors[0]
    greedy = rvq.encode(latents)
    for k, codes in zip((2, 5), rvq.encode(latents, prefix_lengths=[2, 5]), strict=True):
        assert torch.equal(codes, greedy[:, :k])


def test_beam_codes_for_a_length_beat_greedy_ones_and_cut_beam_codes(latents: Tensor) -> None:
    rvq = ResidualVectorQuantizer(6, 6, 8).fit(latents)
    two, six = rvq.encode(latents, beam_width=16, prefix_lengths=[2, 6])
    assert torch.equal(six, rvq.encode(latents, beam_width=16))
    assert torch.equal(two, rvq.encode(latents, 2, beam_width=16))

    def error(codes: Tensor) -> float:
        return float((latents - rvq.decode(codes)).square().mean())

    assert error(two) < error(rvq.encode(latents, 2)) < error(six[:, :2])


@pytest.mark.parametrize("projection", ["level", "shared"])
def test_beam_behind_projections_minimizes_what_it_says(
    projection: Literal["level", "shared"], rng: Generator
) -> None:
    z = torch.randn(2, 6, 60, generator=rng)
    rvq = ResidualVectorQuantizer(6, 3, 4, codebook_dim=2, projection=projection).fit(z)
    codes = rvq.encode(z, beam_width=16)
    books, target = rvq.tables(), z.mT.flatten(0, 1)
    if projection == "shared":
        assert rvq.project_in is not None
        books, target = rvq.codebooks, rvq.project_in(target)
    every, sums = every_code(books.detach())
    distances = torch.cdist(target.detach().double(), sums.double())
    place = (codes.mT.flatten(0, 1)[:, None] == every).all(-1).int().argmax(1)
    assert torch.allclose(distances.gather(1, place[:, None])[:, 0], distances.amin(1), atol=1e-5)


def test_error_falls_with_every_level(latents: Tensor) -> None:
    rvq = ResidualVectorQuantizer(6, 6, 16).fit(latents)
    codes = rvq.encode(latents)
    errors = [float((latents - rvq.decode(codes[:, :k])).square().mean()) for k in range(1, 7)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * float(latents.var())


def test_codebooks_are_centroids_and_better_than_random_ones(
    latents: Tensor, rng: Generator
) -> None:
    vectors = latents.transpose(1, 2).reshape(-1, 6)
    fitted = kmeans(vectors, 16, iterations=30, generator=rng)
    codes = nearest(vectors, fitted)[0]
    centroids = torch.stack([vectors[codes == k].mean(0) for k in range(16)])
    assert torch.allclose(fitted, centroids, atol=0.15)
    chosen = vectors[torch.randperm(800, generator=rng)[:16]]
    error = (vectors - fitted[codes]).square().sum()
    assert error < 0.9 * (vectors - chosen[nearest(vectors, chosen)[0]]).square().sum()


def test_kmeans_never_gets_worse(latents: Tensor) -> None:
    vectors = latents.transpose(1, 2).reshape(-1, 6)
    errors = []
    for iterations in range(1, 12):
        book = kmeans(vectors, 24, iterations=iterations, generator=Generator().manual_seed(3))
        errors.append(float((vectors - book[nearest(vectors, book)[0]]).square().sum()))
    assert all(later <= before * (1 + 1e-6) for before, later in pairwise(errors))


def test_kmeans_leaves_no_entry_empty(rng: Generator) -> None:
    clusters = torch.randn(4, 3, generator=rng).repeat_interleave(50, 0)  # four points, 50 times
    spread = torch.cat([clusters, 10 + torch.randn(40, 3, generator=rng)])
    book = kmeans(spread, 32, iterations=10, generator=rng)
    assert torch.isfinite(book).all()
    used = set(nearest(spread, book)[0].tolist())
    assert len(used) >= 30  # repeated points can hold at most one entry each
    assert torch.isfinite(kmeans(clusters, 8, iterations=3, generator=rng)).all()


def test_as_many_entries_as_vectors_code_exactly(rng: Generator) -> None:
    z = torch.randn(1, 4, 20, generator=rng)
    rvq = ResidualVectorQuantizer(4, 1, 20).fit(z, iterations=20)
    assert float((rvq.decode(rvq.encode(z)) - z).square().mean()) < 0.05 * float(z.var())


def test_levels_may_have_sizes_of_their_own(latents: Tensor) -> None:
    sizes = (16, 4, 1, 9)
    rvq = ResidualVectorQuantizer(6, 4, sizes, frame_rate=50.0).fit(latents).eval()
    codes = rvq.encode(latents)
    assert codes.amax((0, 2)).lt(torch.tensor(sizes)).all()
    assert [len(torch.unique(codes[:, k])) for k in range(4)] == [16, 4, 1, 9]
    assert not rvq.codebooks[1, 4:].any()
    assert float((latents - rvq.decode(codes)).square().mean()) < 0.2 * float(latents.var())
    again = ResidualVectorQuantizer.from_codebooks(rvq.codebooks, sizes=sizes)
    assert torch.equal(again.encode(latents), codes)
    with pytest.raises(ValueError, match=r"0..3, got 0..4"):
        rvq.decode(torch.tensor([[[0, 0], [0, 4]]]))


def test_cosine_takes_the_entry_of_least_angle_at_its_own_length(rng: Generator) -> None:
    books = torch.randn(2, 7, 5, generator=rng)
    rvq = ResidualVectorQuantizer.from_codebooks(books, metric="cosine")
    z = torch.randn(1, 5, 40, generator=rng)
    residual = z[0].T
    for k, code in enumerate(rvq.encode(z)[0]):
        cosine = torch.cosine_similarity(residual[:, None], books[k], dim=2)
        assert torch.allclose(cosine.gather(1, code[:, None])[:, 0], cosine.amax(1), atol=1e-6)
        residual = residual - books[k][code]
    assert torch.allclose(rvq.decode(rvq.encode(z))[0].T, z[0].T - residual, atol=1e-5)


def test_tables_are_what_each_code_adds(rng: Generator) -> None:
    projections: tuple[Literal["level", "shared"], ...] = ("level", "shared")
    for projection in projections:
        rvq = ResidualVectorQuantizer(6, 3, (5, 2, 4), codebook_dim=2, projection=projection)
        rvq.fit(torch.randn(1, 6, 90, generator=rng))
        assert rvq.project_out is not None
        for k in (1, 2, 3):
            codes = torch.tensor([[[3, 0], [0, 1], [2, 3]]])[:, :k]
            entries = [rvq.codebooks[level][codes[0, level]] for level in range(k)]
            if projection == "shared":
                expected = rvq.project_out(torch.stack(entries).sum(0))
            else:
                expected = sum(rvq.project_out(entry, i) for i, entry in enumerate(entries))
            assert torch.allclose(rvq.decode(codes)[0].T, expected, atol=1e-6)


def test_batches_and_chunks_change_nothing(latents: Tensor) -> None:
    rvq = ResidualVectorQuantizer(6, 3, 16).fit(latents)
    codes = rvq.encode(latents)
    single = torch.cat([rvq.encode(item[None]) for item in latents])
    chunks = torch.cat([rvq.encode(latents[..., :150]), rvq.encode(latents[..., 150:])], dim=-1)
    assert torch.equal(codes, single)
    assert torch.equal(codes, chunks)
    strided = latents.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(codes, rvq.encode(strided))


def test_no_frames_give_no_codes(latents: Tensor) -> None:
    rvq = ResidualVectorQuantizer(6, 3, 16).fit(latents)
    codes = rvq.encode(torch.zeros(2, 6, 0))
    assert codes.shape == (2, 3, 0)
    assert rvq.decode(codes).shape == (2, 6, 0)


def test_state_dict_round_trip(latents: Tensor, tmp_path: Path) -> None:
    rvq = ResidualVectorQuantizer(6, 3, 16).fit(latents)
    torch.save(rvq.state_dict(), tmp_path / "rvq.pt")
    other = ResidualVectorQuantizer(6, 3, 16)
    assert not torch.equal(other.codebooks, rvq.codebooks)
    other.load_state_dict(torch.load(tmp_path / "rvq.pt", weights_only=True))
    assert torch.equal(other.encode(latents), rvq.encode(latents))


@pytest.mark.parametrize("grouped", [False, True])
def test_arrays_and_lists_are_told_to_become_tensors(latents: Tensor, grouped: bool) -> None:
    rvq: Any = ResidualVectorQuantizer(6, 3, 16).fit(latents)
    if grouped:
        rvq = SplitResidualVectorQuantizer([rvq])
    codes = rvq.encode(latents)
    books = Books.of(torch.zeros(1, 4, 6))
    for call in (
        rvq,
        rvq.fit,
        rvq.encode,
        lambda z: search(z, books),
        lambda z: beam_search(z, books, width=2, lengths=[1]),
        lambda z: Books.of(z),
    ):
        with pytest.raises(ValueError, match=r"must be a torch tensor, got a numpy array: torch"):
            call(latents.numpy())
    for call in (rvq, rvq.encode):
        with pytest.raises(ValueError, match=r"z \[B, 6, T\] must be a torch tensor, got list"):
            call(latents.tolist())
    for call in (rvq.decode, lambda codes: histogram([codes], [16] * 3)):
        with pytest.raises(ValueError, match=r"numpy array: torch\.from_numpy\(codes\)"):
            call(codes.numpy())
        with pytest.raises(ValueError, match=r"codes must be int64 \[B, K, T\], got torch.int32"):
            call(codes.int())


@pytest.mark.parametrize("number", [2.0, True, "2", None])
def test_counts_are_whole_numbers(latents: Tensor, number: Any) -> None:
    rvq: Any = ResidualVectorQuantizer(6, 3, 16).fit(latents)
    books = Books.of(torch.zeros(3, 4, 6))
    found = f"a whole number, got {number!r}"
    if number is not None:  # which means all
        with pytest.raises(ValueError, match=f"num_codebooks must be 1..3, {found}"):
            rvq.encode(latents, number)
        with pytest.raises(ValueError, match=f"num_codebooks must be 1..3, {found}"):
            rvq(latents, number)
        with pytest.raises(ValueError, match=f"refinements must be at least 0, {found}"):
            rvq.fit(latents, refinements=number)
    for name in ("dim", "num_codebooks", "codebook_size"):
        sizes: Any = {"dim": 6, "num_codebooks": 3, "codebook_size": 16, name: number}
        with pytest.raises(ValueError, match=rf"{name} must be "):
            ResidualVectorQuantizer(**sizes)
    for name in ("iterations", "beam_width"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, {found}"):
            rvq.fit(latents, **{name: number})
    with pytest.raises(ValueError, match=f"beam_width must be at least 1, {found}"):
        rvq.encode(latents, beam_width=number)
    with pytest.raises(ValueError, match=f"beam_width must be at least 1, {found}"):
        beam_search(latents.mT, books, width=number, lengths=[1])
    with pytest.raises(ValueError, match=r"prefix_lengths must be numbers in 1..3, got"):
        rvq.encode(latents, prefix_lengths=[number])


def test_numpy_counts_are_counts(latents: Tensor) -> None:
    rvq = ResidualVectorQuantizer(np.int64(6), np.int32(3), np.int64(16)).fit(latents)  # type: ignore[arg-type]
    assert torch.equal(rvq.encode(latents, np.int64(2)), rvq.encode(latents, 2))  # type: ignore[call-overload]


def test_bad_input_names_value_and_limit(latents: Tensor) -> None:
    rvq = ResidualVectorQuantizer(6, 3, 16)
    with pytest.raises(RuntimeError, match="no codebooks yet"):
        rvq.encode(latents)
    with pytest.raises(ValueError, match=r"codebook_size 16 needs .* got 10"):
        rvq.fit(latents[:1, :, :10])
    with pytest.raises(ValueError, match="NaN"):
        rvq.fit(torch.full((1, 6, 100), torch.nan))
    rvq.fit(latents)
    for depth in (0, -1, 4):
        with pytest.raises(ValueError, match=f"num_codebooks must be 1..3, got {depth}"):
            rvq.encode(latents, depth)
    with pytest.raises(ValueError, match=r"\[B, 6, T\]"):
        rvq.encode(latents[:, :5])
    with pytest.raises(ValueError, match="infinite"):
        rvq.encode(latents / 0)
    for level in range(3):
        for code, limits in ((16, r"0\.\.16"), (-1, r"-1\.\.0")):
            codes = torch.zeros(1, 3, 2, dtype=torch.int64)
            codes[0, level, 1] = code
            with pytest.raises(ValueError, match=rf"codes must lie in 0\.\.15, got {limits}"):
                rvq.decode(codes)
    with pytest.raises(ValueError, match=r"num_codebooks must be 1..3, got 4"):
        rvq.decode(torch.zeros(1, 4, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="int64"):
        rvq.decode(torch.zeros(1, 3, 5))
    for lengths in ([], [0, 2], [4]):
        with pytest.raises(ValueError, match=r"prefix_lengths must be numbers in 1..3, got"):
            rvq.encode(latents, prefix_lengths=lengths)
    with pytest.raises(ValueError, match="beam_width must be at least 1, got 0"):
        rvq.encode(latents, beam_width=0)
    with pytest.raises(ValueError, match="codebook_size must be 3 numbers"):
        ResidualVectorQuantizer(6, 3, [16, 8])
    with pytest.raises(ValueError, match=r"metric must be one of .* got 'cosin'"):
        ResidualVectorQuantizer(6, 3, 16, metric="cosin")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="codebook_size must be at least 1, got 0"):
        ResidualVectorQuantizer(6, 3, 0)
    with pytest.raises(ValueError, match=r"\[K, V, D\]"):
        ResidualVectorQuantizer.from_codebooks(torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"codebook_size must be 1..3"):
        kmeans(torch.zeros(3, 2), 4, iterations=1, generator=Generator())
