"""The Muon optimiser for matrices, in single precision.

`torch.optim.Muon` computes in bfloat16, which is slow on CPUs without instructions for it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_RMS = 0.2  # root mean square of a step's entries at learning rate 1, as of AdamW


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return a matrix `[M, N]` with all singular values moved close to 1: between 0.68 and 1.2.

    The Newton-Schulz iteration of Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon).
    Each iteration multiplies the matrix with a polynomial in the matrix times its transpose. All
    factors are computed from that smaller square matrix, and the matrix is multiplied once.
    Singular values below 1/600 of the matrix's norm end below 0.68.
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
    """Optimiser that steps along the orthogonalised Nesterov momentum of each matrix.

    Steps have the size of AdamW's (Liu et al. 2025, arXiv:2502.16982, section 2.2), so that both
    can use the same learning rate.

    Args:
        parameters: matrices.
        lr: learning rate.
        weight_decay: decoupled weight decay: a step subtracts `lr * weight_decay` of a weight.
        momentum: decay of the moving average of the gradients, 0 to 1.

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
        """Update all parameters that have a gradient."""
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
