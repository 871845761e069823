"""Laws of the quantizer as a module that trains."""

import copy
import io
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from neuralcodec.quantize import Learning, QuantizedResult, ResidualVectorQuantizer
from neuralcodec.quantize.gradient import (
    Gradient,
    noise_substitution,
    rotation,
    straight_through,
)
from neuralcodec.quantize.start import Start
from neuralcodec.quantize.statistics import entropy, usage

AT_ONCE = Learning(start_vectors=1)  # the first batch of V vectors or more is the whole start
CODEBOOKS: tuple[Literal["ema", "gradient"], ...] = ("ema", "gradient")
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cosine": {"metric": "cosine"},
    "level": {"codebook_dim": 3},
    "level cosine": {"codebook_dim": 3, "metric": "cosine"},
    "shared": {"codebook_dim": 3, "projection": "shared"},
}


def mixture(batch: int, length: int, rng: Generator, centers: int = 8, dim: int = 4) -> Tensor:
    """Latents `[B, D, T]` around a few fixed centers."""
    means = 4 * torch.randn(centers, dim, generator=Generator().manual_seed(7))
    chosen = means[torch.randint(centers, (batch, length), generator=rng)]
    return (chosen + 0.3 * torch.randn(chosen.shape, generator=rng)).mT


def trained(z: Tensor, training: Learning = AT_ONCE, **kind: Any) -> ResidualVectorQuantizer:
    """Make a quantizer of 3 levels of 8 entries that has begun on `z`."""
    torch.manual_seed(0)
    rvq = ResidualVectorQuantizer(z.shape[1], 3, 8, learning=training, **kind)
    rvq(z)
    assert rvq.fitted
    return rvq


def nmse(rvq: ResidualVectorQuantizer, z: Tensor) -> float:
    error = z - rvq.decode(rvq.encode(z)).detach()
    return float(error.square().mean() / z.square().mean())


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# Gradients


@pytest.mark.parametrize("estimator", [straight_through, rotation])
def test_estimators_keep_the_exact_values(
    estimator: Callable[[Tensor, Tensor], Tensor], rng: Generator
) -> None:
    z = (1e6 * torch.randn(50, 3, generator=rng)).requires_grad_()
    q = torch.randn(50, 3, generator=rng)
    assert torch.equal(estimator(z, q), q)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 9),
    dim=st.integers(1, 5),
    depth=st.integers(1, 3),
)
def test_straight_through_gives_gradient_one_and_the_decoded_values(
    batch: int, length: int, dim: int, depth: int
) -> None:
    rng = Generator().manual_seed(batch * 100 + length)
    rvq = ResidualVectorQuantizer.from_codebooks(torch.randn(3, 6, dim, generator=rng))
    z = torch.randn(batch, dim, length, generator=rng, requires_grad=True)
    before = rvq.codebooks.clone()
    result = rvq(z, depth)
    result.quantized.sum().backward()
    assert z.grad is not None
    assert (z.grad == 1).all()
    untrained = ResidualVectorQuantizer.from_codebooks(before)
    assert torch.equal(result.quantized, untrained.decode(result.codes))


@settings(max_examples=50, deadline=None)
@given(dim=st.integers(1, 6), scale=st.sampled_from([1e-3, 1.0, 1e3]), seed=st.integers(0, 999))
def test_rotation_turns_and_stretches_the_gradient(dim: int, scale: float, seed: int) -> None:
    rng = Generator().manual_seed(seed)
    e = torch.randn(5, dim, generator=rng, dtype=torch.float64).requires_grad_()
    q = scale * torch.randn(5, dim, generator=rng, dtype=torch.float64)
    g = torch.randn(5, dim, generator=rng, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.stack([e.detach(), q]), dim=2)
    assume((q.norm(dim=1) / e.detach().norm(dim=1)).log().abs().max() < math.log(1e5))
    assume(dim == 1 or directions.sum(0).norm(dim=1).min() > 1e-2)
    value = rotation(e, q)
    assert torch.equal(value, q)
    (arrived,) = torch.autograd.grad(value, e, g, retain_graph=True)
    ratio = q.norm(dim=1) / e.detach().norm(dim=1)
    assert torch.allclose(arrived.norm(dim=1), ratio * g.norm(dim=1))
    # the angle of gradient and entry becomes the angle of gradient and vector
    assert torch.allclose(
        torch.cosine_similarity(arrived, e.detach()), torch.cosine_similarity(g, q), atol=1e-6
    )
    # and in the plane of the two alone: what is orthogonal to both is only stretched
    if dim > 2:
        basis = torch.linalg.qr(torch.stack([e.detach()[0], q[0]], 1))[0]
        aside = g[0] - basis @ (basis.T @ g[0])
        (kept,) = torch.autograd.grad(value, e, torch.stack([aside] * 5))
        assert torch.allclose(kept[0], ratio[0] * aside, atol=1e-9 * scale)


