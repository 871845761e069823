"""How much two results of a codec differ, and whether that is rounding."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from neuralcodec.check.line import Finding

FLIPPED = 0.005
"""Fraction of codes that sums in another order may flip: those near ties, and the levels below."""

ROUNDING = 1e-4
"""Error of latents or audio, over their RMS, that sums in another order may make: -80 dB."""


def relative_error(estimate: Tensor, reference: Tensor) -> float:
    """RMS of the difference over that of the reference; inf where shapes differ or it isn't 0/0."""
    if estimate.shape != reference.shape:
        return float("inf")
    error = float((estimate.double() - reference.double()).square().mean().sqrt())
    return error / float(reference.double().square().mean().sqrt()) if error else 0.0


def codes_apart(one: Iterable[Tensor], other: Iterable[Tensor]) -> tuple[int, int]:
    """Count codes that differ, and all; where shapes differ all of them do."""
    apart = total = 0
    for a, b in zip_longest(one, other, fillvalue=torch.empty(0)):
        size = max(a.numel(), b.numel())
        total += size
        apart += int((a != b).sum()) if a.shape == b.shape else size
    return apart, total


class Comparison:
    """Differences, added up over several pairs of results that should be the same."""

    def __init__(self) -> None:
        self._apart = self._total = 0
        self._latents: float | None = None
        self._audio: float | None = None

    def coded(self, one: Sequence[Tensor], reference: Sequence[Tensor]) -> None:
        """Compare codes, one tensor a codebook, or the only tensor of latents."""
        if reference[0].is_floating_point():
            self._latents = max(self._latents or 0.0, relative_error(one[0], reference[0]))
        else:
            apart, total = codes_apart(one, reference)
            self._apart, self._total = self._apart + apart, self._total + total

    def audio(self, one: Tensor, reference: Tensor) -> None:
        """Compare wavs."""
        self._audio = max(self._audio or 0.0, relative_error(one, reference))

    def finding(self, meaning: str, *, exact: bool = False) -> Finding:
        """Judge: exactly the same, or the same but for rounding."""
        errors = {"latents": self._latents, "audio": self._audio}
        seen = {name: error for name, error in errors.items() if error is not None}
        parts = [f"{self._apart} of {self._total} codes differ"] if self._total else []
        parts += [f"{name} off by {error:.1g}" for name, error in seen.items()]
        asked = [f"{FLIPPED:.1%} of codes"] if self._total else []
        asked += [f"{ROUNDING:g} of the RMS"] if seen else []
        if exact:
            holds = self._apart == 0 and not any(seen.values())
            return Finding(holds, ", ".join(parts), "the same, bit for bit", meaning)
        holds = self._apart <= FLIPPED * self._total and all(e <= ROUNDING for e in seen.values())
        if holds and self._apart:
            meaning += "; the codes that differ may be near ties, decided by rounding"
        return Finding(holds, ", ".join(parts), ", ".join(asked), meaning)


def rms(wav: Tensor) -> float:
    """Root mean square of all samples."""
    return float(wav.double().square().mean().sqrt())


def is_finite(*tensors: Tensor) -> bool:
    """Tell whether there is no NaN and no infinity."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
