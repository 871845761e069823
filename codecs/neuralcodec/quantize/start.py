"""K-means initialisation of the codebooks from the vectors of the first training batches.

A batch rarely contains enough vectors for k-means, so they are collected over several batches.
Until there are enough, the codebooks are fitted again whenever the number of vectors has doubled.
The quantizer is thus usable from the first batch on, and all earlier fits together cost no more
than the last one.
"""

import torch
from torch import Tensor

from neuralcodec.quantize import distributed

ITERATIONS = 10
"""K-means iterations per level."""

_NOISE = 1e-3  # noise on repeated vectors, relative to the spread of all vectors


def _draw(vectors: Tensor, count: int) -> Tensor:
    """Draw at most `count` of the rows at random, without replacement."""
    if len(vectors) <= count:
        return vectors
    return vectors[torch.randperm(len(vectors), device=vectors.device)[:count]]


class Start:
    """The vectors collected so far, from all processes.

    Args:
        wanted: number of vectors to collect.

    Attributes:
        vectors: `[N, D]` float32, None before the first batch.
        fitted: number of vectors available to the last fit; 0 if there was none.
        ahead: whether the vectors of the next pass that teaches are here already, since activation
            checkpointing computes it a second time.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.vectors: Tensor | None = None
        self.fitted = 0
        self.ahead = False

    @property
    def complete(self) -> bool:
        """Whether the last fit had all the vectors that were wanted."""
        return self.fitted >= self.wanted

    def add(self, vectors: Tensor) -> None:
        """Add the vectors `[N, D]` of a batch of this process, and those of the others."""
        new = distributed.gather_rows(_draw(vectors, self.wanted))
        self.vectors = new if self.vectors is None else torch.cat([self.vectors, new])

    def due(self) -> Tensor | None:
        """Return the vectors to fit on, or None if no fit is due."""
        held = self.vectors
        if held is None or len(held) == 0 or len(held) < min(2 * self.fitted, self.wanted):
            return None
        self.fitted = len(held)
        return _draw(held, self.wanted)


def at_least(vectors: Tensor, count: int) -> Tensor:
    """Repeat vectors `[N, D]`, N >= 1, with a little noise until there are at least `count`."""
    if len(vectors) >= count:
        return vectors
    place = torch.arange(len(vectors), count, device=vectors.device) % len(vectors)
    spread = _NOISE * (vectors.std(correction=0) + _NOISE)
    repeats = vectors[place]
    return torch.cat([vectors, repeats + spread * torch.randn_like(repeats)])