def test_rotation_of_zero_and_opposite_vectors_is_safe() -> None:
    e = torch.tensor([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [0.0, 0.0]])
    q = torch.tensor([[3.0, 1.0], [0.0, 0.0], [-2.0, -4.0], [-1.0, -2.00001], [0.0, 0.0]])
    g = torch.tensor([[0.5, -1.0]] * 5)
    e.requires_grad_()
    value = rotation(e, q)
    assert torch.equal(value, q)
    (arrived,) = torch.autograd.grad(value, e, g)
    assert torch.equal(arrived[[0, 1, 4]], g[[0, 1, 4]])  # nothing to turn: straight through
    assert torch.allclose(arrived[2:4].norm(dim=1), g[0].norm() * torch.tensor([2.0, 1.0]))
    line = e.detach()[2] / e.detach()[2].norm()
    assert torch.allclose(arrived[2] @ line, -2 * g[2] @ line)  # along the line: mirrored


def test_projected_levels_have_the_gradient_of_their_chain_without_a_quantizer(
    rng: Generator,
) -> None:
    z = torch.randn(2, 6, 40, generator=rng)
    rvq = trained(z, codebook_dim=3)
    assert rvq.project_in is not None
    assert rvq.project_out is not None
    z.requires_grad_()
    weight = torch.randn(2, 6, 40, generator=rng)
    (arrived,) = torch.autograd.grad((rvq(z).quantized * weight).sum(), z)
    residual, total = z.mT, torch.zeros(2, 40, 6)
    for k in range(3):
        found = rvq.project_out(rvq.project_in(residual, k), k)
        residual, total = residual - found, total + found
    (expected,) = torch.autograd.grad((total.mT * weight).sum(), z)
    assert torch.allclose(arrived, expected, atol=1e-6)


def test_rotation_reaches_the_module(rng: Generator) -> None:
    z = torch.randn(2, 4, 50, generator=rng)
    rvq = trained(z, replace(AT_ONCE, gradient="rotation")).eval()
    z.requires_grad_()
    result = rvq(z)
    assert torch.equal(result.quantized, rvq.decode(result.codes))
    (arrived,) = torch.autograd.grad(result.quantized.sum(), z)
    ratio = result.quantized.norm(dim=1) / z.norm(dim=1)
    assert torch.allclose(arrived.norm(dim=1), 2 * ratio, rtol=1e-4)  # |(1, 1, 1, 1)| = 2


def test_noise_takes_the_length_of_the_error_in_training_alone(rng: Generator) -> None:
    z = torch.randn(2, 4, 50, generator=rng)
    rvq = trained(z, replace(AT_ONCE, gradient="noise_substitution"))
    z.requires_grad_()
    torch.manual_seed(1)
    before = ResidualVectorQuantizer.from_codebooks(rvq.codebooks.clone())
    result = rvq(z)
    error = before.decode(result.codes) - z
    assert torch.allclose((result.quantized - z).norm(dim=1), error.norm(dim=1), atol=1e-4)
    assert not torch.allclose(result.quantized, before.decode(result.codes), atol=0.1)
    torch.manual_seed(1)
    copy = ResidualVectorQuantizer.from_codebooks(before.codebooks, learning=rvq.learning)
    assert torch.equal(copy(z).quantized, result.quantized)
    found = rvq.eval()(z)
    assert torch.equal(found.quantized, rvq.decode(found.codes))
    on_entries = rvq.codebooks[0, :5].clone().requires_grad_()
    noise_substitution(on_entries, on_entries.detach()).sum().backward()  # type: ignore[no-untyped-call]
    assert on_entries.grad is not None
    assert torch.isfinite(on_entries.grad).all()


