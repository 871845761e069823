"""Fitting of the codebooks of a residual quantizer without gradients.

Three steps go beyond k-means on residuals. All of them improve the error on held-out vectors:

- Beam search. Several candidate codes per vector are kept, as in FAISS's residual quantizer, so
  that a level is fitted to the residuals of a beam search and not only to those of a greedy search.
- Shrinkage. An entry is the mean of few vectors, and neighbouring audio frames are correlated, so
  the entry has a sampling error. It is shrunk towards the mean of all vectors (James and Stein
  1961), with a strength chosen by cross-validation over contiguous segments of the data.
- Refinement. All levels are corrected jointly by the residual of their sum, as in additive
  quantization (Babenko and Lempitsky 2014).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from neuralcodec.quantize.kmeans import count_and_sum, kmeans, nearest
from neuralcodec.quantize.lookup import Books, Metric, beam_search, extend_beams, search
from neuralcodec.quantize.projection import Projection

PER_ENTRY = 384
"""Maximum number of vectors per entry that k-means is run on."""

_SAMPLE_FLOATS = 1 << 26  # elements of the residuals of all beams: 256 MiB
_FOLDS = 4
_STRENGTHS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # shrinkage strengths that are validated
_VALIDATED = 16  # vectors per entry that cross-validation evaluates


Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Progress:
    """The progress of a fit after one of its steps.

    Attributes:
        step: number of completed steps, from 1.
        steps: total number of steps.
        stage: "level" after a level was fitted, "refine" after a chunk of a refinement pass.
        nmse: squared error divided by squared length, over the vectors of this step, after it.
    """

    step: int
    steps: int
    stage: str
    nmse: float


@dataclass(frozen=True)
class _Shrinkage:
    """Shrinkage of the entries of one level towards the mean of the level's vectors.

    An entry that is the mean of n vectors, at distance d from the mean of all, has the expected
    squared sampling error noise / n. It keeps n d^2 / (n d^2 + strength noise) of its distance.
    """

    mean: Tensor  # [D]
    noise: Tensor  # scalar: mean squared distance of a vector to its entry
    strength: float

    def __call__(self, codebook: Tensor, counts: Tensor) -> Tensor:
        spread = counts * (codebook - self.mean).square().sum(dim=1)
        keep = spread / (spread + self.strength * self.noise).clamp(min=1e-30)
        return self.mean + keep[:, None] * (codebook - self.mean)


def _shrink(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Shrink the entries `[V, D]` towards the mean, with a cross-validated strength.

    Each contiguous segment of the vectors is held out in turn. For each strength, entries are
    computed from the other vectors and evaluated by their squared error on the held-out segment.
    Half the best strength is then used: the full strength is best for a single level, but half of
    it is better for the sum of all levels, since later levels correct an entry that overshoots.
    """
    size = len(codebook)
    codes, errors = nearest(vectors, codebook)
    counts, sums = count_and_sum(vectors, codes, size)
    plain = _Shrinkage(vectors.mean(dim=0), errors.mean(), 0.0)
    folds = torch.chunk(torch.arange(len(vectors), device=vectors.device), _FOLDS)
    total = torch.zeros(len(_STRENGTHS), dtype=torch.float64)
    for fold in folds:
        left_counts, left_sums = count_and_sum(vectors[fold], codes[fold], size)
        others = (counts - left_counts).clamp(min=0)
        means = torch.where(
            others[:, None] > 0, (sums - left_sums) / others.clamp(min=1)[:, None], plain.mean
        )
        seen = vectors[fold[:: -(-len(vectors) // (_VALIDATED * size))]]
        for i, strength in enumerate(_STRENGTHS):
            shrinkage = _Shrinkage(plain.mean, plain.noise, strength)
            total[i] += nearest(seen, shrinkage(means, others))[1].double().sum().cpu()
    best = _STRENGTHS[int(total.argmin())]
    return _Shrinkage(plain.mean, plain.noise, best / 2)(codebook, counts)


def sample_size(dim: int, sizes: Sequence[int], beam_width: int) -> int:
    """Return how many vectors of a larger set a fit holds in memory at once."""
    return max(max(sizes), min(PER_ENTRY * max(sizes), _SAMPLE_FLOATS // (dim * beam_width)))


def fit_beams(
    vectors: Tensor,
    sizes: Sequence[int],
    *,
    iterations: int,
    beam_width: int,
    generator: Generator,
    report: Report,
) -> Tensor:
    """Fit the codebook of each level to the beam-search residuals of the levels before it.

    Args:
        vectors: `[N, D]` float32, in temporal order: cross-validation holds out contiguous
            segments.
        sizes: entries of each level, each in 1..N.
        iterations: k-means iterations per level.
        beam_width: number of candidate codes kept per vector.
        generator: source of the random initialisation and of the random subset of vectors.
        report: called after each level with "level" and the NMSE.

    Returns:
        `[K, V, D]` float32, where V is the largest size; zero beyond the size of a level.
    """
    power = vectors.square().sum()
    residuals = vectors[:, None]  # [N, beams, D]
    books = []
    for size in sizes:
        rows = residuals.flatten(0, 1)
        if len(rows) > PER_ENTRY * size:
            rows = rows[torch.randperm(len(rows), generator=generator)[: PER_ENTRY * size]]
        book = kmeans(rows, size, iterations=iterations, generator=generator)
        book = _shrink(residuals[:, 0], book)
        residuals = extend_beams(residuals, Books.of(book[None]), width=beam_width)
        books.append(functional.pad(book, (0, 0, 0, max(sizes) - size)))
        report("level", float(residuals[:, 0].square().sum() / power))
    return torch.stack(books)


def refine(
    codebooks: Tensor,
    sizes: Sequence[int],
    chunks: Iterable[Tensor],
    counts: Tensor,
    *,
    beam_width: int,
    report: Report,
) -> None:
    """Correct all levels by the residual of their sum on each chunk, in place.

    The levels are updated in turn: each adds the mean residual of its vectors to its entries. The
    weight of a chunk decreases with the number of vectors that an entry has seen, as in mini-batch
    k-means (Sculley 2010, "Web-scale k-means clustering").

    Args:
        codebooks: `[K, V, D]` float32, updated in place.
        sizes: entries of each level.
        chunks: chunks of vectors, `[n, D]` float32.
        counts: `[K, V]` float32, number of vectors that each entry has seen, updated in place.
        beam_width: beam width of the encoding.
        report: called after each chunk with "refine" and the NMSE.
    """
    for vectors in chunks:
        books = Books.of(codebooks, sizes=sizes)
        (codes,) = beam_search(vectors[None], books, width=beam_width, lengths=[len(sizes)])
        levels = list(zip(codebooks, codes[0].unbind(1), strict=True))
        residual = vectors - torch.stack([book[code] for book, code in levels]).sum(dim=0)
        for (book, code), seen in zip(levels, counts, strict=True):
            number, sums = count_and_sum(residual, code, len(book))
            seen += number
            step = sums / seen.clamp(min=1)[:, None]
            book += step
            residual -= step[code]
        report("refine", float(residual.square().sum() / vectors.square().sum()))


def fit_projected(
    vectors: Tensor,
    sizes: Sequence[int],
    *,
    metric: Metric,
    project_in: Projection | None,
    project_out: Projection | None,
    iterations: int,
    generator: Generator,
    report: Report,
) -> Tensor:
    """Fit the codebooks greedily, for levels with projections of their own or the cosine metric.

    Args:
        vectors: `[N, D]` float32.
        sizes: entries of each level, each in 1..N.
        metric: metric with which the codes of a level are looked up.
        project_in: input projection per level, left unchanged; None for none.
        project_out: output projection per level, left unchanged; None for none.
        iterations: k-means iterations per level.
        generator: source of the random initialisation.
        report: called after each level with "level" and the NMSE.

    Returns:
        `[K, V, Dc]` float32, where V is the largest size; zero beyond the size of a level.
    """
    power = vectors.square().sum()
    books, residual = [], vectors
    for k, size in enumerate(sizes):
        inner = residual if project_in is None else project_in(residual, k)
        book = kmeans(inner, size, iterations=iterations, generator=generator)
        found = book[search(inner[None], Books.of(book[None], metric=metric)).codes[0, :, 0]]
        residual = residual - (found if project_out is None else project_out(found, k))
        books.append(functional.pad(book, (0, 0, 0, max(sizes) - size)))
        report("level", float(residual.square().sum() / power))
    return torch.stack(books)
