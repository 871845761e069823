"""K-means clustering: a codebook of small mean squared error over a set of vectors (Lloyd 1982)."""

import torch
from torch import Generator, Tensor
from torch.nn import functional

from neuralcodec.quantize.lookup import Books, search

_SEEDING_ROUNDS = 16
_SEEDING_SAMPLE = 16  # vectors per entry that the seeding considers


def nearest(vectors: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest entry of one codebook for each vector, and its squared distance.

    Args:
        vectors: `[N, D]`, float.
        codebook: `[V, D]`, float.

    Returns:
        Codes `[N]` int64, ties broken towards the lowest index; squared distances `[N]` float32.
    """
    found = search(vectors[None], Books.of(codebook[None]), squared_error=True)
    assert found.squared_error is not None  # asked for
    return found.codes[0, :, 0], found.squared_error[0]


def count_and_sum(vectors: Tensor, codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Count and sum the vectors assigned to each entry.

    The vectors are sorted by code and summed per entry. Unlike `index_add_` this is deterministic
    on GPUs and uses all cores on CPUs.

    Args:
        vectors: `[N, D]` float32.
        codes: `[N]` int64 in 0..V-1.
        size: V.

    Returns:
        Counts `[V]` and sums `[V, D]`, float32; zero for an entry without vectors.
    """
    counts = torch.bincount(codes, minlength=size)
    begins = counts.cumsum(dim=0) - counts
    order = codes.argsort(stable=True)
    return counts.float(), functional.embedding_bag(order, vectors, begins, mode="sum")


def _seed(vectors: Tensor, size: int, generator: Generator) -> Tensor:
    """Choose `size` of the vectors as initial entries by the rounds of k-means||.

    Bahmani et al. 2012 (arXiv:1203.6402): each round samples vectors with probabilities
    proportional to their squared distance to the entries chosen so far. Only a random subset of a
    large set is considered.
    """
    order = torch.randperm(len(vectors), generator=generator).to(vectors.device)
    vectors = vectors[order[: size * _SEEDING_SAMPLE]]
    chosen = vectors[:1]
    distance = nearest(vectors, chosen)[1]
    while len(chosen) < size:
        count = min(-(-size // _SEEDING_ROUNDS), size - len(chosen))
        # With duplicate vectors fewer than `count` may have a distance above zero.
        weights = distance.double() + 1e-12 * distance.double().mean() + 1e-30
        place = torch.multinomial(weights.cpu(), count, generator=generator)
        drawn = vectors[place.to(vectors.device)]
        chosen = torch.cat([chosen, drawn])
        distance = torch.minimum(distance, nearest(vectors, drawn)[1])
    return chosen


def kmeans(vectors: Tensor, size: int, *, iterations: int, generator: Generator) -> Tensor:
    """Fit a codebook of `size` entries to `vectors`.

    An entry without any vector is moved to one of the vectors with the largest squared error. The
    mean squared error never rises from one iteration to the next.

    Args:
        vectors: `[N, D]`, float32.
        size: number of entries, 1..N.
        iterations: iterations of assignment and update, at least 1.
        generator: source of the random initialisation; the same state gives the same codebook.

    Returns:
        `[size, D]` float32.

    Raises:
        ValueError: if `size` is outside 1..N.
    """
    if not 1 <= size <= len(vectors):
        raise ValueError(f"codebook_size must be 1..{len(vectors)}, the vectors to fit; got {size}")
    codebook = _seed(vectors, size, generator)
    for _ in range(iterations):
        codes, errors = nearest(vectors, codebook)
        counts, sums = count_and_sum(vectors, codes, size)
        empty = counts == 0
        if empty.any():
            worst = errors.argsort(descending=True, stable=True)[: int(empty.sum())]
            sums[empty], counts[empty] = vectors[worst], 1
        codebook = sums / counts[:, None]
    return codebook