@pytest.mark.parametrize("gradient", ["straight_through", "noise_substitution"])
def test_noise_draws_together_what_does_not_matter(gradient: Gradient, rng: Generator) -> None:
    x = torch.randn(1, 2, 4000, generator=rng)
    rvq = ResidualVectorQuantizer(2, 1, 16, learning=replace(AT_ONCE, gradient=gradient))
    rvq.fit(x)
    scale = torch.ones(2, requires_grad=True)
    quantized = rvq(scale[:, None] * x).quantized
    (quantized[:, 0] / scale[0].detach() - x[:, 0]).square().mean().backward()
    assert scale.grad is not None
    if gradient == "straight_through":
        assert scale.grad[1] == 0
    else:
        assert scale.grad[1] > 0.01


def test_noise_is_not_for_projections_of_each_level() -> None:
    training = Learning(gradient="noise_substitution")
    with pytest.raises(ValueError, match="projection='shared' or none, got 'level'"):
        ResidualVectorQuantizer(4, 2, 8, codebook_dim=2, learning=training)
    ResidualVectorQuantizer(4, 2, 8, codebook_dim=2, projection="shared", learning=training)


def test_commitment_loss_is_the_mean_error_of_the_prefixes_and_pulls_to_them(
    rng: Generator,
) -> None:
    z = torch.randn(2, 4, 50, generator=rng)
    rvq = trained(z).eval()
    z.requires_grad_()
    result = rvq(z)
    prefixes = [rvq.decode(result.codes[:, :k]) for k in (1, 2, 3)]
    expected = torch.stack([(z - each).square().mean() for each in prefixes]).mean()
    assert torch.allclose(result.commitment_loss, expected)
    (arrived,) = torch.autograd.grad(result.commitment_loss, z)
    (wanted,) = torch.autograd.grad(expected, z)
    assert torch.allclose(arrived, wanted, atol=1e-7)
    assert result.codebook_loss.item() == 0


def test_codebook_loss_moves_only_codebooks_and_each_towards_what_it_codes(
    rng: Generator,
) -> None:
    z = torch.randn(2, 4, 50, generator=rng)
    rvq = trained(z, replace(AT_ONCE, codebooks="gradient")).eval()
    z.requires_grad_()
    result = rvq(z)
    assert torch.equal(result.codebook_loss, result.commitment_loss)
    result.commitment_loss.backward()
    assert [each.grad for each in rvq.parameters()] == [None]
    again = z.detach().requires_grad_()
    rvq(again).codebook_loss.backward()
    assert again.grad is None
    assert rvq.codebooks.grad is not None
    coded = (result.codes[:, 0] == 5).flatten()
    pull = rvq.codebooks[0, 5] - z.mT.flatten(0, 1)[coded]
    assert torch.allclose(rvq.codebooks.grad[0, 5], 2 * pull.sum(0) / (3 * z.numel()), atol=1e-7)


# Levels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("books", CODEBOOKS)
def test_forward_agrees_with_encode_and_decode(
    kind: str, books: Literal["ema", "gradient"], rng: Generator
) -> None:
    z = torch.randn(2, 6, 60, generator=rng)
    rvq = trained(z, replace(AT_ONCE, codebooks=books), **KINDS[kind])
    codes = rvq.encode(z)
    assert torch.equal(rvq(z).codes, codes)  # training: the codes before it learns
    rvq.eval()
    before = state(rvq)
    for depth in (1, 2, 3):
        result = rvq(z, depth)
        assert torch.equal(result.codes, rvq.encode(z)[:, :depth])
        assert torch.allclose(result.quantized, rvq.decode(result.codes), atol=1e-5)
        assert result.num_codebooks.tolist() == [depth, depth]
    assert same(before, state(rvq))


