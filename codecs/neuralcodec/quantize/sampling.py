"""Random sampling from a stream of vectors, in order to fit on sets that exceed the memory."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

import numpy as np
import torch
from torch import Generator, Tensor

from neuralcodec.quantize.inputs import check_latents, check_mask
from neuralcodec.quantize.lookup.books import blocks, check_squares

_CHUNK = 1 << 22  # elements of a chunk


def chunks(
    z: Tensor | Iterable[Tensor], dim: int, mask: Tensor | Sequence[Tensor] | None = None
) -> Iterator[Tensor]:
    """Yield latents as chunks of vectors `[n, D]` float32, in their order.

    Args:
        z: `[B, D, T]`, float, or an iterable of such tensors.
        dim: D.
        mask: `[B, T]` bool, False for vectors to leave out; or a sequence of such tensors, one for
            each of `z`; default none.

    Raises:
        ValueError: if a tensor is not float `[B, D, T]`, its mask does not fit, there is not one
            mask for each, or a value is not finite.
    """
    rows = max(1, _CHUNK // dim)
    waiting: list[Tensor] = []
    alone = isinstance(z, Tensor | np.ndarray)
    masks = repeat(None) if mask is None else [mask] if alone else mask
    for each, valid in zip([z] if alone else z, masks, strict=mask is not None):
        each = check_latents(each, dim)
        check_mask(valid, each)
        for place in blocks(each.mT, rows):
            vectors = each.detach().mT[place].float().reshape(-1, dim)
            if valid is not None:
                vectors = vectors[valid[place].flatten()]
            check_squares(vectors.square().sum(dim=1), "z")
            waiting.append(vectors)
            if sum(map(len, waiting)) >= rows:
                yield torch.cat(waiting)
                waiting = []
    if waiting:
        yield torch.cat(waiting)


class Sample:
    """A uniform random sample without replacement from a stream of vectors.

    Every vector is assigned a random key; the vectors with the largest keys are kept.

    Args:
        size: maximum number of vectors in the sample.
        generator: source of the random keys.

    Attributes:
        seen: number of vectors added so far.
    """

    def __init__(self, size: int, generator: Generator) -> None:
        self.size, self.seen = size, 0
        self._generator = generator
        self._held: list[Tensor] = []
        self._keys: list[Tensor] = []
        self._count = 0

    def add(self, vectors: Tensor) -> None:
        """Add the next vectors `[n, D]` of the stream."""
        self.seen += len(vectors)
        self._held.append(vectors)
        self._keys.append(torch.rand(len(vectors), generator=self._generator, dtype=torch.float64))
        self._count += len(vectors)
        if self._count > 2 * self.size:
            self._thin()

    def _thin(self) -> None:
        keys, held = torch.cat(self._keys), torch.cat(self._held)
        if len(keys) > self.size:
            stay = keys.topk(self.size).indices.sort().values  # in the order of the stream
            keys, held = keys[stay], held[stay.to(held.device)]
        self._keys, self._held, self._count = [keys], [held], len(keys)

    def vectors(self) -> Tensor:
        """Return the sample, `[n, D]`, in the order of the stream.

        Raises:
            ValueError: if no vector was added.
        """
        if not self.seen:
            raise ValueError("there are no latents to fit on")
        self._thin()
        return self._held[0]
