"""Parallel residual quantizers, of slices of the channels or of the same latents.

>>> import torch
>>> from neuralcodec.quantize import ResidualVectorQuantizer
>>> parts = [ResidualVectorQuantizer(4, 3, 16) for _ in range(2)]
>>> z = torch.randn(1, 8, 100, generator=torch.Generator().manual_seed(0))
>>> GroupedResidualVectorQuantizer(parts).fit(z).encode(z).shape  # 3 levels of 2 groups
torch.Size([1, 6, 100])
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn

from neuralcodec.quantize import card, statistics
from neuralcodec.quantize.inputs import check_codes, check_latents, check_number
from neuralcodec.quantize.residual import ResidualVectorQuantizer
from neuralcodec.quantize.result import QuantizedResult
from neuralcodec.quantize.training import draw_levels


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
        ordered = self._join_codes([torch.tensor(part.codebook_sizes)[:, None] for part in parts])
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
    def _part_items(self, z: Tensor, depths: Sequence[int]) -> Sequence[Tensor | None]:
        """Return the levels of each item per part, `[B]`, or None if the part draws them itself."""

    def _depths(self, num_codebooks: int | None) -> list[int]:
        if num_codebooks is None:
            num_codebooks = self.num_codebooks
        check_number("num_codebooks", num_codebooks, 1, self.num_codebooks)
        return self._part_depths(num_codebooks)

    def _latents(self, z: Tensor) -> Sequence[Tensor]:
        check_latents(z, self.dim)
        return self._part_latents(z)

    def fit(
        self,
        z: Tensor,
        *,
        iterations: int = 5,
        beam_width: int = 5,
        refinements: int | None = None,
        seed: int = 0,
    ) -> Self:
        """Fit each part to its latents of `z [B, D, T]`, independently of the other parts.

        The arguments are those of `ResidualVectorQuantizer.fit`.

        Raises:
            ValueError: if `z` is not `[B, D, T]`, or as `ResidualVectorQuantizer.fit`; parts before
                the one that fails keep their new codebooks.
        """
        for part, latents in zip(self._quantizers, self._latents(z), strict=True):
            part.fit(
                latents,
                iterations=iterations,
                beam_width=beam_width,
                refinements=refinements,
                seed=seed,
            )
        return self

    def encode(
        self,
        z: Tensor,
        num_codebooks: int | None = None,
        *,
        beam_width: int = 1,
        backend: str = "auto",
    ) -> Tensor:
        """Return the codes `[B, K, T]` int64 of latents `[B, D, T]`, each part searched separately.

        Args:
            z: latents, `[B, D, T]`, float.
            num_codebooks: codes per frame, a number at which a prefix may end; default all K.
            beam_width: see `ResidualVectorQuantizer.encode`; each part has its own beam.
            backend: lookup backend; see `lookup.search`.

        Raises:
            ValueError: if a prefix may not end at `num_codebooks`, or as
                `ResidualVectorQuantizer.encode`.
            RuntimeError: as `ResidualVectorQuantizer.encode`.
        """
        depths = self._depths(num_codebooks)
        parts = zip(self._quantizers, self._latents(z), depths, strict=False)
        return self._join_codes(
            [
                part.encode(latents, depth, beam_width=beam_width, backend=backend)
                for part, latents, depth in parts
            ]
        )

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

    def forward(self, z: Tensor, num_codebooks: int | None = None) -> QuantizedResult:
        """Quantize latents `[B, D, T]`; see `ResidualVectorQuantizer.forward`.

        The losses are averaged over the levels of all parts that items use.

        Raises:
            ValueError: if a prefix may not end at `num_codebooks`, or as
                `ResidualVectorQuantizer.forward`.
            RuntimeError: as `ResidualVectorQuantizer.forward`.
        """
        depths = self._depths(num_codebooks)
        items = self._part_items(z, depths)
        parts = zip(self._quantizers, self._latents(z), depths, items, strict=False)
        results = [
            part(latents, depth, item_codebooks=each) for part, latents, depth, each in parts
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
        alike = {(p.dim, p.num_codebooks, p.options.quantizer_dropout) for p in parts}
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

    def _part_items(self, z: Tensor, depths: Sequence[int]) -> Sequence[Tensor | None]:
        dropout = self._quantizers[0].options.quantizer_dropout if self.training else 0.0
        return [draw_levels(len(z), depths[0], dropout, z.device)] * len(depths)


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
        dropouts = [part.options.quantizer_dropout for part in parts]
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

    def _part_items(self, z: Tensor, depths: Sequence[int]) -> Sequence[Tensor | None]:
        return [None] * len(depths)
