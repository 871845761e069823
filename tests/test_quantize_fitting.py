"""Laws of fitting without gradients: on what it wasn't fitted on, in bounded memory."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from neuralcodec.quantize import Progress, ResidualVectorQuantizer
from neuralcodec.quantize import sampling as sampling_module
from neuralcodec.quantize.fitting import _shrink, refine
from neuralcodec.quantize.kmeans import count_and_sum, kmeans, nearest
from neuralcodec.quantize.lookup import Books, beam_search
from neuralcodec.quantize.sampling import Sample, chunks


def nmse(rvq: ResidualVectorQuantizer, z: Tensor, beam_width: int = 1) -> float:
    decoded = rvq.decode(rvq.encode(z, beam_width=beam_width))
    return float((z - decoded).square().sum() / z.square().sum())


@pytest.fixture
def latents(rng: Generator) -> Tensor:
    """Latents `[1, 8, 3000]` that move slowly, as those of audio."""
    steps = torch.randn(1, 8, 3000, generator=rng)
    kernel = torch.ones(8, 1, 5) / 5**0.5
    return torch.nn.functional.conv1d(steps, kernel, padding=2, groups=8)


def test_fit_is_deterministic_and_depends_on_the_seed(latents: Tensor) -> None:
    one, same, other = (
        ResidualVectorQuantizer(8, 3, 16).fit(latents, seed=seed).codebooks for seed in (5, 5, 6)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_without_refinement_the_first_levels_dont_depend_on_k(latents: Tensor) -> None:
    deep = ResidualVectorQuantizer(8, 4, 16).fit(latents, refinements=0)
    shallow = ResidualVectorQuantizer(8, 2, 16).fit(latents, refinements=0)
    assert torch.equal(deep.codebooks[:2], shallow.codebooks)


def test_refinement_serves_what_it_saw_and_does_the_unseen_no_harm(latents: Tensor) -> None:
    seen, unseen = latents[..., :2000], latents[..., 2000:]
    plain = ResidualVectorQuantizer(8, 4, 16).fit(seen, refinements=0)
    refined = ResidualVectorQuantizer(8, 4, 16).fit(seen, refinements=3)
    assert nmse(refined, seen) < nmse(plain, seen)
    assert nmse(refined, seen, 8) < 0.98 * nmse(plain, seen, 8)
    assert nmse(refined, unseen) < 1.01 * nmse(plain, unseen)
    assert nmse(refined, unseen, 8) < 1.01 * nmse(plain, unseen, 8)


def test_refinement_gives_each_level_the_mean_of_what_the_corrected_ones_leave_over(
    rng: Generator,
) -> None:
    vectors = torch.randn(300, 4, generator=rng)
    books = torch.randn(3, 5, 4, generator=rng) * 0.5
    (codes,) = beam_search(vectors[None], Books.of(books), width=1, lengths=[3])
    expected, codes = books.double(), codes[0]
    for level in range(3):  # entry after entry, with the levels before it as they are now
        for entry in range(5):
            mine = codes[:, level] == entry
            sums = torch.stack([expected[k][codes[mine, k]] for k in range(3)]).sum(0)
            if mine.any():
                expected[level, entry] += (vectors[mine].double() - sums).mean(0)
    left = vectors - torch.stack([expected[k][codes[:, k]] for k in range(3)]).sum(0)
    told: list[float] = []
    counts = torch.zeros(3, 5)
    refine(
        books, [5] * 3, [vectors], counts, beam_width=1, report=lambda _, nmse: told.append(nmse)
    )
    torch.testing.assert_close(books.double(), expected, rtol=1e-4, atol=1e-5)
    assert told == [pytest.approx(float(left.square().sum() / vectors.square().sum()), rel=1e-4)]
    assert counts.sum(dim=1).tolist() == [300] * 3


def test_a_chunk_weighs_as_much_in_refinement_as_an_entry_has_seen_before(rng: Generator) -> None:
    vectors = torch.randn(50, 3, generator=rng)
    books = torch.zeros(1, 1, 3)
    refine(
        books,
        [1],
        torch.split(vectors, 10),
        torch.zeros(1, 1),
        beam_width=1,
        report=lambda *_: None,
    )
    torch.testing.assert_close(books[0, 0], vectors.mean(0))  # each vector once, none for more


def test_a_fit_refines_as_if_the_entries_had_seen_its_vectors_in_equal_parts(
    latents: Tensor,
) -> None:
    plain = ResidualVectorQuantizer(8, 3, 16).fit(latents, beam_width=4, refinements=0)
    refined = ResidualVectorQuantizer(8, 3, 16).fit(latents, beam_width=4, refinements=2)
    books, counts = plain.codebooks.clone(), torch.full((3, 16), 3000 / 16)
    for _ in range(2):
        refine(books, [16] * 3, [latents[0].T], counts, beam_width=2, report=lambda *_: None)
    torch.testing.assert_close(refined.codebooks, books, rtol=1e-4, atol=1e-5)


def test_shrinkage_is_half_of_what_cross_validation_finds_best(rng: Generator) -> None:
    vectors = torch.randn(400, 6, generator=rng) + 1
    book = kmeans(vectors, 40, iterations=10, generator=rng)
    codes, errors = nearest(vectors, book)
    mean, noise = vectors.mean(0), errors.mean()

    def drawn_back(entries: Tensor, counts: Tensor, strength: float) -> Tensor:
        spread = counts * (entries - mean).square().sum(1)
        return mean + (spread / (spread + strength * noise))[:, None] * (entries - mean)

    def left_over(strength: float) -> float:
        total = 0.0
        for fold in torch.arange(400).chunk(4):
            others = torch.ones(400, dtype=torch.bool)
            others[fold] = False
            counts, sums = count_and_sum(vectors[others], codes[others], 40)
            means = torch.where(counts[:, None] > 0, sums / counts[:, None], mean)
            total += float(nearest(vectors[fold], drawn_back(means, counts, strength))[1].sum())
        return total

    best = min((1.0, 2.0, 4.0, 8.0, 16.0, 32.0), key=left_over)
    assert left_over(best) < left_over(0.001)
    counts = torch.bincount(codes, minlength=40)
    torch.testing.assert_close(_shrink(vectors, book), drawn_back(book, counts, best / 2))


def test_shrinkage_helps_the_unseen_where_entries_are_made_of_few(rng: Generator) -> None:
    # Frames that resemble the next: fewer chances than frames, for 160 entries of 16 dimensions.
    frames = torch.randn(800, 16, generator=rng).repeat_interleave(4, 0)
    frames = frames + torch.randn(3200, 16, generator=rng)
    seen, unseen = frames[:1600], frames[1600:]
    book = kmeans(seen, 160, iterations=10, generator=rng)
    shrunk = _shrink(seen, book)
    assert float(nearest(unseen, shrunk)[1].mean()) < 0.99 * float(nearest(unseen, book)[1].mean())
    assert float(shrunk.square().sum()) < float(book.square().sum())


def test_shrinkage_leaves_entries_that_hold_no_chance_alone(rng: Generator) -> None:
    points = 10 * torch.randn(16, 4, generator=rng)
    vectors = points[torch.randint(16, (2000,), generator=rng)]
    assert torch.allclose(_shrink(vectors, points), points, atol=1e-3)


def test_beams_in_the_fit_serve_beams_in_the_search(latents: Tensor) -> None:
    greedy, beams = (
        ResidualVectorQuantizer(8, 6, 16).fit(latents, beam_width=width, refinements=0)
        for width in (1, 4)
    )
    assert nmse(beams, latents, 16) < nmse(greedy, latents, 16)


@pytest.mark.parametrize("refinements", [0, 2])
def test_an_iterable_of_chunks_fits_as_one_tensor(latents: Tensor, refinements: int) -> None:
    whole = ResidualVectorQuantizer(8, 2, 16).fit(latents, refinements=refinements)
    parts = [latents[..., :700], latents[..., 700:701], latents[..., 701:]]
    pieces = ResidualVectorQuantizer(8, 2, 16).fit(parts, refinements=refinements)
    assert torch.equal(whole.codebooks, pieces.codebooks)
    once = ResidualVectorQuantizer(8, 2, 16).fit(iter(parts), refinements=refinements)
    assert torch.allclose(whole.codebooks, once.codebooks, atol=1e-5)
    halves = ResidualVectorQuantizer(8, 2, 16).fit(latents.half(), refinements=refinements)
    assert nmse(halves, latents) < 1.1 * nmse(whole, latents)


def test_refinement_goes_through_more_than_the_sample(
    latents: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuralcodec.quantize.fitting._SAMPLE_FLOATS", 8 * 4 * 200)
    monkeypatch.setattr(sampling_module, "_CHUNK", 8 * 500)
    seen: list[Progress] = []
    sampled = ResidualVectorQuantizer(8, 3, 32).fit(latents, refinements=0)
    refined = ResidualVectorQuantizer(8, 3, 32).fit(latents, progress=seen.append)
    once = ResidualVectorQuantizer(8, 3, 32).fit(iter([latents]))
    assert nmse(refined, latents) < 0.9 * nmse(sampled, latents)
    assert nmse(refined, latents) < 0.95 * nmse(once, latents)
    assert [each.stage for each in seen] == ["level"] * 3 + ["refine"] * 18  # 6 chunks, 3 times
    assert [each.step for each in seen] == list(range(1, 22))
    assert {each.steps for each in seen} == {21}
    assert seen[2].nmse < seen[1].nmse < seen[0].nmse < 1


def test_a_sample_is_uniform_and_keeps_the_order() -> None:
    hits = torch.zeros(100)
    for seed in range(400):
        sample = Sample(20, Generator().manual_seed(seed))
        for start in range(0, 100, 7):
            sample.add(torch.arange(start, min(start + 7, 100)).float()[:, None])
        drawn = sample.vectors()[:, 0].long()
        assert len(drawn) == 20
        assert (drawn.diff() > 0).all()
        hits[drawn] += 1
    # 400 draws of one in five: 80 expected of each, 8 the standard deviation.
    assert (hits - 80).abs().max() < 5 * 8
    assert abs(float(hits[:50].mean() - hits[50:].mean())) < 4


def test_a_small_set_is_sampled_whole(rng: Generator) -> None:
    vectors = torch.randn(30, 2, generator=rng)
    sample = Sample(50, rng)
    sample.add(vectors[:10])
    sample.add(vectors[10:])
    assert torch.equal(sample.vectors(), vectors)
    assert sample.seen == 30


def test_chunks_are_bounded_and_in_order(monkeypatch: pytest.MonkeyPatch, rng: Generator) -> None:
    monkeypatch.setattr(sampling_module, "_CHUNK", 60)
    z = torch.randn(5, 3, 13, generator=rng, dtype=torch.float64)
    for given in (z, [z[:2], z[2:]], (item[None] for item in z)):
        parts = list(chunks(given, 3))
        assert all(20 <= len(part) < 40 for part in parts[:-1])
        assert torch.equal(torch.cat(parts), z.mT.reshape(-1, 3).float())


def test_counts_and_sums_are_those_of_a_loop(rng: Generator) -> None:
    vectors = torch.randn(500, 4, generator=rng)
    codes = torch.randint(7, (500,), generator=rng)  # entries 7..9 stay empty
    counts, sums = count_and_sum(vectors, codes, 10)
    for entry in range(10):
        mine = vectors[codes == entry]
        assert counts[entry] == len(mine)
        torch.testing.assert_close(sums[entry], mine.sum(0), rtol=1e-4, atol=1e-4)


def test_each_empty_entry_of_k_means_moves_onto_a_vector_of_its_own(
    monkeypatch: pytest.MonkeyPatch, rng: Generator
) -> None:
    vectors = torch.randn(60, 2, generator=rng)
    start = vectors[:1].repeat(5, 1)  # entries 1..4 are never the lowest of the nearest
    monkeypatch.setattr("neuralcodec.quantize.kmeans._seed", lambda *_: start)
    book = kmeans(vectors, 5, iterations=1, generator=rng)
    worst = (vectors - vectors[0]).square().sum(1).argsort(descending=True)[:4]
    assert torch.equal(book[1:], vectors[worst])
    torch.testing.assert_close(book[0], vectors.mean(0))


def test_k_means_starts_from_all_parts_of_a_large_set(rng: Generator) -> None:
    # In order: a recording after another, and all that the seeding looks at fits into the first.
    recordings = torch.randn(8, 256, 2, generator=rng) + 50 * torch.arange(8)[:, None, None]
    book = kmeans(recordings.flatten(0, 1), 8, iterations=2, generator=rng)
    assert sorted((book.mean(1) / 50).round().int().tolist()) == list(range(8))


def test_levels_of_their_own_size_and_projections_are_fitted(latents: Tensor) -> None:
    ragged = ResidualVectorQuantizer(8, 3, [32, 8, 16]).fit(latents)
    assert int(ragged.encode(latents)[:, 1].max()) < 8
    assert (ragged.codebooks[1, 8:] == 0).all()
    cosine = ResidualVectorQuantizer(8, 3, 16, metric="cosine").fit(latents)
    shared = ResidualVectorQuantizer(8, 2, 16, codebook_dim=4, projection="shared").fit(latents)
    level = ResidualVectorQuantizer(8, 2, 16, codebook_dim=4).fit(latents)
    assert nmse(cosine, latents) < 0.8
    for rvq in (shared, level):
        for entries in rvq.codebooks:
            assert len(entries.unique(dim=0)) == 16


@pytest.mark.parametrize(
    "options",
    [{}, {"metric": "cosine"}, {"codebook_dim": 4}, {"codebook_dim": 4, "metric": "cosine"}],
)
def test_each_level_is_fitted_to_what_the_codes_of_those_before_leave_over(
    options: dict[str, Any], latents: Tensor
) -> None:
    torch.manual_seed(0)
    told: list[Progress] = []
    rvq = ResidualVectorQuantizer(8, 3, 16, **options)
    rvq.fit(latents, beam_width=1, refinements=0, progress=told.append)
    codes = rvq.encode(latents)
    for level, step in enumerate(told, start=1):
        rest = latents - rvq.decode(codes[:, :level]).detach()
        expected = float(rest.square().sum() / latents.square().sum())
        assert step.nmse == pytest.approx(expected, rel=1e-4)


def test_bad_settings_name_value_and_limit(latents: Tensor) -> None:
    rvq = ResidualVectorQuantizer(8, 2, 16)
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        rvq.fit(latents, iterations=0)
    with pytest.raises(ValueError, match="beam_width must be at least 1, got -1"):
        rvq.fit(latents, beam_width=-1)
    with pytest.raises(ValueError, match="refinements must be at least 0, got -1"):
        rvq.fit(latents, refinements=-1)
    with pytest.raises(ValueError, match="no latents to fit on"):
        rvq.fit([])
    with pytest.raises(ValueError, match=r"float \[B, 8, T\]"):
        rvq.fit([latents, latents[:, :5]])
    with pytest.raises(ValueError, match="z hold NaN"):
        rvq.fit([latents, latents / 0])
    cosine = ResidualVectorQuantizer(8, 2, 16, metric="cosine")
    with pytest.raises(ValueError, match=r"refinements must be 0 .* got 2"):
        cosine.fit(latents, refinements=2)
    assert not rvq.fitted