@pytest.mark.parametrize("kind", ["plain", "level", "shared"])
def test_dropped_levels_are_missing_from_sum_loss_and_bitrate(kind: str, rng: Generator) -> None:
    z = torch.randn(3, 6, 60, generator=rng)
    rvq = trained(z, frame_rate=50.0, **KINDS[kind]).eval()
    whole = rvq(z)
    items = torch.tensor([1, 3, 2])
    none = rvq(z, item_codebooks=torch.tensor([0, 3, 2]))
    assert not none.quantized[0].any()
    assert none.bitrate_kbps[0] == 0
    result = rvq(z, item_codebooks=items)
    assert torch.equal(result.codes, whole.codes)
    for item, levels in enumerate(items.tolist()):
        expected = rvq.decode(whole.codes[item : item + 1, :levels])[0]
        assert torch.allclose(result.quantized[item], expected, atol=1e-5)
    assert torch.allclose(result.bitrate_kbps, items * 3 * 50 / 1000)
    alone = [rvq(z[item : item + 1], levels) for item, levels in enumerate(items.tolist())]
    mean = sum(each.commitment_loss * levels for each, levels in zip(alone, (1, 3, 2), strict=True))
    assert torch.allclose(result.commitment_loss, mean / 6)


def test_quantizer_dropout_draws_every_depth_equally_often_and_only_in_training(
    rng: Generator,
) -> None:
    z = torch.randn(900, 4, 2, generator=rng)
    rvq = trained(z, replace(AT_ONCE, quantizer_dropout=0.5))
    counts = torch.bincount(rvq(z).num_codebooks, minlength=4)
    assert counts[0] == 0
    for count, share in zip(counts[1:].tolist(), (1 / 6, 1 / 6, 2 / 3), strict=True):
        assert abs(count - 900 * share) < 4 * math.sqrt(900 * share * (1 - share))
    assert (rvq(z, 2).num_codebooks <= 2).all()
    assert (rvq.eval()(z).num_codebooks == 3).all()


def test_levels_that_are_not_asked_for_do_not_learn(rng: Generator) -> None:
    z = torch.randn(2, 4, 50, generator=rng)
    rvq = trained(z)
    before = state(rvq)
    rvq(torch.randn(2, 4, 50, generator=rng), 2)
    after = state(rvq)
    for name in ("codebooks", "counts", "sums", "histogram"):
        assert torch.equal(after[name][2], before[name][2])
        assert not torch.equal(after[name][:2], before[name][:2])


def test_sizes_of_their_own_leave_unused_rows_alone(rng: Generator) -> None:
    rvq = ResidualVectorQuantizer(4, 3, (8, 2, 5), frame_rate=100.0, learning=AT_ONCE)
    for _ in range(20):
        result = rvq(torch.randn(2, 4, 50, generator=rng))
    for tensor in (rvq.codebooks, rvq.counts, rvq.histogram):
        assert not tensor[1, 2:].any()
        assert not tensor[2, 5:].any()
    assert (rvq.usage == 1).all()
    expected = (3 + 1 + math.log2(5)) * 0.1
    assert torch.allclose(result.bitrate_kbps, torch.tensor([expected, expected]))


# Moving averages and revival


def test_without_memory_a_batch_is_one_step_of_kmeans(rng: Generator) -> None:
    z = mixture(2, 200, rng)
    training = Learning(decay=0.0, threshold_ema_dead_code=0.0)
    start = z.mT.flatten(0, 1)[:8]
    rvq = ResidualVectorQuantizer.from_codebooks(start[None], learning=training)
    codes = rvq.encode(z).flatten()
    rvq(z)
    expected = torch.stack([z.mT.flatten(0, 1)[codes == v].mean(0) for v in range(8)])
    assert torch.allclose(rvq.codebooks[0], expected, atol=1e-4)


def test_smoothing_lifts_the_rare_entries_and_leaves_the_total(rng: Generator) -> None:
    # Laplace: n of N vectors count as N (n + e) / (N + V e), at each level by its own V.
    books = torch.randn(1, 4, 2, generator=rng)
    training = Learning(decay=0.0, epsilon=0.5, threshold_ema_dead_code=0)
    rvq = ResidualVectorQuantizer.from_codebooks(books, sizes=[3], learning=training)
    z = torch.randn(1, 2, 50, generator=rng)
    codes, vectors = rvq.encode(z)[0, 0], z[0].T
    rvq(z)
    for entry in range(3):
        mine = vectors[codes == entry]
        smoothed = 50 * (len(mine) + 0.5) / (50 + 3 * 0.5)
        assert torch.allclose(rvq.codebooks[0, entry], mine.sum(0) / smoothed, atol=1e-5)


