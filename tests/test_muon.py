"""Muon against torch's own, which is in bfloat16."""

import pytest
import torch
from torch import Generator, nn

from neuralcodec.tiny.training.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (12, 12)])
def test_singular_values_come_near_one_and_singular_vectors_stay(
    shape: tuple[int, int], rng: Generator
) -> None:
    left, _, right = torch.linalg.svd(torch.randn(*shape, generator=rng), full_matrices=False)
    values = torch.logspace(1, -1, len(right))
    matrix = orthogonalized(left @ values.diag() @ right)
    made = left.T @ matrix @ right.T
    torch.testing.assert_close(made, made.diagonal().diag(), atol=1e-4, rtol=0)
    assert float(made.diagonal().min()) > 0.68
    assert float(made.diagonal().max()) < 1.21


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it from 2.9 on")
def test_steps_are_those_of_torch(rng: Generator) -> None:
    ours = nn.Parameter(torch.randn(16, 48, generator=rng))
    theirs = nn.Parameter(ours.detach().clone())
    begin = ours.detach().clone()
    both = (
        Muon([ours], lr=1e-2, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(5):
        ours.grad = torch.randn(16, 48, generator=rng)
        theirs.grad = ours.grad.clone()
        for optimizer in both:
            optimizer.step()
    # An entry of bfloat16 is off by up to 1/256.
    off = (ours.detach() - theirs.detach()).norm() / (ours.detach() - begin).norm()
    assert float(off) < 0.02


def test_a_parameter_without_gradient_stays() -> None:
    parameter = nn.Parameter(torch.ones(2, 3))
    Muon([parameter], lr=1.0, weight_decay=0.5).step()
    assert torch.equal(parameter, torch.ones(2, 3))


def test_only_matrices_are_taken() -> None:
    with pytest.raises(ValueError, match=r"Muon takes matrices, got a parameter of shape \(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))], lr=1.0)
