"""Residual vector quantizer: each codebook quantizes what the ones before it left over."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Self, overload

import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor, nn

from neuralcodec.quantize import encoding
from neuralcodec.quantize.codebooks import DEFAULTS, Codebooks
from neuralcodec.quantize.fitting import Progress, refine, sample_size
from neuralcodec.quantize.gradient import chain, exact, level_loss
from neuralcodec.quantize.lookup import Books, Metric
from neuralcodec.quantize.precision import full_precision
from neuralcodec.quantize.result import QuantizedResult, bitrate_kbps
from neuralcodec.quantize.sampling import Sample, chunks
from neuralcodec.quantize.training import Training, check_levels, draw_levels

if TYPE_CHECKING:
    from neuralcodec.quantize.grouped import (
        GroupedResidualVectorQuantizer,
        SplitResidualVectorQuantizer,
    )


_REFINEMENTS = 3  # of a fit; more gain little
_REFINING_WIDTH = 2  # of the beam; wider ones take longer and gain little


class ResidualVectorQuantizer(Codebooks):
    """Quantize latents with K codebooks of V entries, coarse to fine.

    Algorithm 1 of Zeghidour et al. 2021, SoundStream (arXiv:2107.03312). The code is nested: the
    first k levels of it are the code of the first k codebooks alone.

    The codebooks come from `fit`, from another model (`from_...`), or from training: `forward` in
    training mode starts them by k-means on the first batches, then lets them learn as `training`
    says. Under `torch.distributed` all processes share statistics, start and revival, so their
    codebooks stay equal bit by bit; each must call `forward` equally often. All arithmetic is in
    float32, also under autocast, which needs the module itself to stay in float32. `torch.compile`
    leaves `forward` out and compiles what is around it.

    Args:
        dim: D, width of a latent.
        num_codebooks: K.
        codebook_size: V, entries of each codebook; or K numbers, one for each.
        codebook_dim: Dc, width in which codes are looked up, with learned projections to it and
            back; None: in the latents themselves.
        projection: "level": projections around each level, as DAC has them; "shared": one in and
            one out around all levels, as Moshi has them.
        metric: nearest in "euclidean" distance or in "cosine" similarity; a level takes the entry
            off the residual with its own length in either case.
        frame_rate: latents a second, for the bitrate that `forward` tells.
        training: how `forward` trains the codebooks.

    Attributes:
        codebooks: `[K, V, Dc]` float32, a buffer or (gradient codebooks) a parameter. V is the
            largest size; rows beyond the size of a level are zero and unused.
        project_in: D to Dc, or None.
        project_out: Dc to D, or None.
        histogram: `[K, V]`, how often training named each entry, see `statistics`.

    Raises:
        ValueError: if a number is below 1, the sizes are not K, or an option is unknown, or does
            not go with the projection.
    """

    def _check_latents(self, z: Tensor) -> None:
        if z.ndim != 3 or z.shape[1] != self.dim or not z.is_floating_point():
            raise ValueError(f"z must be float [B, {self.dim}, T], got {z.dtype} {list(z.shape)}")

    def _check_depth(self, num_codebooks: int | None) -> int:
        if num_codebooks is None:
            return self.num_codebooks
        if not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(f"num_codebooks must be 1..{self.num_codebooks}, got {num_codebooks}")
        return num_codebooks

    @classmethod
    def from_codebooks(
        cls,
        codebooks: ArrayLike | Tensor,
        *,
        sizes: Sequence[int] | None = None,
        metric: Metric = "euclidean",
        frame_rate: float | None = None,
        training: Training = DEFAULTS,
    ) -> Self:
        """Make a quantizer from trained codebooks `[K, V, D]`; level k has `sizes[k]` entries.

        Raises:
            ValueError: if the shape or a size is another, or a value is not finite.
        """
        given = torch.as_tensor(codebooks, dtype=torch.float32)
        books = Books.of(given, metric=metric, sizes=sizes)
        levels, _, dim = given.shape
        rvq = cls(dim, levels, books.sizes, metric=metric, frame_rate=frame_rate, training=training)
        rvq._take(given[:, : rvq.codebook_size] * rvq.valid[:, :, None])
        return rvq

    @classmethod
    def from_encodec(cls, model: nn.Module) -> ResidualVectorQuantizer:
        """Take over the quantizer of a model of `encodec`: see `convert.from_encodec`."""
        from neuralcodec.quantize import convert

        return convert.from_encodec(model)

    @classmethod
    def from_dac(cls, model: nn.Module) -> ResidualVectorQuantizer:
        """Take over the quantizer of a model of `dac`: see `convert.from_dac`."""
        from neuralcodec.quantize import convert

        return convert.from_dac(model)

    @classmethod
    def from_vector_quantize_pytorch(
        cls, module: nn.Module
    ) -> ResidualVectorQuantizer | GroupedResidualVectorQuantizer:
        """Take over a quantizer of that package: see `convert.from_vector_quantize_pytorch`."""
        from neuralcodec.quantize import convert

        return convert.from_vector_quantize_pytorch(module)

    @classmethod
    def from_huggingface(
        cls, model: nn.Module
    ) -> ResidualVectorQuantizer | SplitResidualVectorQuantizer:
        """Take over the quantizer of a codec of `transformers`: see `convert.from_huggingface`."""
        from neuralcodec.quantize import convert

        return convert.from_huggingface(model)

    @torch.no_grad()
    def fit(
        self,
        z: Tensor | Iterable[Tensor],
        *,
        iterations: int = 5,
        beam_width: int = 5,
        refinements: int | None = None,
        seed: int = 0,
        progress: Callable[[Progress], None] | None = None,
    ) -> Self:
        """Fit the codebooks to latents, level by level, to what is left over: see `fitting`.

        Deterministic: the same latents and settings give the same codebooks. Without `refinements`
        the first k of them don't depend on K. Projections stay as they are.

        Memory doesn't grow with the latents: of a large set k-means is given a sample, of
        `fitting.sample_size` vectors, and the rest goes by in chunks. Give an iterable of tensors
        where the latents don't fit in memory.

        Args:
            z: latents, `[B, D, T]`, float; or an iterable of such tensors, in which frames that
                follow each other lie side by side.
            iterations: of k-means a level, at least 1.
            beam_width: codes of each latent in the running while later levels are fitted, at
                least 1. Not for projections "level" nor for cosine, which are fitted greedily.
            refinements: times to go through all latents again (of an iterator, which can't be read
                twice: through the sample) and correct all levels together; default 3. With
                projections "level" and with cosine metric only 0, which is the default there.
            seed: of the random start and the sample.
            progress: is called after each level and each chunk of a refinement.

        Returns:
            The quantizer itself.

        Raises:
            ValueError: if D differs from `dim`, a value is not finite, there are fewer than V
                latents, or a setting is out of range; then nothing has changed.
        """
        if refinements is None:
            refinements = 0 if self._fitted_greedily else _REFINEMENTS
        for name, value, least in (
            ("iterations", iterations, 1),
            ("beam_width", beam_width, 1),
            ("refinements", refinements, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self._fitted_greedily and refinements:
            raise ValueError(
                "refinements must be 0 with projections of each level and with cosine metric, "
                f"got {refinements}"
            )
        generator = Generator().manual_seed(seed)
        size = sample_size(self.dim, self.codebook_sizes, beam_width)
        sample, parts = Sample(size, generator), 0
        for part in chunks(z, self.dim):
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
            again, parts = sample.vectors().mT[None], 1
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
                inner = (self._shared(part) for part in chunks(again, self.dim))
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
        """Find the code of each latent: greedily, level by level, or with a beam.

        A beam keeps the `beam_width` best codes at each level and ends with a smaller error. It
        minimizes the squared Euclidean distance between what the codes add up to and the vector
        they stand for, whatever the `metric` of the greedy search: in the latents, or with
        "shared" projections between them.

        Greedy codes are nested: the first k levels are the code of k levels. Of a beam's codes
        they are a valid code too, but not the one that the beam finds for k levels: it gave up
        early levels for the sake of late ones. With Lyra's 46 codebooks and a beam of 16 the first
        4 levels have 0.5 % more error than the greedy code, the first 16 levels 8 % less, where
        the beam's own code of 16 levels has 10 % less (`results/lookup/beam.md`). Ask for
        `prefix_lengths` where codes will be truncated.

        Args:
            z: latents, `[B, D, T]`, float.
            num_codebooks: levels to use, 1..K; default all.
            beam_width: codes kept at each level; 1 is the greedy search.
            prefix_lengths: numbers of levels, each 1..num_codebooks, to give the best code for.
            backend: of the lookup, see `lookup.search`.

        Returns:
            codes `[B, K, T]` int64, level k in 0..codebook_sizes[k]-1; of equally near entries the
            lowest. With `prefix_lengths` a list, codes `[B, k, T]` for each length k. T may be 0.

        Raises:
            ValueError: if `num_codebooks`, a length or the width is out of range, D differs from
                `dim`, or a value is not finite.
            RuntimeError: if the quantizer has no codebooks yet, or the backend can't run here.
        """
        self._check_latents(z)
        depth = self._check_depth(num_codebooks)
        lengths = [depth] if prefix_lengths is None else list(prefix_lengths)
        if not lengths or not all(1 <= length <= depth for length in lengths):
            raise ValueError(f"prefix_lengths must be numbers in 1..{depth}, got {lengths}")
        if beam_width < 1:
            raise ValueError(f"beam_width must be at least 1, got {beam_width}")
        self.check_started()
        with full_precision(z):
            if beam_width > 1:
                found = self._beam(z.mT, beam_width, lengths, backend)
            else:
                greedy = self._greedy(z.mT, max(lengths), backend)
                found = [greedy[:, :, :length] for length in lengths]
        codes = [each.mT for each in found]
        return codes[0] if prefix_lengths is None else codes

    def decode(self, codes: Tensor) -> Tensor:
        """Sum the entries that the codes name.

        Args:
            codes: `[B, k, T]` int64 of the first k levels, 1 <= k <= K.

        Returns:
            `[B, D, T]` float32.

        Raises:
            ValueError: if the shape is another, or a code is outside its level's entries.
        """
        if codes.ndim != 3 or codes.dtype != torch.int64:
            raise ValueError(f"codes must be int64 [B, K, T], got {codes.dtype} {[*codes.shape]}")
        self._check_depth(codes.shape[1])
        return encoding.add_up(codes.mT, self.tables(), self.codebook_sizes).mT

    def forward(
        self, z: Tensor, num_codebooks: int | None = None, *, item_codebooks: Tensor | None = None
    ) -> QuantizedResult:
        """Quantize latents, with gradients; in training mode also let the codebooks learn.

        The codes are those of `encode` with the codebooks as they were before the batch. Training
        draws from torch's global random numbers.

        Args:
            z: latents, `[B, D, T]`, float of any width. B and T may be 0.
            num_codebooks: levels to use, 1..K; default all. The levels after them don't learn.
            item_codebooks: levels each item uses, int64 `[B]` in 1..num_codebooks; default all of
                them, or in training as quantizer dropout draws.

        Returns:
            QuantizedResult: `quantized` has the gradient of `z` that `training` chose, and with
            "noise_substitution" in training also values of its own. In evaluation mode it is
            `decode(encode(z))`.

        Raises:
            ValueError: if a number of levels is out of range, D differs from `dim`, or a value is
                not finite; then nothing has changed.
            RuntimeError: if the quantizer has no codebooks yet, in evaluation mode.
        """
        quantize = self._quantize
        if torch.compiler.is_compiling():  # as a decorator it would import the compiler always
            quantize = torch.compiler.disable(quantize)  # type: ignore[no-untyped-call]
        return quantize(z, num_codebooks, item_codebooks)

    def _quantize(
        self, z: Tensor, num_codebooks: int | None, item_codebooks: Tensor | None
    ) -> QuantizedResult:
        self._check_latents(z)
        depth = self._check_depth(num_codebooks)
        if item_codebooks is None:
            dropout = self.options.quantizer_dropout if self.training else 0.0
            used = draw_levels(len(z), depth, dropout, z.device)
        else:
            used = check_levels(item_codebooks, len(z), depth)
        with full_precision(z):
            vectors = z.mT.float().contiguous()  # [B, T, D]
            if self.training and not self.fitted:
                self._begin(vectors.detach().flatten(0, 1))
            self.check_started()
            codes = self._greedy(vectors, depth)
            mask = (torch.arange(depth, device=z.device) < used[:, None]).float()  # [B, K]
            linked = chain(
                vectors,
                codes,
                self.codebooks.float(),
                mask,
                gradient=self.options.gradient if self.training else exact(self.options.gradient),
                project_in=self.project_in,
                project_out=self.project_out,
                by_level=self._by_level,
            )
            commitment_loss = level_loss(linked.inputs, linked.entries, mask)
            codebook_loss = torch.zeros_like(commitment_loss)
            if self.options.codebooks == "gradient":
                codebook_loss = level_loss(linked.entries, linked.inputs, mask)
            if self.training:
                self._learn(linked.inputs, codes)
        return QuantizedResult(
            linked.quantized.mT.to(z.dtype),
            codes.mT,
            commitment_loss,
            codebook_loss,
            bitrate_kbps(used, self.codebook_sizes, self.frame_rate),
            used,
        )
