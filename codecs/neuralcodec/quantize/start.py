"""The k-means start: codebooks from the vectors of the first training batches.

A batch rarely holds enough vectors for k-means, so they are collected. Until there are enough the
codebooks are fitted again each time their number has doubled: something is there to quantize with
from the first batch on, and the fits before the last cost no more than the last.
"""

import torch
from torch import Tensor

from neuralcodec.quantize import distributed

ITERATIONS = 10
"""Of k-means, a level."""

_NOISE = 1e-3  # of the spread of the vectors: what repeats are moved by


def _draw(vectors: Tensor, count: int) -> Tensor:
    """Draw at most `count` of the rows at random, none twice."""
    if len(vectors) <= count:
        return vectors
    return vectors[torch.randperm(len(vectors), device=vectors.device)[:count]]


class Start:
    """The vectors collected so far, from all processes.

    Args:
        wanted: vectors to collect.

    Attributes:
        vectors: `[N, D]` float32, None before the first batch.
        fitted: how many vectors the last fit was given; 0: there was none.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.vectors: Tensor | None = None
        self.fitted = 0

    @property
    def complete(self) -> bool:
        """Whether the last fit was given all that was wanted."""
        return self.fitted >= self.wanted

    def take(self, vectors: Tensor) -> Tensor | None:
        """Add vectors `[N, D]` of a batch: gives what to fit on, or None if it isn't time yet."""
        new = distributed.gather_rows(_draw(vectors, self.wanted))
        held = new if self.vectors is None else torch.cat([self.vectors, new])
        self.vectors = held
        if len(held) == 0 or len(held) < min(2 * self.fitted, self.wanted):
            return None
        self.fitted = len(held)
        return _draw(held, self.wanted)


def at_least(vectors: Tensor, count: int) -> Tensor:
    """Repeat vectors `[N, D]`, N >= 1, with a little noise, until there are `count` of them."""
    if len(vectors) >= count:
        return vectors
    place = torch.arange(len(vectors), count, device=vectors.device) % len(vectors)
    spread = _NOISE * (vectors.std(correction=0) + _NOISE)
    repeats = vectors[place]
    return torch.cat([vectors, repeats + spread * torch.randn_like(repeats)])
