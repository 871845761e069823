"""Trainable codebooks: the tensors of a quantizer and the projections around them.

The base class of the residual quantizer holds the state, the initialisation, the encoding and the
usage statistics of its codebooks.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from neuralcodec.quantize import card, distributed, encoding, statistics
from neuralcodec.quantize.fitting import Report, fit_beams, fit_projected
from neuralcodec.quantize.inputs import check_number
from neuralcodec.quantize.lookup import Books, Metric
from neuralcodec.quantize.lookup.books import check_squares
from neuralcodec.quantize.projection import Projection, decode_tables
from neuralcodec.quantize.start import ITERATIONS, Start, at_least
from neuralcodec.quantize.training import State, Training, learn

DEFAULTS = Training()


class Codebooks(nn.Module):
    """K codebooks in one tensor, together with their training state.

    The base class of `ResidualVectorQuantizer`, which documents the arguments.

    Attributes:
        codebooks: `[K, V, Dc]` float32; a buffer, or a parameter if they are trained by gradient. V
            is the largest size; rows beyond the size of a level are zero and unused.
        project_in: projection from D to Dc, or None.
        project_out: projection from Dc to D, or None.
        fitted: scalar bool; True once the codebooks exist and their initialisation is complete.
        counts: `[K, V]`, exponential moving average of the number of vectors per batch assigned to
            each entry.
        sums: `[K, V, Dc]`, exponential moving average of the sum of these vectors; None if the
            codebooks are trained by gradient.
        histogram: `[K, V]`, decayed count of how often each entry was selected in training; see
            `statistics`.
        valid: `[K, V]` bool, False beyond the size of a level; not in the `state_dict`.
        options: the `training` argument.

    Raises:
        ValueError: if a number is below 1, the number of sizes is not K, an option is unknown, or
            "noise_substitution" is combined with a projection per level.
    """

    codebooks: Tensor
    fitted: Tensor
    counts: Tensor
    sums: Tensor | None
    histogram: Tensor
    valid: Tensor

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int | Sequence[int],
        *,
        codebook_dim: int | None = None,
        projection: Literal["level", "shared"] = "level",
        metric: Metric = "euclidean",
        frame_rate: float | None = None,
        training: Training = DEFAULTS,
    ) -> None:
        dim = check_number("dim", dim, 1)
        num_codebooks = check_number("num_codebooks", num_codebooks, 1)
        inner = dim if codebook_dim is None else check_number("codebook_dim", codebook_dim, 1)
        each = codebook_size if isinstance(codebook_size, Iterable) else [codebook_size]
        sizes = tuple(check_number("codebook_size", size, 1) for size in each)
        if not isinstance(codebook_size, Iterable):
            sizes *= num_codebooks
        if len(sizes) != num_codebooks:
            raise ValueError(f"codebook_size must be {num_codebooks} numbers, got {sizes}")
        if projection not in ("level", "shared"):
            raise ValueError(f"projection must be 'level' or 'shared', got {projection!r}")
        if metric not in get_args(Metric):
            raise ValueError(f"metric must be one of {get_args(Metric)}, got {metric!r}")
        by_level = codebook_dim is not None and projection == "level"
        if by_level and training.gradient == "noise_substitution":
            raise ValueError("noise_substitution needs projection='shared' or none, got 'level'")
        if frame_rate is not None and not frame_rate > 0:
            raise ValueError(f"frame_rate must be above 0, got {frame_rate}")
        super().__init__()
        self.dim, self.num_codebooks, self.codebook_size = dim, num_codebooks, max(sizes)
        self.codebook_sizes, self.codebook_dim, self.metric = sizes, inner, metric
        self.frame_rate, self.options = frame_rate, training
        self.project_in: Projection | None = None
        self.project_out: Projection | None = None
        self._by_level = by_level
        if codebook_dim is not None:
            count = num_codebooks if self._by_level else 1
            self.project_in = Projection(count, dim, inner)
            self.project_out = Projection(count, inner, dim)

        valid = torch.arange(self.codebook_size) < torch.tensor(sizes)[:, None]
        books = torch.zeros(*valid.shape, inner)
        if training.start_vectors == 0:
            books = torch.randn_like(books) * valid[:, :, None]
        learned = training.codebooks == "gradient"
        if learned:
            self.codebooks = nn.Parameter(books)
        else:
            self.register_buffer("codebooks", books)
        self.register_buffer("sums", None if learned else torch.zeros_like(books))
        self.register_buffer("counts", torch.zeros(valid.shape))
        self.register_buffer("histogram", torch.zeros(valid.shape))
        self.register_buffer("fitted", torch.tensor(training.start_vectors == 0))
        self.register_buffer("valid", valid, persistent=False)
        self._start = Start(training.start_vectors * self.codebook_size)

    @property
    def usage(self) -> Tensor:
        """Fraction of the entries in use per level, `[K]`; see `statistics.usage`."""
        return statistics.usage(self.histogram, self.codebook_sizes)

    @property
    def entropy(self) -> Tensor:
        """Entropy in bits of the training codes per level, `[K]`; see `statistics.entropy`."""
        return statistics.entropy(self.histogram)

    @property
    def perplexity(self) -> Tensor:
        """Perplexity of the training codes per level, `[K]`: 2 to the power of the entropy."""
        return self.entropy.exp2()

    def summary(self) -> str:
        """Return a printable table of entries, usage, perplexity and entropy per level."""
        return statistics.table(self.codebook_sizes, self.usage, self.entropy)

    def books(self) -> Books:
        """Return the codebooks, prepared for the lookup."""
        return Books.of(self.codebooks, metric=self.metric, sizes=self.codebook_sizes)

    def tables(self) -> Tensor:
        """Return the contribution of each code to the latents, `[K, V, D]` float32.

        Rows beyond the size of a level are zero. With "shared" projections the bias is part of the
        first level's table; see `decode_tables`.
        """
        return decode_tables(self.codebooks, self.project_out) * self.valid[:, :, None]

    def __repr__(self) -> str:
        return card.line(type(self).__name__, card.facts(self.dim, [self]))

    def _repr_html_(self) -> str:
        shown = card.facts(self.dim, [self])
        figures = self.codebook_sizes, self.usage, self.entropy
        return card.html_card(type(self).__name__, shown, *figures)

    @property
    def started(self) -> bool:
        """Whether there are codebooks, if only of the first training batches."""
        return bool(self.fitted) or self._start.fitted > 0

    def check_started(self) -> None:
        """Check that the codebooks exist.

        Raises:
            RuntimeError: if they have been neither fitted, loaded nor initialised by training.
        """
        if self.codebooks.is_meta:  # which has no values: shapes flow through all the same
            return
        if not self.started:
            raise RuntimeError(
                "the quantizer has no codebooks yet: call fit or from_codebooks, or train it"
            )

    @property
    def _fitted_greedily(self) -> bool:
        """Whether `fit` is greedy: beams need levels that add up in one Euclidean space."""
        return self._by_level or self.metric != "euclidean"

    def _fit(
        self,
        vectors: Tensor,
        *,
        iterations: int,
        beam_width: int,
        generator: Generator,
        report: Report = lambda stage, nmse: None,
    ) -> Tensor:
        """Fit codebooks to vectors `[N, D]` float32 or, with a shared projection, `[N, Dc]`."""
        if self._fitted_greedily:
            return fit_projected(
                vectors,
                self.codebook_sizes,
                metric=self.metric,
                project_in=self.project_in if self._by_level else None,
                project_out=self.project_out if self._by_level else None,
                iterations=iterations,
                generator=generator,
                report=report,
            )
        return fit_beams(
            vectors,
            self.codebook_sizes,
            iterations=iterations,
            beam_width=beam_width,
            generator=generator,
            report=report,
        )

    def _shared(self, vectors: Tensor) -> Tensor:
        """Apply the shared input projection to latents `[N, D]`, if there is one."""
        if self.project_in is None or self._by_level:
            return vectors
        inner: Tensor = self.project_in(vectors)
        return inner

    @torch.no_grad()
    def _greedy(self, vectors: Tensor, depth: int, backend: str = "auto") -> Tensor:
        """Return the greedy codes `[B, T, depth]` of latents `[B, T, D]`."""
        return encoding.greedy(
            vectors,
            self.books().first(depth),
            project_in=self.project_in,
            tables=self.tables() if self._by_level else None,
            backend=backend,
        )

    @torch.no_grad()
    def _beam(
        self, vectors: Tensor, width: int, lengths: Sequence[int], backend: str
    ) -> list[Tensor]:
        """Return the beam-search codes `[B, T, k]` of latents `[B, T, D]` for each length k."""
        shared = None if self._by_level else self.project_in
        codebooks = self.tables() if shared is None else self.codebooks
        return encoding.beam(
            vectors,
            Books.of(codebooks, sizes=self.codebook_sizes),
            width=width,
            lengths=lengths,
            project_in=shared,
            backend=backend,
        )

    def _state(self) -> State:
        return State(self.codebooks, self.counts, self.sums, self.histogram, self.valid)

    @torch.no_grad()
    def _take(self, codebooks: Tensor) -> None:
        """Replace the codebooks by `[K, V, Dc]` and mark them as fitted."""
        self._state().restart(codebooks)
        self.fitted.fill_(True)

    @torch.no_grad()
    def _begin(self, vectors: Tensor) -> None:
        """Continue the initialisation with the latents `[N, D]` float32 of a batch.

        Raises:
            ValueError: if a latent is not finite or its squared length is above the float32 range.
        """
        check_squares(vectors.square().sum(dim=1), "z")
        chosen = self._start.take(vectors)
        if chosen is None:
            return
        books = torch.zeros_like(self.codebooks)
        if distributed.is_first():
            generator = Generator().manual_seed(int(torch.randint(2**31, ())))
            vectors = self._shared(at_least(chosen, self.codebook_size))
            books.copy_(
                self._fit(vectors, iterations=ITERATIONS, beam_width=1, generator=generator)
            )
        distributed.copy_first(books)
        self._state().restart(books)
        if self._start.complete:
            self.fitted.fill_(True)
            self._start = Start(self._start.wanted)  # releases the collected vectors

    def _learn(self, inputs: Sequence[Tensor], codes: Tensor) -> None:
        """Update the codebooks from each level's inputs `[B, T, Dc]` and the codes `[B, T, K]`.

        Raises:
            ValueError: if the module was converted to a type other than float32.
        """
        if self.codebooks.dtype != torch.float32:
            raise ValueError(
                f"codebooks must stay float32 to learn, got {self.codebooks.dtype}: "
                "use autocast in place of converting the module"
            )
        learn(self._state(), self.options, [each.detach() for each in inputs], codes)
