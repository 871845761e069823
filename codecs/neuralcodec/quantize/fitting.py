"""Fitting the codebooks of a residual quantizer without gradients.

Three things are done that plain k-means on residuals doesn't do, all for the sake of vectors that
were not fitted on:

- Beams. Each vector has several codes in the running, as in FAISS's residual quantizer, so that a
  level is fitted to what a beam search will leave over and not only to what a greedy one does.
- Shrinkage. An entry is the mean of few vectors, and neighbouring frames of audio are alike, so
  it holds chance. It is drawn back to the mean of all (James and Stein 1961), as far as
  cross-validation over stretches of the data finds best.
- Refinement. All levels are corrected together by what their sum leaves over, as
  additive quantizers are (Babenko and Lempitsky 2014, "Additive quantization").
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
"""Vectors an entry that k-means is given at most."""

_SAMPLE_FLOATS = 1 << 26  # numbers of the residuals of all beams: 256 MiB
_FOLDS = 4
_STRENGTHS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of shrinkage that validation tries
_VALIDATED = 16  # vectors an entry that cross-validation looks at


Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Progress:
    """What a fit has done so far.

    Attributes:
        step: steps done, from 1.
        steps: steps of the fit.
        stage: "level" for a level fitted, "refine" for a chunk that refinement went through.
        nmse: squared error over squared length, on the vectors of this step, after it.
    """

    step: int
    steps: int
    stage: str
    nmse: float


@dataclass(frozen=True)
class _Shrinkage:
    """How entries of one level are drawn back to the mean of its vectors.

    Entry c, the mean of n vectors, with distance d from the mean of all, has the squared error
    noise / n by chance. It keeps n d^2 / (n d^2 + strength noise) of its distance.
    """

    mean: Tensor  # [D]
    noise: Tensor  # scalar: mean squared distance of a vector to its entry
    strength: float

    def __call__(self, codebook: Tensor, counts: Tensor) -> Tensor:
        spread = counts * (codebook - self.mean).square().sum(dim=1)
        keep = spread / (spread + self.strength * self.noise).clamp(min=1e-30)
        return self.mean + keep[:, None] * (codebook - self.mean)


def _shrink(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Draw the entries `[V, D]` back to the mean, as cross-validation finds best.

    Stretches of the vectors are left out in turn, entries are made of the others, and what they
    leave over of the stretch is compared for each strength. Half the best strength is taken: for
    the level alone the full one is best, but half of it for the code of all levels, where later
    levels make up for what an entry overshoots (seen on the latents of Lyra, and on noise).
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
    """Give how many vectors of a larger set a fit holds in memory at once."""
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
    """Fit a codebook for each level to what the beams of the levels before it leave over.

    Args:
        vectors: `[N, D]` float32, in the order they follow each other in.
        sizes: entries of each level, each in 1..N.
        iterations: of k-means a level.
        beam_width: codes in the running for each vector.
        generator: of the random start and of the vectors chosen.
        report: is told of each level: "level", and the NMSE.

    Returns:
        `[K, V, D]` float32, V the largest size; zero beyond the size of a level.
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
    """Correct all levels by what their sum leaves over of each chunk, in place.

    A level after the other takes the mean of what is left over into its entries. The weight of a
    chunk falls with the number of vectors that an entry has seen, as in mini-batch k-means
    (Sculley 2010, "Web-scale k-means clustering").

    Args:
        codebooks: `[K, V, D]` float32, corrected.
        sizes: entries of each level.
        chunks: of vectors `[n, D]` float32.
        counts: `[K, V]` float32, vectors that each entry has seen, brought up to date.
        beam_width: of the encoding.
        report: is told of each chunk: "refine", and the NMSE.
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
    """Fit a codebook for each level behind a projection of its own, or of cosine metric.

    Args:
        vectors: `[N, D]` float32.
        sizes: entries of each level, each in 1..N.
        metric: by which the codes of a level are looked up.
        project_in: of each level; stays as it is.
        project_out: back from there.
        iterations: of k-means a level.
        generator: of the random start.
        report: is told of each level: "level", and the NMSE.

    Returns:
        `[K, V, Dc]` float32, V the largest size; zero beyond the size of a level.
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
