"""Losses of different kinds brought to weights that mean what they say.

Defossez et al. 2022, EnCodec (arXiv:2210.13438), section 3.4: the gradient of each loss towards the
output is scaled to a norm in proportion to its weight, whatever the loss's own scale is.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class Balancer:
    """Weigh losses by the gradient that they send to the output of a network.

    Args:
        weights: of the losses by name, above 0; only what they are to each other counts.
        decay: of the moving average of the norms.
        average: averages a tensor over processes that train together, in place; None: there is one.

    Attributes:
        norms: moving average of the gradient norm of each loss, and how much of the average is
            there, `[losses, 2]` float64: the state to keep for an exact resume.

    Raises:
        ValueError: if there is no loss, or a weight is not above 0.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        decay: float = 0.99,
        average: Callable[[Tensor], None] | None = None,
    ) -> None:
        if not weights or min(weights.values()) <= 0:
            raise ValueError(f"need losses with weights above 0, got {dict(weights)}")
        total = sum(weights.values())
        self.weights = {name: weight / total for name, weight in weights.items()}
        self.decay = decay
        self._average = average
        self.norms = torch.zeros(len(weights), 2, dtype=torch.float64)

    def gradient(self, losses: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """Give the gradient towards `output` of the losses together.

        Args:
            losses: scalars that depend on `output`, by the names of the weights; some may be
                missing, and the others then share what is left.
            output: `[B, T]`, what the network gave.

        Returns:
            Of the shape of `output`, to call `output.backward` with; its norm is near 1.
        """
        total = torch.zeros_like(output)
        for place, (name, weight) in enumerate(self.weights.items()):
            if name not in losses:
                continue
            (gradient,) = torch.autograd.grad(losses[name], output, retain_graph=True)
            norm = gradient.norm(dim=-1).mean()
            if self._average is not None:
                self._average(norm)
            norm = norm.double().cpu()
            if torch.isfinite(norm):
                new = torch.stack([norm, torch.ones_like(norm)])
                self.norms[place] = torch.lerp(new, self.norms[place], self.decay)
            mean = self.norms[place, 0] / self.norms[place, 1].clamp(min=1e-12)
            total += weight / float(mean.clamp(min=1e-12)) * gradient
        return total