def test_moving_averages_end_at_a_fixed_point_of_kmeans(rng: Generator) -> None:
    z = mixture(2, 100, rng)
    rvq = ResidualVectorQuantizer.from_codebooks(
        z.mT.flatten(0, 1)[None, :8], learning=Learning(decay=0.8, threshold_ema_dead_code=0.0)
    )
    for _ in range(120):
        rvq(z)
    codes = rvq.encode(z).flatten()
    vectors = z.mT.flatten(0, 1)
    for v in torch.unique(codes).tolist():
        assert torch.allclose(rvq.codebooks[0, v], vectors[codes == v].mean(0), atol=1e-4)
        assert torch.allclose(rvq.counts[0, v], (codes == v).sum().float(), rtol=1e-4)


def test_a_first_batch_moves_trained_codebooks_by_its_share_only(rng: Generator) -> None:
    books = torch.randn(1, 4, 3, generator=rng)
    rvq = ResidualVectorQuantizer.from_codebooks(books, learning=Learning(decay=0.99))
    z = books[0, :, :, None].mT.reshape(1, 4, 3).mT.repeat(1, 1, 25) + 0.1  # equally often each
    rvq(z)
    assert torch.allclose(rvq.codebooks, books + 0.001, atol=1e-4)


@pytest.mark.parametrize("books", CODEBOOKS)
@pytest.mark.parametrize("kind", ["plain", "level", "shared"])
def test_a_dead_entry_takes_a_vector_of_the_batch_and_forgets(
    books: Literal["ema", "gradient"], kind: str, rng: Generator
) -> None:
    z = torch.randn(2, 6, 200, generator=rng)
    options = replace(AT_ONCE, codebooks=books, decay=0.5)
    rvq = trained(z, options, **KINDS[kind])
    with torch.no_grad():
        rvq.codebooks[:2, 3] = 1e4  # nothing is near that
    rvq.counts[:2, 3] = 3.0
    inputs = [z.mT if rvq.project_in is None else rvq.project_in(z.mT).detach()]
    rvq(z)  # half of 3 is below 2
    for level in (0, 1):
        assert rvq.counts[level, 3] == 2
        if rvq.sums is not None:
            assert torch.allclose(rvq.sums[level, 3], 2 * rvq.codebooks[level, 3])
    gaps = (inputs[0].flatten(0, 1) - rvq.codebooks[0, 3].detach()).norm(dim=1)
    assert gaps.min().item() == 0
    assert (rvq.codebooks.abs() < 100).all()
    for _ in range(10):
        rvq(z)
    assert (rvq.usage == 1).all()


def test_revival_can_be_off(rng: Generator) -> None:
    z = torch.randn(2, 4, 200, generator=rng)
    rvq = trained(z, replace(AT_ONCE, threshold_ema_dead_code=0.0, codebooks="gradient"))
    with torch.no_grad():
        rvq.codebooks[0, 3] = 1e4
    for _ in range(5):
        rvq(z)
    assert (rvq.codebooks[0, 3] == 1e4).all()


def test_batches_smaller_than_the_codebook_kill_no_entries_in_use(rng: Generator) -> None:
    books = torch.randn(1, 64, 4, generator=rng)
    training = Learning(codebooks="gradient", decay=0.9)
    rvq = ResidualVectorQuantizer.from_codebooks(books, learning=training)
    for _ in range(4):  # 64 vectors in 4 batches, so each entry is named every fourth
        for part in books[0].T[None].chunk(4, dim=2):
            rvq(part)
    assert torch.equal(rvq.codebooks.detach(), books)


