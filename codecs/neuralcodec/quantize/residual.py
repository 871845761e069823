"""Residual vector quantizer: each codebook quantizes the residual of the codebooks before it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, Self, overload

import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor, nn

from neuralcodec.quantize.fitting import Progress, refine, sample_size
from neuralcodec.quantize.gradient import chain, exact, level_loss
from neuralcodec.quantize.inputs import (
    check_codes,
    check_latents,
    check_lengths,
    check_mask,
    check_number,
)
from neuralcodec.quantize.learning import Learning, check_levels, draw_levels
from neuralcodec.quantize.lookup import Books, Metric
from neuralcodec.quantize.passes import Pass
from neuralcodec.quantize.precision import full_precision
from neuralcodec.quantize.result import QuantizedResult, bitrate_kbps
from neuralcodec.quantize.sampling import Sample, chunks
from neuralcodec.quantize.trainable import TrainableCodebooks

if TYPE_CHECKING:
    from neuralcodec.quantize.grouped import (
        GroupedResidualVectorQuantizer,
        SplitResidualVectorQuantizer,
    )


DEFAULTS = Learning()
_REFINEMENTS = 3  # refinement passes per fit; more of them gain little
_REFINING_WIDTH = 2  # beam width of refinement; wider beams take longer and gain little


def _renamed(training: Learning) -> Learning:
    """Return the argument `learning` that was given by its former name."""
    message = "the argument `training` is now called `learning`"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    return training


class ResidualVectorQuantizer(TrainableCodebooks):
    """Quantize latents with K codebooks of V entries, from coarse to fine.

    Algorithm 1 of Zeghidour et al. 2021, SoundStream (arXiv:2107.03312). Greedy codes are nested:
    their first k levels are the codes of the first k codebooks alone. The codebooks come from
    `fit`, from another model (`from_...`), or from training: in training mode `forward` initialises
    them by k-means on the first batches and then updates them according to `learning`. Under
    `torch.distributed` all processes share statistics, initialisation and revival of dead entries,
    so that their codebooks stay bitwise equal; each process must call `forward` equally often. All
    arithmetic is in float32, also under autocast; the module itself must stay in float32 to train.
    `torch.compile` skips `forward`.

    Args:
        dim: D, number of channels of the latents.
        num_codebooks: K.
        codebook_size: V, entries per codebook; or K numbers, one per codebook.
        codebook_dim: Dc, dimension of the lookup, between learned projections; None: no
            projections.
        projection: "level": projections around each level, as in DAC; "shared": one input and one
            output projection around all levels, as in Moshi.
        metric: nearest neighbour by "euclidean" distance or by "cosine" similarity. With both, the
            unnormalised entry is subtracted from the residual.
        frame_rate: latents per second, for the bitrate that `forward` returns; None if unknown.
        learning: how the codebooks learn; None: not at all, as after `freeze`.
        training: the former name of `learning`.

    Attributes:
        codebooks: `[K, V, Dc]` float32, zero beyond the size of a level; see `Codebooks` and
            `TrainableCodebooks` for this and the other attributes.

    Raises:
        ValueError: if a number is below 1, the number of sizes is not K, an option is unknown, or
            "noise_substitution" is combined with a projection per level.
    """

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
        learning: Learning | None = DEFAULTS,
        training: Learning | None = None,
    ) -> None:
        super().__init__(
            dim,
            num_codebooks,
            codebook_size,
            codebook_dim=codebook_dim,
            projection=projection,
            metric=metric,
            frame_rate=frame_rate,
            learning=learning if training is None else _renamed(training),
        )

    def _check_depth(self, num_codebooks: int | None) -> int:
        if num_codebooks is None:
            return self.num_codebooks
        return check_number("num_codebooks", num_codebooks, 1, self.num_codebooks)

    @classmethod
    def from_codebooks(
        cls,
        codebooks: ArrayLike | Tensor,
        *,
        sizes: Sequence[int] | None = None,
        metric: Metric = "euclidean",
        frame_rate: float | None = None,
        learning: Learning | None = DEFAULTS,
        training: Learning | None = None,
    ) -> Self:
        """Return a quantizer with trained codebooks `[K, V, D]`; level k has `sizes[k]` entries.

        Raises:
            ValueError: if a shape, a size or the metric is not valid, or a value is not finite.
        """
        given = torch.as_tensor(codebooks, dtype=torch.float32)
        books = Books.of(given, metric=metric, sizes=sizes)
        levels, _, dim = given.shape
        learning = learning if training is None else _renamed(training)
        rvq = cls(dim, levels, books.sizes, metric=metric, frame_rate=frame_rate, learning=learning)
        rvq._take(given[:, : rvq.codebook_size] * rvq.valid[:, :, None])
        return rvq

    @classmethod
    def from_encodec(cls, model: nn.Module) -> ResidualVectorQuantizer:
        """Return the quantizer of a model of `encodec`; see `convert.from_encodec`."""
        from neuralcodec.quantize import convert

        return convert.from_encodec(model)

    @classmethod
    def from_dac(cls, model: nn.Module) -> ResidualVectorQuantizer:
        """Return the quantizer of a model of `dac`; see `convert.from_dac`."""
        from neuralcodec.quantize import convert

        return convert.from_dac(model)

    @classmethod
    def from_vector_quantize_pytorch(
        cls, module: nn.Module
    ) -> ResidualVectorQuantizer | GroupedResidualVectorQuantizer:
        """Convert a quantizer of that package; see `convert.from_vector_quantize_pytorch`."""
        from neuralcodec.quantize import convert

        return convert.from_vector_quantize_pytorch(module)

    @classmethod
    def from_huggingface(
        cls, model: nn.Module
    ) -> ResidualVectorQuantizer | SplitResidualVectorQuantizer:
        """Return the quantizer of a codec of `transformers`; see `convert.from_huggingface`."""
        from neuralcodec.quantize import convert

        return convert.from_huggingface(model)

    @torch.no_grad()
    def fit(
        self,
        z: Tensor | Iterable[Tensor],
        *,
        mask: Tensor | Sequence[Tensor] | None = None,
        iterations: int = 5,
        beam_width: int = 5,
        refinements: int | None = None,
        seed: int = 0,
        progress: Callable[[Progress], None] | None = None,
    ) -> Self:
        """Fit the codebooks to latents, each to the residual of those before; see `fitting`.

        The result is deterministic: the same latents and settings give the same codebooks. Without
        `refinements` the first k codebooks do not depend on K. Projections are left unchanged.

        Memory does not grow with the latents: k-means runs on a sample of `fitting.sample_size`
        vectors and the rest is processed in chunks. Pass an iterable if the latents exceed the
        memory.

        Args:
            z: latents, `[B, D, T]`, float, frames in temporal order; or an iterable of such
                tensors.
            mask: `[B, T]` bool, False for padding, which is left out; or a sequence of such
                tensors, one for each of `z`.
            iterations: k-means iterations per level, at least 1.
            beam_width: number of candidate codes kept per latent, at least 1. It is not used with
                projections "level" or the cosine metric, which are fitted greedily.
            refinements: passes over all latents that correct all levels jointly, default 3; over
                the sample if `z` is an iterator, which cannot be read twice. With projections
                "level" or the cosine metric the default is 0, the only value allowed.
            seed: seed of the random initialisation and of the sample.
            progress: called after each level and after each chunk of a refinement pass.

        Returns:
            The quantizer itself.

        Raises:
            ValueError: if D differs from `dim`, a value is not finite, there are fewer than V
                latents, or a setting is out of range. The quantizer is then unchanged.
            RuntimeError: if the quantizer's tensors were allocated and never filled.
        """
        self.check_filled()
        if refinements is None:
            refinements = 0 if self._fitted_greedily else _REFINEMENTS
        for name, value, least in (
            ("iterations", iterations, 1),
            ("beam_width", beam_width, 1),
            ("refinements", refinements, 0),
        ):
            check_number(name, value, least)
        if self._fitted_greedily and refinements:
            raise ValueError(
                "refinements must be 0 with projections of each level and with cosine metric, "
                f"got {refinements}"
            )
        generator = Generator().manual_seed(seed)
        size = sample_size(self.dim, self.codebook_sizes, beam_width)
        sample, parts = Sample(size, generator), 0
        for part in chunks(z, self.dim, mask):
            sample.add(part)
            parts += 1
        vectors = self._shared(sample.vectors())
        if len(vectors) < self.codebook_size:
            raise ValueError(
                f"codebook_size {self.codebook_size} needs at least as many latents to fit on, "
                f"got {len(vectors)}"
            )
        again: Tensor | Iterable[Tensor] = z
        if not isinstance(z, Tensor) and iter(z) is z:
            again, mask, parts = sample.vectors().mT[None], None, 1
        done = itertools.count(1)
        steps = self.num_codebooks + refinements * parts

        def report(stage: str, nmse: float) -> None:
            if progress is not None:
                progress(Progress(next(done), steps, stage, nmse))

        with full_precision(vectors):
            books = self._fit(
                vectors,
                iterations=iterations,
                beam_width=beam_width,
                generator=generator,
                report=report,
            )
            counts = torch.full_like(books[:, :, 0], len(vectors) / self.codebook_size)
            for _ in range(refinements):
                inner = (self._shared(part) for part in chunks(again, self.dim, mask))
                refine(
                    *(books, self.codebook_sizes, inner, counts),
                    beam_width=min(beam_width, _REFINING_WIDTH),
                    report=report,
                )
        self._take(books)
        return self

    @overload
    def encode(
        self,
        z: Tensor,
        num_codebooks: int | None = None,
        *,
        beam_width: int = 1,
        prefix_lengths: None = None,
        backend: str = "auto",
    ) -> Tensor: ...

    @overload
    def encode(
        self,
        z: Tensor,
        num_codebooks: int | None = None,
        *,
        beam_width: int = 1,
        prefix_lengths: Sequence[int],
        backend: str = "auto",
    ) -> list[Tensor]: ...

    @torch.no_grad()
    def encode(
        self,
        z: Tensor,
        num_codebooks: int | None = None,
        *,
        beam_width: int = 1,
        prefix_lengths: Sequence[int] | None = None,
        backend: str = "auto",
    ) -> Tensor | list[Tensor]:
        """Return the codes of latents, found greedily level by level or with a beam search.

        A beam search keeps the `beam_width` best codes at each level and ends with a smaller error.
        Whatever the `metric`, it minimises the squared Euclidean distance between vector and sum of
        entries: in the latent space or, with "shared" projections, between the projections.

        Greedy codes are nested: their first k levels are the greedy codes of k levels. The first k
        levels of a beam-search code are valid too, but can have a larger error than greedy codes,
        since the search trades early levels for later ones; `prefix_lengths` gives codes for each
        length.

        Args:
            z: latents, `[B, D, T]`, float.
            num_codebooks: number of levels to use, 1..K; default all.
            beam_width: number of codes kept at each level; 1 is the greedy search.
            prefix_lengths: numbers of levels, each 1..num_codebooks, to return the best codes for.
            backend: lookup backend; see `lookup.search`.

        Returns:
            Codes `[B, K, T]` int64, level k in 0..codebook_sizes[k]-1; ties are broken towards the
            lowest index. With `prefix_lengths` a list of codes `[B, k, T]`, one for each length k.
            T may be 0.

        Raises:
            ValueError: if `num_codebooks`, a length, the width or the backend is not allowed, D
                differs from `dim`, or a value is not finite.
            RuntimeError: if the quantizer has no codebooks yet, or the backend cannot run here.
        """
        check_latents(z, self.dim)
        depth = self._check_depth(num_codebooks)
        lengths = [depth] if prefix_lengths is None else check_lengths(prefix_lengths, depth)
        check_number("beam_width", beam_width, 1)
        self.check_started()
        with full_precision(z):
            if beam_width > 1:
                found = self._beam(z.mT, beam_width, lengths, backend)
            else:
                greedy = self._greedy(z.mT, max(lengths), backend=backend)
                found = [greedy[:, :, :length] for length in lengths]
        codes = [each.mT for each in found]
        return codes[0] if prefix_lengths is None else codes

    def decode(self, codes: Tensor) -> Tensor:
        """Return the latents of codes: the sum of the selected entries.

        Args:
            codes: `[B, k, T]` int64 of the first k levels, 1 <= k <= K.

        Returns:
            `[B, D, T]` float32.

        Raises:
            ValueError: if codes are not int64 `[B, k, T]`, or a code is not below its level's size.
        """
        check_codes(codes)
        self.check_filled()
        self._check_depth(codes.shape[1])
        return self._decoded(codes.mT).mT

    def forward(
        self,
        z: Tensor,
        num_codebooks: int | None = None,
        *,
        item_codebooks: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> QuantizedResult:
        """Quantize latents with gradients; in training mode also update the codebooks.

        The codes are those of `encode` with the codebooks before the update. Training mode uses
        torch's global random number generator.

        Args:
            z: latents, `[B, D, T]`, of any float type. B and T may be 0.
            num_codebooks: number of levels to use, 1..K; default all. Later levels are not updated.
            item_codebooks: number of levels each item uses, int64 `[B]` in 0..num_codebooks;
                default all of them or, in training mode, as drawn by quantizer dropout. An item
                without any becomes 0.
            mask: `[B, T]` bool, False for padding; default none. Padding teaches nothing, counts in
                no loss and may hold any value; there `quantized` and the codes are 0.

        Returns:
            QuantizedResult: `quantized` has the gradient that `learning` selects and the values of
            `decode(encode(z))`, except for unused levels and "noise_substitution" in training.

        Raises:
            ValueError: if a number of levels is out of range, D differs from `dim`, or a value is
                not finite; the codebooks are then unchanged. Training also needs a float32 module.
            RuntimeError: if the quantizer has no codebooks yet, in evaluation mode.
        """
        quantize = self._quantize
        if torch.compiler.is_compiling():  # as a decorator it would import the compiler always
            quantize = torch.compiler.disable(quantize)  # type: ignore[no-untyped-call]
        return quantize(z, num_codebooks, item_codebooks, mask)

    def _quantize(
        self,
        z: Tensor,
        num_codebooks: int | None,
        item_codebooks: Tensor | None,
        mask: Tensor | None,
    ) -> QuantizedResult:
        check_latents(z, self.dim)
        check_mask(mask, z)
        depth = self._check_depth(num_codebooks)
        if item_codebooks is None:
            dropout = self.learning.quantizer_dropout if self.training else 0.0
            used = draw_levels(len(z), depth, dropout, z.device)
        else:
            used = check_levels(item_codebooks, len(z), depth)
        learns = self.training and self.learns
        with full_precision(z):
            vectors = z.mT.float().contiguous()  # [B, T, D]
            if mask is not None:
                vectors = torch.where(mask[:, :, None], vectors, 0.0)
            turn = self._passes.next() if learns else Pass(teaches=False, again=False)
            starts = learns and not self.fitted
            frames = vectors.detach().flatten(0, 1) if mask is None else vectors.detach()[mask]
            if starts and not turn.again:
                self._begin(frames, turn.teaches)
            self.check_started()
            codebooks = self._codebooks_of(turn)
            codes = self._greedy(vectors, depth, codebooks=codebooks)
            levels = (torch.arange(depth, device=z.device) < used[:, None]).float()  # [B, K]
            gradient = self.learning.gradient
            linked = chain(
                vectors,
                codes,
                (self.codebooks if codebooks is None else codebooks).float(),
                levels,
                gradient=gradient if self.training else exact(gradient),
                project_in=self.project_in,
                project_out=self.project_out,
                by_level=self._by_level,
            )
            commitment_loss = level_loss(linked.inputs, linked.entries, levels, mask)
            codebook_loss = torch.zeros_like(commitment_loss)
            if self.learning.codebooks == "gradient":
                codebook_loss = level_loss(linked.entries, linked.inputs, levels, mask)
            if turn.teaches:
                self._learn(linked.inputs, codes, mask)
                if starts and turn.again:  # only now, for it had to give what it gave at first
                    self._begin(frames, turn.teaches)
        quantized = linked.quantized
        if item_codebooks is not None:
            quantized = torch.where((used > 0)[:, None, None], quantized, 0.0)
        if mask is not None:
            quantized = torch.where(mask[:, :, None], quantized, 0.0)
            codes = torch.where(mask[:, :, None], codes, 0)
        return QuantizedResult(
            quantized.mT.to(z.dtype),
            codes.mT,
            commitment_loss,
            codebook_loss,
            bitrate_kbps(used, self.codebook_sizes, self.frame_rate),
            used,
        )
