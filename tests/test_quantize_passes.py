"""When a quantizer learns: each batch once, in the loops that people run, and never when frozen."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from neuralcodec.quantize import (
    GroupedResidualVectorQuantizer,
    Learning,
    ResidualVectorQuantizer,
    SplitResidualVectorQuantizer,
)

QUIET = Learning(start_vectors=1, decay=0.8)
Quantizer = ResidualVectorQuantizer | GroupedResidualVectorQuantizer | SplitResidualVectorQuantizer


def build(learning: Learning | None = QUIET, **settings: Any) -> ResidualVectorQuantizer:
    torch.manual_seed(0)
    return ResidualVectorQuantizer(4, 3, 8, learning=learning, **settings)


def trained(z: Tensor, learning: Learning = QUIET) -> ResidualVectorQuantizer:
    rvq = build(learning)
    rvq._take(torch.randn(3, 8, 4, generator=Generator().manual_seed(1)))
    rvq(z)
    if learning.update == "manual":
        rvq.update()
    return rvq


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def z(rng: Generator) -> Tensor:
    return torch.randn(8, 4, 50, generator=rng)


# Frozen, or without gradients


@pytest.mark.parametrize("codebooks", ["ema", "gradient"])
@pytest.mark.parametrize("kind", ["alone", "grouped", "split"])
def test_a_frozen_quantizer_stays_as_it_is_and_passes_gradients_on(
    codebooks: Any, kind: str, rng: Generator
) -> None:
    learning = replace(QUIET, codebooks=codebooks)
    z = torch.randn(2, 8 if kind == "grouped" else 4, 50, generator=rng, requires_grad=True)
    rvq: Quantizer = build(learning)
    if kind == "grouped":
        rvq = GroupedResidualVectorQuantizer([build(learning), build(learning)])
    if kind == "split":
        rvq = SplitResidualVectorQuantizer([build(learning), build(learning)])
    rvq.fit(z.detach())
    before = state(rvq)
    rvq.train().freeze()
    for _ in range(3):
        result = rvq(z)
        (result.quantized.square().mean() + result.commitment_loss).backward()
    assert same(before, state(rvq))
    assert z.grad is not None
    assert [each.grad for each in rvq.parameters()] == [None] * len(list(rvq.parameters()))
    rvq.unfreeze()(z)
    assert not same(before, state(rvq))


def test_requires_grad_of_the_quantizer_is_the_same_switch(z: Tensor) -> None:
    for learning in (QUIET, replace(QUIET, codebooks="gradient")):
        rvq = trained(z, learning)
        before = state(rvq)
        rvq.requires_grad_(False)(z)
        assert same(before, state(rvq))
        rvq.requires_grad_(True)(z)
        assert not same(before, state(rvq))


def test_a_parameter_that_requires_no_gradient_is_not_revived_either(z: Tensor) -> None:
    rvq = trained(z, replace(QUIET, codebooks="gradient"))
    nn.Sequential(rvq).requires_grad_(False)  # reaches parameters only
    with torch.no_grad():
        rvq.codebooks[0, 3] = 1e4
    rvq.counts[0, 3] = 0.0
    before = state(rvq)
    rvq(z)
    assert same(before, state(rvq))


def test_learning_none_codes_in_training_mode_what_was_given_to_it(z: Tensor) -> None:
    books = torch.randn(3, 8, 4, generator=Generator().manual_seed(1))
    rvq = ResidualVectorQuantizer.from_codebooks(books, learning=None).train()
    rvq(z)
    assert torch.equal(rvq.codebooks, books)
    assert "frozen" in repr(rvq)
    with pytest.raises(RuntimeError, match="no codebooks yet"):
        build(learning=None).train()(z)


def test_without_gradients_a_pass_in_training_mode_does_not_learn(z: Tensor) -> None:
    rvq = trained(z)
    before = state(rvq)
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            found = rvq(z)
        assert torch.equal(found.codes, rvq.encode(z))
    assert same(before, state(rvq))
    rvq(z)
    assert not same(before, state(rvq))


def test_without_gradients_a_start_begins_but_does_not_go_on(z: Tensor) -> None:
    rvq = build(Learning(start_vectors=1000))
    with torch.no_grad():
        rvq(z)
        before = rvq.codebooks.clone()
        assert before.any()
        for scale in (2, 3, 4):
            rvq(scale * z)
    assert torch.equal(rvq.codebooks, before)


# Gradient accumulation


@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_four_quarters_of_a_batch_teach_what_the_batch_teaches(threshold: float, z: Tensor) -> None:
    learning = replace(QUIET, threshold_ema_dead_code=threshold)
    whole, parts = trained(z, learning), trained(z, replace(learning, update="manual"))
    assert same(state(whole), state(parts))
    for step in range(5):
        batch = z * (1 + step)  # so that entries die
        torch.manual_seed(step)
        codes = whole(batch).codes
        before = state(parts)
        found = torch.cat([parts(part).codes for part in batch.chunk(4)])
        assert torch.equal(found, codes)
        assert same(before, state(parts))
        torch.manual_seed(step)
        parts.update()
        assert same(state(whole), state(parts))
    parts.update()  # nothing new
    assert same(state(whole), state(parts))


def test_parts_of_a_batch_may_differ_in_length_and_depth(z: Tensor) -> None:
    rvq = trained(z, replace(QUIET, update="manual", decay=0.0))
    rvq(z[:, :, :10])
    rvq(z[:3, :, 10:13], 2)
    rvq.update()
    assert rvq.counts.sum(dim=1).tolist() == pytest.approx([89.0, 89.0, 80.0])


def test_a_start_in_parts_fits_when_updated(z: Tensor) -> None:
    rvq = build(Learning(start_vectors=16, update="manual"))
    rvq(z[:1])  # there must be codebooks to return anything
    first = rvq.codebooks.clone()
    assert first.any()
    for item in range(1, 8):
        rvq(z[item : item + 1])
    assert torch.equal(rvq.codebooks, first)
    rvq.update()
    assert rvq.fitted
    assert not torch.equal(rvq.codebooks, first)


def test_update_is_for_manual_updates_only(z: Tensor) -> None:
    with pytest.raises(ValueError, match=r"needs Learning\(update='manual'\), got update='call'"):
        trained(z).update()
    with pytest.raises(ValueError, match=r"update must be one of .*, got 'step'"):
        Learning(update="step")  # type: ignore[arg-type]


def test_groups_update_all_parts(rng: Generator) -> None:
    z = torch.randn(2, 8, 50, generator=rng)
    pair = [
        GroupedResidualVectorQuantizer([build(replace(QUIET, update=way)) for _ in range(2)])
        for way in ("call", "manual")
    ]
    for rvq in pair:
        rvq.fit(z)
        torch.manual_seed(0)
        rvq.train()(z)
    torch.manual_seed(0)
    pair[1].update()
    assert same(state(pair[0]), state(pair[1]))


# Activation checkpointing


class Block(nn.Module):
    """An encoder and a quantizer that are computed again in the backward pass."""

    def __init__(self, learning: Learning) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Conv1d(4, 4, 1)
        self.rvq = build(learning)

    def forward(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        result = self.rvq(torch.tanh(self.encoder(wav)))
        return result.quantized, result.commitment_loss


def run(block: Block, z: Tensor, call: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for step in range(4):
        torch.manual_seed(step)
        quantized, loss = call((z + step).requires_grad_())
        optimizer.zero_grad()
        (quantized.square().mean() + loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def again(block: Block, reentrant: bool) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Call a block so that the backward pass computes it a second time."""

    def call(wav: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = checkpoint(block, wav, use_reentrant=reentrant)
        return found

    return call


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("codebooks", ["ema", "gradient"])
def test_what_checkpointing_computes_again_is_learned_once_and_gives_the_same_gradients(
    reentrant: bool, codebooks: Any, z: Tensor
) -> None:
    learning = replace(QUIET, codebooks=codebooks)
    plain, other = Block(learning), Block(learning)
    run(plain, z, plain)
    run(other, z, again(other, reentrant))
    assert same(state(plain), state(other))


def test_passes_that_are_computed_again_in_reverse_order_have_codebooks_of_their_own(
    z: Tensor,
) -> None:
    grads = []
    for repeated in (False, True):
        block, inputs = Block(QUIET), [(z + k).requires_grad_() for k in range(3)]
        losses = []
        for wav in inputs:
            quantized, loss = again(block, False)(wav) if repeated else block(wav)
            losses.append(quantized.square().mean() + loss)
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        grads.append([wav.grad for wav in inputs])
    for one, other in zip(*grads, strict=True):
        assert one is not None
        assert torch.equal(one, other)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_start_under_checkpointing_collects_each_batch_once(reentrant: bool, z: Tensor) -> None:
    block = Block(replace(QUIET, start_vectors=120))  # 960 vectors of 400 a batch
    fitted = []
    for step in range(4):
        quantized, _ = again(block, reentrant)((z + step).requires_grad_())
        quantized.mean().backward()  # type: ignore[no-untyped-call]
        fitted.append(bool(block.rvq.fitted))
    assert fitted == [False, False, True, True]


@pytest.mark.parametrize("reentrant", [False, True])
def test_validation_between_steps_is_not_learned_later(reentrant: bool, z: Tensor) -> None:
    plain, other = Block(QUIET), Block(QUIET)
    for block, call in ((plain, plain), (other, again(other, reentrant))):
        for step in range(3):
            torch.manual_seed(step)
            quantized, loss = call(z.clone().requires_grad_())
            (quantized.mean() + loss).backward()
            with torch.no_grad():  # in training mode by mistake
                block(3 * z)
    assert same(state(plain), state(other))


def test_a_copy_learns_on_its_own(z: Tensor) -> None:
    rvq = trained(z, replace(QUIET, update="manual"))
    rvq(z)
    other = copy.deepcopy(rvq)
    before = state(rvq)
    other.update()
    assert same(before, state(rvq))
    assert not same(before, state(other))


# The former names


def test_the_former_names_work_with_a_warning(z: Tensor) -> None:
    from neuralcodec import quantize

    with pytest.warns(DeprecationWarning, match="Training is now called Learning"):
        former = quantize.Training
    assert former is Learning
    with pytest.warns(DeprecationWarning, match="`training` is now called `learning`"):
        rvq = ResidualVectorQuantizer(4, 3, 8, training=former(decay=0.5))
    assert rvq.learning.decay == 0.5
    assert rvq.training is True
    with pytest.warns(DeprecationWarning, match="`training` is now called `learning`"):
        rvq = ResidualVectorQuantizer.from_codebooks(torch.zeros(1, 2, 3), training=former())
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = quantize.Trainer
