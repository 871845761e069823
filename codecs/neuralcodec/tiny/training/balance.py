"""Balancing of losses of different scales, so that their weights are effective.

Défossez et al. 2022, EnCodec (arXiv:2210.13438), section 3.4: the gradient of each loss with
respect to the output is normalised to a norm proportional to its weight, whatever the scale of the
loss.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class Balancer:
    """Weight losses by the norm of their gradients with respect to a network's output.

    Args:
        weights: weights of the losses by name, above 0; only their ratios count.
        decay: decay of the moving average of the gradient norms, per call.
        average: function that averages a tensor over the training processes, in place; None for a
            single process.

    Attributes:
        norms: `[losses, 2]` float64: the moving average of the gradient norm of each loss, and the
            total weight of that average, for its bias correction. It is the state to save for an
            exact resume.

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
        """Return the weighted sum of the normalised gradients of the losses at `output`.

        A gradient whose norm is not finite does not enter the moving average.

        Args:
            losses: scalars that depend on `output`, by the names of the weights. The share of a
                missing loss is left out; the other losses keep theirs.
            output: `[B, T]`, output of the network.

        Returns:
            Of the shape of `output`, the argument for `output.backward`. Its norm per item is about
            1 at most.
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