@pytest.mark.parametrize("books", CODEBOOKS)
def test_training_learns_a_mixture_and_uses_all_entries(
    books: Literal["ema", "gradient"], rng: Generator
) -> None:
    torch.manual_seed(0)
    training = Learning(codebooks=books, decay=0.9, start_vectors=0)
    rvq = ResidualVectorQuantizer(4, 2, 8, learning=training)
    test = mixture(2, 300, rng)
    before = nmse(rvq, test)
    optimizer = torch.optim.Adam([rvq.codebooks], lr=0.05)  # takes a buffer as well
    for _ in range(100):
        result = rvq(mixture(2, 100, rng))
        if books == "gradient":
            optimizer.zero_grad()
            result.codebook_loss.backward()
            optimizer.step()
    assert nmse(rvq, test) < min(0.02, 0.2 * before)
    assert (rvq.usage == 1).all()
    assert (rvq.perplexity > 6).all()


# Start


def test_the_start_collects_several_batches_and_quantizes_from_the_first(rng: Generator) -> None:
    torch.manual_seed(0)
    rvq = ResidualVectorQuantizer(4, 2, 8, learning=Learning(start_vectors=16))
    test = mixture(2, 200, rng)
    with pytest.raises(RuntimeError, match="no codebooks yet"):
        rvq.eval()(test)
    for number in range(1, 14):
        result = rvq.train()(mixture(1, 10, rng))  # 128 are wanted
        assert torch.isfinite(result.quantized).all()
        assert bool(rvq.fitted) == (number == 13)
        assert math.isfinite(nmse(rvq.eval(), test))
    assert nmse(rvq, test) < 0.02
    fitted = ResidualVectorQuantizer(4, 2, 8).fit(mixture(1, 128, rng))
    assert nmse(rvq, test) < 2 * nmse(fitted, test)


def test_a_start_from_fewer_vectors_than_entries_codes_them_well(rng: Generator) -> None:
    torch.manual_seed(0)
    z = torch.randn(1, 4, 5, generator=rng)
    rvq = ResidualVectorQuantizer(4, 2, 16)
    result = rvq(z)
    assert not rvq.fitted
    assert (result.quantized - z).square().mean().item() < 1e-3
    assert result.commitment_loss.item() < 1e-3


def test_a_checkpoint_ends_a_start(rng: Generator) -> None:
    z = torch.randn(1, 4, 40, generator=rng)
    source = ResidualVectorQuantizer(4, 2, 8).fit(z)
    rvq = ResidualVectorQuantizer(4, 2, 8)
    rvq(z + 100)
    assert not rvq.fitted
    rvq.load_state_dict(source.state_dict())
    assert (rvq(z).quantized - z).square().mean().item() < 1
    assert rvq.fitted


@pytest.mark.parametrize(("wanted", "fits"), [(100, [10, 20, 40, 80, 100]), (10, [10]), (5, [5])])
def test_a_start_is_fitted_again_when_its_vectors_have_doubled(
    wanted: int, fits: list[int], rng: Generator
) -> None:
    start, sizes = Start(wanted), []
    while not start.complete:
        start.add(torch.randn(10, 2, generator=rng))
        found = start.due()
        if found is not None:
            sizes.append(len(found))
    assert sizes == fits


def test_a_start_draws_from_all_parts_of_a_large_batch(rng: Generator) -> None:
    torch.manual_seed(0)
    centers = 10 * torch.eye(4).repeat_interleave(200, dim=0)  # one after another in time
    z = (centers + 0.1 * torch.randn(800, 4, generator=rng)).T[None]
    rvq = ResidualVectorQuantizer(4, 1, 4, learning=Learning(start_vectors=16))  # 64 of the 800
    rvq(z)
    assert rvq.fitted
    assert nmse(rvq, z) < 0.01


# Statistics


def test_statistics_are_those_of_the_codes(rng: Generator) -> None:
    z = torch.randn(2, 4, 500, generator=rng)
    rvq = trained(z)
    codes = torch.cat([rvq(z).codes for _ in range(3)])[:2]
    rvq.histogram.zero_()
    assert rvq.usage.isnan().all()
    assert rvq.entropy.isnan().all()
    assert "-" in rvq.summary()
    codes = rvq(z).codes
    for k in range(3):
        share = torch.bincount(codes[:, k].flatten(), minlength=8) / 1000
        bits = float(-(share[share > 0] * share[share > 0].log2()).sum())
        assert float(rvq.entropy[k]) == pytest.approx(bits, abs=1e-5)
        assert float(rvq.perplexity[k]) == pytest.approx(2**bits, abs=1e-4)
    lines = rvq.summary().splitlines()
    assert len(lines) == 4
    assert lines[1].split()[:3] == ["0", "8", "100.0%"]


