"""Parallel residual quantizers, of slices of the channels or of the same latents.

>>> import torch
>>> from neuralcodec.quantize import ResidualVectorQuantizer
>>> parts = [ResidualVectorQuantizer(4, 3, 16) for _ in range(2)]
>>> z = torch.randn(1, 8, 100, generator=torch.Generator().manual_seed(0))
>>> GroupedResidualVectorQuantizer(parts).fit(z).encode(z).shape  # 3 levels of 2 groups
torch.Size([1, 6, 100])
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Self, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from neuralcodec.quantize import card, statistics
from neuralcodec.quantize.fitting import Progress
from neuralcodec.quantize.inputs import (
    check_codes,
    check_latents,
    check_lengths,
    check_mask,
    check_number,
)
from neuralcodec.quantize.learning import check_levels, draw_levels
from neuralcodec.quantize.residual import ResidualVectorQuantizer
from neuralcodec.quantize.result import QuantizedResult


class _Each:
    """Applies a function to each of some tensors, whenever they are iterated over."""

    def __init__(self, tensors: Iterable[Tensor], change: Callable[[Tensor], Tensor]) -> None:
        self._tensors, self._change = tensors, change

    def __iter__(self) -> Iterator[Tensor]:
        return map(self._change, self._tensors)


class _SideBySide(nn.Module, ABC):
    """Base of several quantizers in parallel; subclasses define what each part encodes."""

    dim: int

    def __init__(self, parts: Sequence[ResidualVectorQuantizer]) -> None:
        super().__init__()
        if not parts:
            raise ValueError("parts must be one quantizer or more, got none")
        self.parts = nn.ModuleList(parts)
        self.num_codebooks = sum(part.num_codebooks for part in parts)
        self.codebook_size = max(part.codebook_size for part in parts)
        ordered = self._join_codes(
            [torch.tensor(part.codebook_sizes, device="cpu")[:, None] for part in parts]
        )
        self.codebook_sizes = tuple(ordered.flatten().tolist())

    @property
    def _quantizers(self) -> list[ResidualVectorQuantizer]:
        return [cast(ResidualVectorQuantizer, part) for part in self.parts]

    @abstractmethod
    def _part_latents(self, z: Tensor) -> Sequence[Tensor]:
        """Return the latents that each part encodes, from `[B, D, T]`."""

    @abstractmethod
    def _join_latents(self, parts: Sequence[Tensor]) -> Tensor:
        """Combine the decoded latents of the first parts into `[B, D, T]`."""

    @abstractmethod
    def _part_depths(self, num_codebooks: int) -> list[int]:
        """Return the number of levels per part within the first `num_codebooks`.

        The list ends before the first part without any level.
        """

    @abstractmethod
    def _join_codes(self, parts: Sequence[Tensor]) -> Tensor:
        """Combine the codes `[..., k, T]` of the first parts in the order of the public codes."""

    @abstractmethod
    def _part_codes(self, codes: Tensor, depths: Sequence[int]) -> Sequence[Tensor]:
        """Split codes `[..., k, T]` by part: the inverse of `_join_codes`."""

    @abstractmethod
    def _part_items(
        self, z: Tensor, depths: Sequence[int], items: Tensor | None
    ) -> Sequence[Tensor | None]:
        """Return the levels of each item per part, `[B]`, or None if the part draws them itself.

        Args:
            z: latents `[B, D, T]`.
            depths: levels of each part.
            items: codes per frame of each item, `[B]`, or None if they are not given.
        """

    def _depths(self, num_codebooks: int | None) -> list[int]:
        if num_codebooks is None:
            num_codebooks = self.num_codebooks
        check_number("num_codebooks", num_codebooks, 1, self.num_codebooks)
        return self._part_depths(num_codebooks)

    def _latents(self, z: object) -> Sequence[Tensor]:
        return self._part_latents(check_latents(z, self.dim))

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
        """Fit each part to its latents of `z`, independently of the other parts.

        The arguments are those of `ResidualVectorQuantizer.fit`. An iterator, which cannot be read
        twice, is kept in memory. `progress` counts the steps of all parts.

        Raises:
            ValueError: as `ResidualVectorQuantizer.fit`; parts before the one that fails keep their
                new codebooks.
        """
        given = list(z) if isinstance(z, Iterator) else z
        count, done = len(self.parts), itertools.count(1)

        def report(step: Progress) -> None:
            if progress is not None:
                progress(replace(step, step=next(done), steps=step.steps * count))

        for index, part in enumerate(self._quantizers):
            part.fit(
                self._part_of(given, index),
                mask=mask,
                iterations=iterations,
                beam_width=beam_width,
                refinements=refinements,
                seed=seed,
                progress=report,
            )
        return self

    def _part_of(self, z: Tensor | Iterable[Tensor], index: int) -> Tensor | Iterable[Tensor]:
        """Return the latents of one part; of an iterable one that can be read again."""
        if isinstance(z, Tensor | np.ndarray):
            return self._latents(z)[index]
        return _Each(z, lambda each: self._latents(each)[index])

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

    def encode(
        self,
        z: Tensor,
        num_codebooks: int | None = None,
        *,
        beam_width: int = 1,
        prefix_lengths: Sequence[int] | None = None,
        backend: str = "auto",
    ) -> Tensor | list[Tensor]:
        """Return the codes `[B, K, T]` int64 of latents `[B, D, T]`, each part searched separately.

        Args:
            z: latents, `[B, D, T]`, float.
            num_codebooks: codes per frame, a number at which a prefix may end; default all K.
            beam_width: see `ResidualVectorQuantizer.encode`; each part has its own beam.
            prefix_lengths: numbers at which a prefix may end, each at most `num_codebooks`, to
                return the best codes for: a list of codes `[B, k, T]`, one for each number.
            backend: lookup backend; see `lookup.search`.

        Raises:
            ValueError: if a prefix may not end at `num_codebooks` or a length, or as
                `ResidualVectorQuantizer.encode`.
            RuntimeError: as `ResidualVectorQuantizer.encode`.
        """
        latents, whole = self._latents(z), self._depths(num_codebooks)
        most = self.num_codebooks if num_codebooks is None else num_codebooks
        lengths = [most] if prefix_lengths is None else check_lengths(prefix_lengths, most)
        depths = [self._part_depths(length) for length in lengths]
        found = []  # by part, then by length
        for k, part in enumerate(self._quantizers[: len(whole)]):
            wanted = sorted({each[k] for each in depths if k < len(each)})
            codes = part.encode(
                latents[k],
                max(wanted, default=1),
                beam_width=beam_width,
                prefix_lengths=wanted or [1],
                backend=backend,
            )
            found.append(dict(zip(wanted, codes, strict=False)))
        joined = [
            self._join_codes([found[k][depth] for k, depth in enumerate(each)]) for each in depths
        ]
        return joined[0] if prefix_lengths is None else joined

    def decode(self, codes: Tensor) -> Tensor:
        """Return the latents `[B, D, T]` float32 of codes `[B, k, T]` int64, the first k of all K.

        Raises:
            ValueError: if codes are not int64 `[B, k, T]`, a prefix may not end at k, or a code is
                outside the entries of its level.
        """
        check_codes(codes)
        depths = self._depths(codes.shape[1])
        parts = zip(self._quantizers, self._part_codes(codes, depths), strict=False)
        return self._join_latents([part.decode(each) for part, each in parts])

    def forward(
        self,
        z: Tensor,
        num_codebooks: int | None = None,
        *,
        item_codebooks: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> QuantizedResult:
        """Quantize latents `[B, D, T]`; see `ResidualVectorQuantizer.forward`.

        The losses are averaged over the levels of all parts that items use.

        Args:
            z: latents, `[B, D, T]`, float.
            num_codebooks: codes per frame, a number at which a prefix may end; default all K.
            item_codebooks: codes per frame that each item uses, int64 `[B]`, each 0 or a number at
                which a prefix may end within `num_codebooks`.
            mask: `[B, T]` bool, False for padding; default none.

        Raises:
            ValueError: if a prefix may not end at one of the numbers, or as
                `ResidualVectorQuantizer.forward`.
            RuntimeError: as `ResidualVectorQuantizer.forward`.
        """
        latents, depths = self._latents(z), self._depths(num_codebooks)
        check_mask(mask, z)
        if item_codebooks is not None:
            most = self.num_codebooks if num_codebooks is None else num_codebooks
            check_levels(item_codebooks, len(z), most)
        items = self._part_items(z, depths, item_codebooks)
        parts = zip(self._quantizers, latents, depths, items, strict=False)
        results = [
            part(latents, depth, item_codebooks=each, mask=mask)
            for part, latents, depth, each in parts
        ]
        weights = torch.stack([each.num_codebooks.sum() for each in results])
        weights = weights / weights.sum().clamp(min=1)
        rates = [each.bitrate_kbps for each in results]
        return QuantizedResult(
            self._join_latents([each.quantized for each in results]),
            self._join_codes([each.codes for each in results]),
            (torch.stack([each.commitment_loss for each in results]) * weights).sum(),
            (torch.stack([each.codebook_loss for each in results]) * weights).sum(),
            None if None in rates else torch.stack(rates).sum(dim=0),
            torch.stack([each.num_codebooks for each in results]).sum(dim=0),
        )

    def freeze(self) -> Self:
        """Freeze all parts; see `TrainableCodebooks.freeze`."""
        for part in self._quantizers:
            part.freeze()
        return self

    def unfreeze(self) -> Self:
        """Let all parts learn again."""
        for part in self._quantizers:
            part.unfreeze()
        return self

    def update(self) -> None:
        """Let all parts learn what was collected; see `TrainableCodebooks.update`."""
        for part in self._quantizers:
            part.update()

    @property
    def usage(self) -> Tensor:
        """Fraction of the entries in use per codebook, `[K]`; see `statistics.usage`."""
        return self._join_codes([part.usage[:, None] for part in self._quantizers]).flatten()

    @property
    def entropy(self) -> Tensor:
        """Entropy in bits of the training codes per codebook, `[K]`."""
        return self._join_codes([part.entropy[:, None] for part in self._quantizers]).flatten()

    @property
    def perplexity(self) -> Tensor:
        """Perplexity of the training codes per codebook, `[K]`: 2 to the power of the entropy."""
        return self.entropy.exp2()

    def summary(self) -> str:
        """Return a printable table of entries, usage, perplexity and entropy per codebook."""
        return statistics.table(self.codebook_sizes, self.usage, self.entropy)

    def __repr__(self) -> str:
        return card.line(type(self).__name__, card.facts(self.dim, self._quantizers))

    def _repr_html_(self) -> str:
        shown = card.facts(self.dim, self._quantizers)
        figures = self.codebook_sizes, self.usage, self.entropy
        return card.html_card(type(self).__name__, shown, *figures)


class GroupedResidualVectorQuantizer(_SideBySide):
    """Residual quantizer for each of G equal slices of the channels.

    Yang et al. 2023, HiFi-Codec (arXiv:2305.02765). Codes are ordered by level: level 0 of all
    groups, then level 1, and so on. A prefix therefore consists of whole levels, and K counts the
    codes of all groups.

    Args:
        parts: the G quantizers, with equal `dim`, `num_codebooks` and quantizer dropout. One draw
            of the dropout applies to all of them.

    Attributes:
        dim: D, of all slices together.
        num_codebooks: codes per frame; a prefix may end at any multiple of G.
        codebook_sizes: entries of each codebook, in the order of the codes.

    Raises:
        ValueError: if there are no parts, or they differ in one of these.
    """

    def __init__(self, parts: Sequence[ResidualVectorQuantizer]) -> None:
        alike = {(p.dim, p.num_codebooks, p.learning.quantizer_dropout) for p in parts}
        if len(alike) > 1:
            raise ValueError(
                "groups must be alike in dim, num_codebooks and quantizer_dropout, "
                f"got {sorted(alike)}"
            )
        super().__init__(parts)
        self.dim = parts[0].dim * len(parts)

    def _part_latents(self, z: Tensor) -> Sequence[Tensor]:
        return z.chunk(len(self.parts), dim=1)

    def _join_latents(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), dim=1)

    def _part_depths(self, num_codebooks: int) -> list[int]:
        groups = len(self.parts)
        if num_codebooks % groups:
            raise ValueError(
                f"num_codebooks must be a multiple of the {groups} groups, got {num_codebooks}"
            )
        return [num_codebooks // groups] * groups

    def _join_codes(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts), dim=-2).flatten(-3, -2)

    def _part_codes(self, codes: Tensor, depths: Sequence[int]) -> Sequence[Tensor]:
        return torch.unflatten(codes, 1, (depths[0], len(depths))).unbind(2)

    def _part_items(
        self, z: Tensor, depths: Sequence[int], items: Tensor | None
    ) -> Sequence[Tensor | None]:
        if items is None:
            dropout = self._quantizers[0].learning.quantizer_dropout if self.training else 0.0
            return [draw_levels(len(z), depths[0], dropout, z.device)] * len(depths)
        if (items % len(depths)).any():
            raise ValueError(
                f"item_codebooks must be multiples of the {len(depths)} groups, "
                f"got {items.tolist()}"
            )
        return [items // len(depths)] * len(depths)


class SplitResidualVectorQuantizer(_SideBySide):
    """Several quantizers of the same latents, whose outputs are summed.

    As in Mimi (Défossez et al. 2024, Moshi, arXiv:2410.00037, section 3.3): a semantic and an
    acoustic part, each with its own shared projections. Codes are ordered by part; a prefix
    contains all earlier parts completely.

    `fit` fits every part to the same latents, not to the residual of the other parts, so that the
    sum of parts without projections overshoots: use trained parts.

    Args:
        parts: the quantizers, with equal `dim`. Only the last one may have quantizer dropout, since
            a prefix contains all levels of the earlier parts.

    Attributes:
        dim: D.
        num_codebooks: codes per frame; a prefix may end at any level.
        codebook_sizes: entries of each codebook, in the order of the codes.

    Raises:
        ValueError: if there are no parts, they differ in `dim`, or one before the last has dropout.
    """

    def __init__(self, parts: Sequence[ResidualVectorQuantizer]) -> None:
        if len({part.dim for part in parts}) > 1:
            raise ValueError(f"parts must be alike in dim, got {[part.dim for part in parts]}")
        dropouts = [part.learning.quantizer_dropout for part in parts]
        if any(dropouts[:-1]):
            raise ValueError(f"quantizer_dropout is for the last part only, got {dropouts}")
        super().__init__(parts)
        self.dim = parts[0].dim

    def _part_latents(self, z: Tensor) -> Sequence[Tensor]:
        return [z] * len(self.parts)

    def _join_latents(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts)).sum(dim=0)

    def _part_depths(self, num_codebooks: int) -> list[int]:
        depths = []
        for part in self._quantizers:
            if num_codebooks > 0:
                depths.append(min(num_codebooks, part.num_codebooks))
                num_codebooks -= depths[-1]
        return depths

    def _join_codes(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), dim=-2)

    def _part_codes(self, codes: Tensor, depths: Sequence[int]) -> Sequence[Tensor]:
        return torch.split(codes, list(depths), dim=1)

    def _part_items(
        self, z: Tensor, depths: Sequence[int], items: Tensor | None
    ) -> Sequence[Tensor | None]:
        if items is None:
            return [None] * len(depths)
        before = [sum(depths[:k]) for k in range(len(depths))]
        return [
            (items - start).clamp(0, depth) for start, depth in zip(before, depths, strict=True)
        ]
