"""How codebooks learn: by exponential moving averages, with revival of dead entries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor

from neuralcodec.quantize import distributed
from neuralcodec.quantize.gradient import Gradient
from neuralcodec.quantize.inputs import check_tensor
from neuralcodec.quantize.kmeans import count_and_sum

_DEAD_SHARE = 0.1  # upper limit of the threshold for dead entries, relative to the mean count


@dataclass(frozen=True)
class Learning:
    """How the codebooks of a quantizer learn.

    Attributes:
        codebooks: "ema": each entry is an exponential moving average of the vectors assigned to it,
            outside any optimiser; "gradient": the codebooks are a parameter, trained by
            `codebook_loss`.
        decay: decay per batch of the moving averages and of the usage histogram; 0 <= decay < 1.
        epsilon: constant of the Laplace smoothing of the counts, above 0.
        threshold_ema_dead_code: an entry whose moving-average count per batch is below this
            threshold is replaced by a random vector of the batch; 0 disables this. The threshold is
            limited to a tenth of the mean count, since otherwise every entry would be dead in small
            batches.
        gradient: gradient estimator, "straight_through", "rotation" or "noise_substitution"; see
            `gradient`. The last one is not available with a projection per level.
        quantizer_dropout: probability, 0..1, that an item of a batch uses a random number of
            levels, uniform in 1..K, instead of all (Zeghidour et al. 2021, section III-C).
        start_vectors: vectors per entry to collect from the first batches for the k-means
            initialisation; 0: the entries are initialised at random, without k-means.
        update: "call": each call of `forward` updates the codebooks; "manual": calls collect
            their latents, and `update` learns from all of them as from one batch, for gradient
            accumulation.

    Raises:
        ValueError: if a value is outside its range.
    """

    codebooks: Literal["ema", "gradient"] = "ema"
    decay: float = 0.99
    epsilon: float = 1e-5
    threshold_ema_dead_code: float = 2.0
    gradient: Gradient = "straight_through"
    quantizer_dropout: float = 0.0
    start_vectors: int = 16
    update: Literal["call", "manual"] = "call"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("codebooks", self.codebooks, ("ema", "gradient")),
            ("gradient", self.gradient, get_args(Gradient)),
            ("update", self.update, ("call", "manual")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
        for holds, name, limits in (
            (0 <= self.decay < 1, "decay", "in 0 <= decay < 1"),
            (self.epsilon > 0, "epsilon", "above 0"),
            (self.threshold_ema_dead_code >= 0, "threshold_ema_dead_code", "at least 0"),
            (0 <= self.quantizer_dropout <= 1, "quantizer_dropout", "in 0..1"),
            (self.start_vectors >= 0, "start_vectors", "at least 0"),
        ):
            if not holds:
                raise ValueError(f"{name} must be {limits}, got {getattr(self, name)}")


def draw_levels(batch: int, levels: int, dropout: float, device: torch.device) -> Tensor:
    """Return the number of levels each item uses, int64 `[B]`.

    It is `levels` or, with probability `dropout`, uniform in 1..levels.
    """
    used = torch.full((batch,), levels, device=device)
    if dropout == 0:
        return used
    drawn = torch.randint(1, levels + 1, (batch,), device=device)
    return torch.where(torch.rand(batch, device=device) < dropout, drawn, used)


def check_levels(given: Tensor, batch: int, levels: int) -> Tensor:
    """Return `given`, the number of levels of each item of a batch, after checking it.

    Raises:
        ValueError: if it is not int64 `[B]` in 0..levels.
    """
    check_tensor(given, f"item_codebooks [{batch}]")
    if given.shape != (batch,) or given.dtype != torch.int64:
        raise ValueError(
            f"item_codebooks must be int64 [{batch}], got {given.dtype} {list(given.shape)}"
        )
    if ((given < 0) | (given > levels)).any():
        raise ValueError(f"item_codebooks must lie in 0..{levels}, got {given.tolist()}")
    return given


class Seen(NamedTuple):
    """What the levels of a quantizer were given and what they selected.

    Attributes:
        vectors: per level, `[N, D]` float32: what was looked up.
        codes: per level, `[N]` int64: the entries that were selected. N may differ by level.
    """

    vectors: list[Tensor]
    codes: list[Tensor]

    @classmethod
    def of(cls, inputs: Sequence[Tensor], codes: Tensor, mask: Tensor | None) -> Self:
        """Take the frames of a batch that `mask` marks, default all.

        Args:
            inputs: per level, `[B, T, D]`.
            codes: `[B, T, K]` int64.
            mask: `[B, T]` bool, or None.
        """
        if mask is None:
            return cls([each.flatten(0, 1) for each in inputs], list(codes.flatten(0, 1).T))
        return cls([each[mask] for each in inputs], list(codes[mask].T))

    @classmethod
    def joined(cls, parts: Sequence["Seen"]) -> Self:
        """Join what several batches have seen into one; a level may be missing in some."""
        levels = max((len(part.codes) for part in parts), default=0)
        return cls(
            [torch.cat([p.vectors[k] for p in parts if k < len(p.codes)]) for k in range(levels)],
            [torch.cat([p.codes[k] for p in parts if k < len(p.codes)]) for k in range(levels)],
        )


@dataclass(frozen=True)
class State:
    """The tensors of a quantizer that training updates in place.

    Attributes:
        codebooks: `[K, V, D]`.
        counts: `[K, V]`, exponential moving average of the number of vectors per batch assigned to
            each entry; zero for a level that has seen none yet.
        sums: `[K, V, D]`, exponential moving average of their sum; None if the codebooks are
            trained by gradient.
        histogram: `[K, V]`, see `statistics`.
        valid: `[K, V]` bool, False beyond the size of a level; read only.
    """

    codebooks: Tensor
    counts: Tensor
    sums: Tensor | None
    histogram: Tensor
    valid: Tensor

    def reset(self) -> None:
        """Reset all statistics to zero."""
        self.counts.zero_()
        self.histogram.zero_()
        if self.sums is not None:
            self.sums.zero_()

    def restart(self, codebooks: Tensor) -> None:
        """Replace the codebooks and reset all statistics."""
        self.codebooks.copy_(codebooks)
        self.reset()


def _tally(seen: Seen, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return counts `[K, V]` and sums `[K, V, D]` of the vectors per entry, over all processes."""
    sums = torch.zeros_like(like)
    counts = torch.zeros_like(sums[:, :, 0])
    for k, (vectors, codes) in enumerate(zip(*seen, strict=True)):
        if len(codes):
            counts[k], sums[k] = count_and_sum(vectors, codes, like.shape[1])
    distributed.add_all(counts, sums)
    return counts, sums