@pytest.mark.parametrize("books", CODEBOOKS)
def test_fitted_codebooks_have_no_history(
    books: Literal["ema", "gradient"], rng: Generator
) -> None:
    z = torch.randn(1, 4, 100, generator=rng)
    fresh = ResidualVectorQuantizer(4, 3, 8, learning=replace(AT_ONCE, codebooks=books)).fit(z)
    used = trained(torch.randn(2, 4, 500, generator=rng), replace(AT_ONCE, codebooks=books))
    assert (used.usage > 0).all()
    assert same(state(used.fit(z)), state(fresh))
    assert used.usage.isnan().all()


def test_an_entry_is_in_use_for_some_batches_after_it_was_named() -> None:
    books = torch.tensor([[[0.0], [10.0]]])
    training = Learning(decay=0.9, threshold_ema_dead_code=0.0)
    rvq = ResidualVectorQuantizer.from_codebooks(books, learning=training)
    rvq(torch.tensor([[[0.0, 10.0]]]))
    shares = []
    for _ in range(12):
        rvq(torch.zeros(1, 1, 3))
        shares.append(float(rvq.usage[0]))
    assert shares == [1.0] * 9 + [0.5] * 3  # 0.9^9 > 1/e > 0.9^10


def test_collapse_shows() -> None:
    histogram = torch.tensor([[100.0, 0.0, 0.0, 0.0], [25.0, 25.0, 25.0, 25.0]])
    assert entropy(histogram).tolist() == pytest.approx([0.0, 2.0])
    assert usage(histogram, (4, 4)).tolist() == [0.25, 1.0]


# Types, compilers, checkpoints


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_gives_codes_and_statistics_of_the_rounded_values(
    kind: str, dtype: torch.dtype, rng: Generator
) -> None:
    z = torch.randn(2, 6, 60, generator=rng)
    rvq = trained(z, **KINDS[kind])
    other = copy.deepcopy(rvq)
    with torch.autocast("cpu", dtype=dtype):
        half = z.to(dtype).requires_grad_()
        assert torch.equal(rvq.encode(half), rvq.encode(half.float()))
        result = rvq(half)
        decoded = other.decode(result.codes)
    expected = other(half.float())
    assert torch.equal(result.codes, expected.codes)
    assert result.quantized.dtype == dtype
    assert torch.equal(result.quantized, expected.quantized.to(dtype))
    assert result.commitment_loss.dtype == torch.float32
    assert torch.equal(result.commitment_loss, expected.commitment_loss)
    assert decoded.dtype == torch.float32
    assert same(state(rvq), state(other))
    (arrived,) = torch.autograd.grad(result.quantized.float().sum(), half)
    assert torch.isfinite(arrived).all()


def test_a_module_in_half_precision_codes_but_does_not_learn(rng: Generator) -> None:
    z = torch.randn(2, 6, 60, generator=rng)
    rvq = trained(z, codebook_dim=3).bfloat16()
    rounded = copy.deepcopy(rvq).float().eval()
    result = rvq.eval()(z)
    assert torch.equal(result.codes, rounded.encode(z))
    assert torch.equal(rvq.decode(result.codes), rounded.decode(result.codes))
    with pytest.raises(ValueError, match=r"must stay float32 to learn, got torch.bfloat16"):
        rvq.train()(z)


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 4, 8, stride=4)
        self.rvq = ResidualVectorQuantizer(4, 2, 8, learning=AT_ONCE)
        self.decoder = nn.ConvTranspose1d(4, 1, 8, stride=4)

    def forward(self, wav: Tensor) -> tuple[Tensor, QuantizedResult]:
        result: QuantizedResult = self.rvq(torch.tanh(self.encoder(wav)))
        return self.decoder(result.quantized), result


