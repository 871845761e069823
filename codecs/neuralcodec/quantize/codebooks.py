"""The tensors of a residual quantizer, and the lookup in them."""

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Generator, Tensor, nn

from neuralcodec.quantize import encoding
from neuralcodec.quantize.fitting import Report, fit_beams, fit_projected
from neuralcodec.quantize.inputs import check_number
from neuralcodec.quantize.layout import check_layout, described, layout_of
from neuralcodec.quantize.learning import Learning
from neuralcodec.quantize.lookup import Books, Metric
from neuralcodec.quantize.prepared import Prepared
from neuralcodec.quantize.projection import Projection, decode_tables

T = TypeVar("T")


class Codebooks(nn.Module):
    """K codebooks in one tensor, with projections around them.

    The base class of `TrainableCodebooks`, which adds how they learn, and of
    `ResidualVectorQuantizer`, which documents the arguments.

    Attributes:
        codebooks: `[K, V, Dc]` float32; a buffer, or a parameter if they are trained by gradient. V
            is the largest size; rows beyond the size of a level are zero and unused.
        project_in: projection from D to Dc, or None.
        project_out: projection from Dc to D, or None.
        fitted: scalar bool; True once the codebooks exist and their initialisation is complete.
        layout: `[K + 1]` int64, the sizes and the metric as numbers; it keeps a state dict from
            being loaded into a quantizer that would read it differently.

    Raises:
        ValueError: if a number is below 1, the number of sizes is not K, or an option is unknown.
    """

    codebooks: Tensor
    fitted: Tensor
    layout: Tensor

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int | Sequence[int],
        *,
        codebook_dim: int | None,
        projection: Literal["level", "shared"],
        metric: Metric,
        frame_rate: float | None,
        learning: Learning,
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
        if by_level and learning.gradient == "noise_substitution":
            raise ValueError("noise_substitution needs projection='shared' or none, got 'level'")
        if frame_rate is not None and not frame_rate > 0:
            raise ValueError(f"frame_rate must be above 0, got {frame_rate}")
        super().__init__()
        self.dim, self.num_codebooks, self.codebook_size = dim, num_codebooks, max(sizes)
        self.codebook_sizes, self.codebook_dim, self.metric = sizes, inner, metric
        self.frame_rate, self.learning = frame_rate, learning
        self.project_in: Projection | None = None
        self.project_out: Projection | None = None
        self._by_level = by_level
        if codebook_dim is not None:
            count = num_codebooks if self._by_level else 1
            self.project_in = Projection(count, dim, inner)
            self.project_out = Projection(count, inner, dim)
        books = torch.zeros(num_codebooks, self.codebook_size, inner)
        if learning.codebooks == "gradient":
            self.codebooks = nn.Parameter(books)
        else:
            self.register_buffer("codebooks", books)
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("layout", torch.tensor(layout_of(sizes, metric)))
        self._prepared, self._checked = Prepared(), Prepared()

    @property
    def valid(self) -> Tensor:
        """`[K, V]` bool, False beyond the size of a level."""
        return self._valid_on(self.codebooks.device)

    def _valid_on(self, device: torch.device) -> Tensor:
        sizes = torch.tensor(self.codebook_sizes, device=device)
        return torch.arange(self.codebook_size, device=device) < sizes[:, None]

    @property
    def _layout(self) -> list[int]:
        return layout_of(self.codebook_sizes, self.metric)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Make the quantizer's own tensors those of a new one, such as after `to_empty`.

        The projections are modules with a `reset_parameters` of their own.
        """
        self.codebooks.zero_()
        if self.learning.start_vectors == 0:
            self.codebooks.normal_().mul_(self.valid[:, :, None])
        self.fitted.fill_(self.learning.start_vectors == 0)
        self.layout.copy_(torch.tensor(self._layout))

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load as `nn.Module` does, but nothing that was made for another layout."""
        state_dict.setdefault(f"{prefix}layout", self._layout_of_old(state_dict, prefix))
        theirs = state_dict[f"{prefix}layout"]
        if not theirs.is_meta and theirs.tolist() != self._layout:
            error_msgs.append(
                f"{prefix.rstrip('.') or 'the quantizer'} has {described(self._layout)}, "
                f"the state dict has {described(theirs.tolist())}"
            )
            return
        super()._load_from_state_dict(
            *(state_dict, prefix, local_metadata, strict),
            *(missing_keys, unexpected_keys, error_msgs),
        )

    def _layout_of_old(self, state_dict: Mapping[str, Tensor], prefix: str) -> Tensor:
        """Return the layout of a state dict that does not store it, as far as can be seen."""
        books = state_dict.get(f"{prefix}codebooks", self.codebooks)
        sizes: Sequence[int] = self.codebook_sizes
        if not books.is_meta and books.shape == self.codebooks.shape:
            if books[~self._valid_on(books.device)].any():  # entries beyond these sizes
                sizes = [self.codebook_size] * self.num_codebooks
        return torch.tensor(layout_of(sizes, self.metric), device=books.device)

    def check_filled(self) -> None:
        """Check that the tensors hold a quantizer's values.

        Raises:
            RuntimeError: if they were allocated and never filled, or are of another layout.
        """
        if not self.layout.is_meta:
            check = functools.partial(check_layout, self.layout, self._layout)
            self._checked.get("layout", [self.layout], check)  # once after each change

    def books(self, num_codebooks: int | None = None) -> Books:
        """Return the codebooks of the first levels, default all, prepared for the lookup."""
        count = self.num_codebooks if num_codebooks is None else num_codebooks

        def make() -> Books:
            books = self._books_of(self.codebooks)
            return books if count == self.num_codebooks else books.first(count)

        return self._made(("books", count), make)

    def tables(self) -> Tensor:
        """Return the contribution of each code to the latents, `[K, V, D]` float32.

        Rows beyond the size of a level are zero. With "shared" projections the bias is part of the
        first level's table; see `decode_tables`.
        """
        if self._has_gradients:
            return self._tables_of(self.codebooks)
        return self._still_tables().entries

    @property
    def _has_gradients(self) -> bool:
        """Whether decoded latents are to have gradients."""
        return torch.is_grad_enabled() and any(each.requires_grad for each in self._sources)

    def _still_tables(self) -> encoding.Tables:
        """Return the `tables` without gradients, made once."""

        @torch.no_grad()
        def make() -> encoding.Tables:
            return encoding.Tables.of(self._tables_of(self.codebooks), self.codebook_sizes)

        return self._made("tables", make)

    def _decoded(self, codes: Tensor) -> Tensor:
        """Return the latents `[B, T, D]` float32 of codes `[B, T, k]`."""
        with torch.no_grad():
            found = encoding.add_up(codes, self._still_tables())
        if not self._has_gradients:
            return found
        linked = encoding.add_projected(codes, self.codebooks, self.project_out)
        return found + (linked - linked.detach())

    def _books_of(self, codebooks: Tensor) -> Books:
        return Books.of(codebooks, metric=self.metric, sizes=self.codebook_sizes)

    def _tables_of(self, codebooks: Tensor) -> Tensor:
        return decode_tables(codebooks, self.project_out) * self.valid[:, :, None]

    @property
    def _sources(self) -> list[Tensor]:
        """The tensors that codes and decoded latents depend on."""
        out = self.project_out
        return [self.codebooks] if out is None else [self.codebooks, out.weight, out.bias]

    def _made(self, name: Hashable, make: Callable[[], T]) -> T:
        return self._prepared.get(name, self._sources, make)

    @property
    def started(self) -> bool:
        """Whether there are codebooks."""
        return bool(self.fitted)

    def check_started(self) -> None:
        """Check that the codebooks exist.

        Raises:
            RuntimeError: if they have been neither fitted, loaded nor initialised by training; or
                as `check_filled`.
        """
        if self.codebooks.is_meta:  # which has no values: shapes flow through all the same
            return
        self.check_filled()
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
    def _greedy(
        self, vectors: Tensor, depth: int, *, backend: str = "auto", codebooks: Tensor | None = None
    ) -> Tensor:
        """Return the greedy codes `[B, T, depth]` of latents `[B, T, D]`.

        Args:
            vectors: the latents.
            depth: number of levels.
            backend: see `lookup.search`.
            codebooks: `[K, V, Dc]`, others than the quantizer's own.
        """
        if codebooks is None:
            books = self.books(depth)
            tables = self._still_tables().entries if self._by_level else None
        else:
            books = self._books_of(codebooks).first(depth)
            tables = self._tables_of(codebooks) if self._by_level else None
        return encoding.greedy(
            vectors, books, project_in=self.project_in, tables=tables, backend=backend
        )

    @torch.no_grad()
    def _beam(
        self, vectors: Tensor, width: int, lengths: Sequence[int], backend: str
    ) -> list[Tensor]:
        """Return the beam-search codes `[B, T, k]` of latents `[B, T, D]` for each length k."""
        shared = None if self._by_level else self.project_in

        def make() -> Books:
            codebooks = self._still_tables().entries if shared is None else self.codebooks
            return Books.of(codebooks, sizes=self.codebook_sizes)

        return encoding.beam(
            vectors,
            self._made("beams", make),
            width=width,
            lengths=lengths,
            project_in=shared,
            backend=backend,
        )
