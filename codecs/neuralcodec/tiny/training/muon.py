"""Muon, in single precision: an optimizer of matrices.

`torch.optim.Muon` is the same in bfloat16: quick where there are instructions for it, and dozens of
times slower than single precision on CPUs without.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_RMS = 0.2  # of a step's entries at learning rate 1, as AdamW's


def orthogonalized(matrix: Tensor) -> Tensor:
    """Bring all singular values of a matrix `[M, N]` near 1: to between 0.68 and 1.2.

    The Newton-Schulz iteration of Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon).
    What an iteration multiplies the matrix with is a polynomial in the matrix times its transpose,
    so all factors are computed from that smaller square, and the matrix is multiplied once.
    Singular values under 1/600 of the matrix's norm end lower.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalized(matrix.T).T
    linear, cubic, quintic = _POLYNOMIAL
    scaled = matrix / matrix.norm().clamp(min=1e-7)
    square = scaled @ scaled.T
    factors: list[Tensor] = []
    for _ in range(_ITERATIONS):
        if factors:
            square = factors[-1] @ (factors[-1] @ square)
        factor = torch.addmm(square, square, square, beta=cubic, alpha=quintic)
        factor.diagonal().add_(linear)
        factors.append(factor)
    product: Tensor = torch.linalg.multi_dot([*reversed(factors), scaled])
    return product


class Muon(Optimizer):
    """Steps along the orthogonalized momentum (Nesterov's) of each matrix.

    The steps have the size of AdamW's (Liu et al. 2025, arXiv:2502.16982, section 2.2), so one
    learning rate serves both.

    Args:
        parameters: matrices.
        lr: learning rate.
        weight_decay: share of a weight that a step takes off, times `lr`.
        momentum: of the gradients, 0 to 1.

    Raises:
        ValueError: if a parameter is not a matrix.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        matrices = list(parameters)
        shapes = [tuple(matrix.shape) for matrix in matrices if matrix.ndim != 2]
        if shapes:
            raise ValueError(f"Muon takes matrices, got a parameter of shape {shapes[0]}")
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step along the gradients; parameters without one stay."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 1 - momentum)
                step = orthogonalized(matrix.grad.lerp(state["momentum"], momentum))
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.add_(step, alpha=-rate * _RMS * max(matrix.shape) ** 0.5)