# Torch itself looks at `.grad` of what a graph break hands on; it hides the warning, not the error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_compiled_autoencoder_trains_as_one_that_is_not(rng: Generator) -> None:
    torch.manual_seed(0)
    plain = Autoencoder()
    compiled = copy.deepcopy(plain)
    step = torch.compile(compiled, backend="aot_eager")
    wav = torch.randn(2, 1, 204, generator=rng)
    for model, call in ((plain, plain), (compiled, step)):
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            estimate, result = call(wav)
            loss = (estimate - wav).square().mean() + result.commitment_loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for one, other in zip(plain.state_dict().values(), compiled.state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("books", CODEBOOKS)
@pytest.mark.parametrize("kind", ["plain", "level cosine"])
def test_a_checkpoint_holds_all_that_training_goes_on_from(
    books: Literal["ema", "gradient"], kind: str, rng: Generator
) -> None:
    z = torch.randn(2, 6, 200, generator=rng)
    options = replace(AT_ONCE, codebooks=books)
    rvq = trained(z, options, **KINDS[kind])
    rvq(z)
    file = io.BytesIO()
    torch.save(rvq.state_dict(), file)
    file.seek(0)
    other = ResidualVectorQuantizer(6, 3, 8, learning=options, **KINDS[kind])
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.entropy, rvq.entropy)
    for model in (rvq, other):
        torch.manual_seed(5)
        model(z + 1)
    assert same(state(rvq), state(other))


# Bad and empty input


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_values_that_are_not_finite_change_nothing(value: float, rng: Generator) -> None:
    bad = torch.randn(1, 4, 50, generator=rng)
    bad[0, 2, 3] = value
    fresh = ResidualVectorQuantizer(4, 3, 8)
    for rvq in (
        fresh,
        trained(torch.randn(1, 4, 50, generator=rng)),
        trained(bad[:, :, 9:], codebook_dim=2),
    ):
        before, collected = state(rvq), rvq._start.vectors
        with pytest.raises(ValueError, match="NaN or infinite"):
            rvq(bad)
        assert same(before, state(rvq))
        assert rvq._start.vectors is collected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 6, 5), (2, 6, 0)])
def test_no_latents_give_no_codes_and_teach_nothing(
    kind: str, shape: tuple[int, int, int], rng: Generator
) -> None:
    rvq = trained(torch.randn(1, 6, 50, generator=rng), **KINDS[kind])
    before = state(rvq)
    result = rvq(torch.zeros(shape, requires_grad=True))
    assert result.quantized.shape == shape
    assert result.codes.shape == (shape[0], 3, shape[2])
    assert result.commitment_loss.item() == 0
    result.commitment_loss.backward()
    assert same(before, state(rvq))


def test_bad_options_name_value_and_limit(rng: Generator) -> None:
    for options, message in (
        ({"decay": 1.0}, "decay must be in 0 <= decay < 1, got 1.0"),
        ({"epsilon": 0.0}, "epsilon must be above 0, got 0.0"),
        ({"quantizer_dropout": 1.5}, r"quantizer_dropout must be in 0..1, got 1.5"),
        ({"start_vectors": -1}, "start_vectors must be at least 0, got -1"),
        ({"threshold_ema_dead_code": -2.0}, "threshold_ema_dead_code must be at least 0"),
        ({"codebooks": "sgd"}, r"codebooks must be one of .*, got 'sgd'"),
        ({"gradient": "ste"}, r"gradient must be one of .*, got 'ste'"),
    ):
        with pytest.raises(ValueError, match=message):
            Learning(**options)
    rvq = trained(torch.randn(2, 4, 50, generator=rng))
    with pytest.raises(ValueError, match=r"item_codebooks must be int64 \[2\]"):
        rvq(torch.zeros(2, 4, 5), item_codebooks=torch.ones(3))
    with pytest.raises(ValueError, match=r"item_codebooks must lie in 0..2, got \[3, 1\]"):
        rvq(torch.zeros(2, 4, 5), 2, item_codebooks=torch.tensor([3, 1]))
    with pytest.raises(ValueError, match=r"frame_rate must be above 0, got 0"):
        ResidualVectorQuantizer(4, 3, 8, frame_rate=0)
    with pytest.raises(ValueError, match="codebook_dim must be at least 1, got 0"):
        ResidualVectorQuantizer(4, 3, 8, codebook_dim=0)
    assert rvq(torch.zeros(2, 4, 5)).bitrate_kbps is None