def _smooth(counts: Tensor, size: Tensor, epsilon: float) -> Tensor:
    """Apply Laplace smoothing to counts `[K, V]`: all become positive, their total is kept."""
    total = counts.sum(dim=1, keepdim=True)
    return (counts + epsilon) / (total + size * epsilon) * total


def _draw_vectors(seen: Sequence[Tensor], dead: Tensor, codebooks: Tensor) -> Tensor:
    """Draw a vector of rank 0's batch for each dead entry, `[n, D]` in the order of `dead`.

    If that process has no vectors for a level, the dead entries of the level keep their values.
    """
    drawn = []
    for k, wanting in enumerate(dead):
        vectors = seen[k] if k < len(seen) else codebooks.new_empty(0)
        if len(vectors) == 0:
            drawn.append(codebooks[k][wanting])
            continue
        place = torch.randint(len(vectors), (int(wanting.sum()),), device=vectors.device)
        drawn.append(vectors[place])
    joined = torch.cat(drawn)
    distributed.copy_first(joined)
    return joined


@torch.no_grad()
def learn(state: State, options: Learning, seen: Seen) -> None:
    """Update codebooks from a batch: moving averages, then replacement of dead entries.

    The exponential moving averages of van den Oord et al. 2017, appendix A.1 (arXiv:1711.00937).
    They are initialised as if each entry had been assigned an equal share of the first batch. All
    vectors count at every level that was looked up, even if quantizer dropout excludes the level
    from an item's sum. A level without vectors in all processes keeps its state. Codebooks that are
    trained by gradient only have their statistics updated and their dead entries replaced.

    Args:
        state: updated in place.
        options: how to learn.
        seen: what the levels that were looked up have seen, of this process.
    """
    books, counts, sums, decay = state.codebooks, state.counts, state.sums, options.decay
    batch_counts, batch_sums = _tally(seen, books)
    total = batch_counts.sum(dim=1, keepdim=True)  # [K, 1]
    size = state.valid.sum(dim=1, keepdim=True)
    named = total > 0
    fresh = counts.sum(dim=1, keepdim=True) == 0
    if sums is not None:
        begun = torch.where((named & fresh)[..., None], books * (total / size)[..., None], sums)
        sums.copy_(torch.where(named[..., None], torch.lerp(batch_sums, begun, decay), sums))
    begun = torch.where(fresh, total / size * state.valid, counts)
    counts.copy_(torch.where(named, torch.lerp(batch_counts, begun, decay), counts))
    histogram = state.histogram
    histogram.copy_(torch.where(named, decay * histogram + batch_counts, histogram))
    if sums is not None:
        means = sums / _smooth(counts, size, options.epsilon)[..., None]
        books.copy_(torch.where(named[..., None], means, books))

    mean = counts.sum(dim=1, keepdim=True) / size
    limit = (_DEAD_SHARE * mean).clamp(max=options.threshold_ema_dead_code).expand_as(counts)
    dead = (counts < limit) & state.valid & named
    if dead.any():
        books[dead] = _draw_vectors(seen.vectors, dead, books).to(books)
        counts[dead] = limit[dead]
        if sums is not None:
            sums[dead] = books[dead] * limit[dead][:, None]
