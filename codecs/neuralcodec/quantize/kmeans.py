"""K-means: the codebook of least mean squared error over a set of vectors (Lloyd 1982)."""

import torch
from torch import Generator, Tensor

from neuralcodec.quantize.lookup import half_distances, nearest

_SEEDING_ROUNDS = 16
_SEEDING_SAMPLE = 16  # vectors an entry that the seeding looks at


def _seed(vectors: Tensor, size: int, generator: Generator) -> Tensor:
    """Choose `size` of the vectors as a start, far ones first.

    The rounds of k-means|| (Bahmani et al. 2012, arXiv:1203.6402): each draws some vectors with a
    chance in proportion to their squared distance from what is chosen already. Looks at a random
    part of a large set.
    """
    order = torch.randperm(len(vectors), generator=generator)
    vectors = vectors[order[: size * _SEEDING_SAMPLE]]
    norms = vectors.square().sum(dim=1)

    def distance_to(entries: Tensor) -> Tensor:
        """Squared distance of each vector to the nearest of few entries."""
        return (norms + 2 * half_distances(vectors, entries).amin(dim=1)).clamp_(min=0)

    chosen = vectors[:1]
    distance = distance_to(chosen)
    while len(chosen) < size:
        count = min(-(-size // _SEEDING_ROUNDS), size - len(chosen))
        # Where vectors repeat, fewer than `count` may lie apart from what is chosen.
        weights = distance.double() + 1e-12 * distance.double().mean() + 1e-30
        drawn = vectors[torch.multinomial(weights, count, generator=generator)]
        chosen = torch.cat([chosen, drawn])
        distance = torch.minimum(distance, distance_to(drawn))
    return chosen


def kmeans(vectors: Tensor, size: int, *, iterations: int, generator: Generator) -> Tensor:
    """Fit a codebook of `size` entries to `vectors`.

    An entry that no vector is nearest to moves onto the vector that is served worst. The mean
    squared error never rises from one iteration to the next.

    Args:
        vectors: `[N, D]`, float32.
        size: entries, 1..N.
        iterations: of assignment and update, at least 1.
        generator: of the random start; the same generator state gives the same codebook.

    Returns:
        `[size, D]` float32.

    Raises:
        ValueError: if `size` is outside 1..N.
    """
    if not 1 <= size <= len(vectors):
        raise ValueError(f"codebook_size must be 1..{len(vectors)}, the vectors to fit; got {size}")
    codebook = _seed(vectors, size, generator)
    for _ in range(iterations):
        codes = nearest(vectors, codebook)
        counts = torch.bincount(codes, minlength=size)
        sums = torch.zeros_like(codebook).index_add_(0, codes, vectors)
        empty = counts == 0
        if empty.any():
            errors = (vectors - codebook[codes]).square().sum(dim=1)
            worst = errors.argsort(descending=True, stable=True)[: int(empty.sum())]
            sums[empty], counts[empty] = vectors[worst], 1
        codebook = sums / counts[:, None]
    return codebook
