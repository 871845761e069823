"""Laws of the residual vector quantizer."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from neuralcodec.quantize import ResidualVectorQuantizer
from neuralcodec.quantize.kmeans import kmeans
from neuralcodec.quantize.lookup import nearest


def brute_force(z: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """Codes `[K, N]` of vectors `[N, D]`, by the definition, in double precision."""
    residual, codes = z.astype(np.float64), []
    for codebook in codebooks.astype(np.float64):
        distances = ((residual[:, None] - codebook[None]) ** 2).sum(-1)
        codes.append(distances.argmin(1))
        residual = residual - codebook[codes[-1]]
    return np.stack(codes)


@pytest.fixture
def latents(rng: Generator) -> Tensor:
    """Correlated latents `[2, 6, 400]`, so that levels have something to find."""
    return torch.einsum(
        "de,bet->bdt", torch.randn(6, 6, generator=rng), torch.randn(2, 6, 400, generator=rng)
    )


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 40), dim=st.integers(1, 9), size=st.integers(1, 17), seed=st.integers(0, 99)
)
def test_nearest_is_the_brute_force_nearest(n: int, dim: int, size: int, seed: int) -> None:
    rng = Generator().manual_seed(seed)
    vectors = torch.randn(n, dim, generator=rng, dtype=torch.float64)
    codebook = torch.randn(size, dim, generator=rng, dtype=torch.float64)
    expected = brute_force(vectors.numpy(), codebook.numpy()[None])[0]
    assert nearest(vectors, codebook).tolist() == expected.tolist()


def test_nearest_takes_the_lowest_of_equal_entries() -> None:
    codebook = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    vectors = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, -1.0], [0.0, 0.0]])
    assert nearest(vectors, codebook).tolist() == [0, 1, 0, 0]


def test_nearest_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch, rng: Generator) -> None:
    vectors = torch.randn(100, 5, generator=rng)
    codebook = torch.randn(7, 5, generator=rng)
    whole = nearest(vectors, codebook)
    monkeypatch.setattr("neuralcodec.quantize.lookup._WORKSPACE", 21)
    assert nearest(vectors, codebook).tolist() == whole.tolist()


def test_codes_of_lyras_codebooks_are_those_of_brute_force(shared: Path, rng: Generator) -> None:
    path = shared / "models" / "lyra" / "codebooks.npz"
    if not path.is_file():
        pytest.skip("no Lyra codebooks")
    archive = np.load(path)
    codebooks = archive[archive.files[0]]
    assert codebooks.shape == (46, 16, 64)
    rvq = ResidualVectorQuantizer.from_codebooks(codebooks)
    z = 3 * torch.randn(3, 64, 700, generator=rng)
    codes = rvq.encode(z)
    expected = brute_force(z.transpose(1, 2).reshape(-1, 64).numpy(), codebooks)
    assert (codes.transpose(0, 1).reshape(46, -1).numpy() == expected).all()
    decoded = rvq.decode(codes).transpose(1, 2).reshape(-1, 64).numpy()
    summed = sum(codebooks[k][expected[k]] for k in range(46))
    np.testing.assert_allclose(decoded, summed, atol=1e-4)


def test_codes_of_k_levels_are_the_prefix_of_all(latents: Tensor) -> None:
    rvq = ResidualVectorQuantizer(6, 5, 16).fit(latents)
    codes = rvq.encode(latents)
    assert codes.shape == (2, 5, 400)
    for depth in range(1, 6):
        assert (rvq.encode(latents, depth) == codes[:, :depth]).all()


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
    codes = nearest(vectors, fitted)
    centroids = torch.stack([vectors[codes == k].mean(0) for k in range(16)])
    assert torch.allclose(fitted, centroids, atol=0.15)
    chosen = vectors[torch.randperm(800, generator=rng)[:16]]
    error = (vectors - fitted[codes]).square().sum()
    assert error < 0.9 * (vectors - chosen[nearest(vectors, chosen)]).square().sum()


def test_kmeans_never_gets_worse(latents: Tensor) -> None:
    vectors = latents.transpose(1, 2).reshape(-1, 6)
    errors = []
    for iterations in range(1, 12):
        book = kmeans(vectors, 24, iterations=iterations, generator=Generator().manual_seed(3))
        errors.append(float((vectors - book[nearest(vectors, book)]).square().sum()))
    assert all(later <= before * (1 + 1e-6) for before, later in pairwise(errors))


def test_kmeans_leaves_no_entry_empty(rng: Generator) -> None:
    clusters = torch.randn(4, 3, generator=rng).repeat_interleave(50, 0)  # four points, 50 times
    spread = torch.cat([clusters, 10 + torch.randn(40, 3, generator=rng)])
    book = kmeans(spread, 32, iterations=10, generator=rng)
    assert torch.isfinite(book).all()
    used = set(nearest(spread, book).tolist())
    assert len(used) >= 30  # repeated points can hold at most one entry each
    assert torch.isfinite(kmeans(clusters, 8, iterations=3, generator=rng)).all()


def test_as_many_entries_as_vectors_code_exactly(rng: Generator) -> None:
    z = torch.randn(1, 4, 20, generator=rng)
    rvq = ResidualVectorQuantizer(4, 1, 20).fit(z, iterations=20)
    assert float((rvq.decode(rvq.encode(z)) - z).square().mean()) < 0.05 * float(z.var())


def test_fit_is_deterministic_and_its_levels_dont_depend_on_k(latents: Tensor) -> None:
    one = ResidualVectorQuantizer(6, 4, 8).fit(latents, seed=5)
    same = ResidualVectorQuantizer(6, 4, 8).fit(latents, seed=5)
    shallow = ResidualVectorQuantizer(6, 2, 8).fit(latents, seed=5)
    other = ResidualVectorQuantizer(6, 4, 8).fit(latents, seed=6)
    assert torch.equal(one.codebooks, same.codebooks)
    assert torch.equal(one.codebooks[:2], shallow.codebooks)
    assert not torch.equal(one.codebooks, other.codebooks)


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
    other.load_state_dict(torch.load(tmp_path / "rvq.pt", weights_only=True))
    assert torch.equal(other.encode(latents), rvq.encode(latents))


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
    with pytest.raises(ValueError, match=r"0..15, got 0..16"):
        rvq.decode(torch.tensor([[[0, 16]]]))
    with pytest.raises(ValueError, match=r"num_codebooks must be 1..3, got 4"):
        rvq.decode(torch.zeros(1, 4, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="int64"):
        rvq.decode(torch.zeros(1, 3, 5))
    with pytest.raises(ValueError, match="codebook_size must be at least 1, got 0"):
        ResidualVectorQuantizer(6, 3, 0)
    with pytest.raises(ValueError, match=r"\[K, V, D\]"):
        ResidualVectorQuantizer.from_codebooks(torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"codebook_size must be 1..3"):
        kmeans(torch.zeros(3, 2), 4, iterations=1, generator=Generator())
