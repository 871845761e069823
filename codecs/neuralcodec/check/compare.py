"""Differences between two results of a codec, and the bounds within which they are rounding."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from neuralcodec.check.line import Finding

FLIPPED = 0.005
"""Largest fraction of codes that may differ because sums are rounded in another order.

The codes near ties differ, and with them those of the deeper levels.
"""

ROUNDING = 1e-4
"""Largest relative RMS error of latents or audio due to sums in another order: -80 dB."""


def relative_error(estimate: Tensor, reference: Tensor) -> float:
    """Return the RMS of the difference divided by the RMS of the reference.

    It is 0 where both are equal, and inf where the shapes differ or the reference alone is all
    zeros.
    """
    if estimate.shape != reference.shape:
        return float("inf")
    error = float((estimate.double() - reference.double()).square().mean().sqrt())
    level = float(reference.double().square().mean().sqrt())
    if not error:
        return 0.0
    return error / level if level else float("inf")


def codes_apart(one: Iterable[Tensor], other: Iterable[Tensor]) -> tuple[int, int]:
    """Return the number of codes that differ and the number of all codes.

    Where the shapes of two tensors differ, all codes of the larger one count as different.
    """
    apart = total = 0
    for a, b in zip_longest(one, other, fillvalue=torch.empty(0)):
        size = max(a.numel(), b.numel())
        total += size
        apart += int((a != b).sum()) if a.shape == b.shape else size
    return apart, total


class Comparison:
    """Differences over several pairs of results that should be equal."""

    def __init__(self) -> None:
        self._apart = self._total = 0
        self._latents: float | None = None
        self._audio: float | None = None

    def coded(self, one: Sequence[Tensor], reference: Sequence[Tensor]) -> None:
        """Add a pair of codes, one tensor per codebook, or of latents, a single tensor."""
        if reference[0].is_floating_point():
            self._latents = max(self._latents or 0.0, relative_error(one[0], reference[0]))
        else:
            apart, total = codes_apart(one, reference)
            self._apart, self._total = self._apart + apart, self._total + total

    def audio(self, one: Tensor, reference: Tensor) -> None:
        """Add a pair of wavs of any shape."""
        self._audio = max(self._audio or 0.0, relative_error(one, reference))

    def finding(self, meaning: str, *, exact: bool = False) -> Finding:
        """Return whether the pairs were equal, up to rounding or, if `exact`, bit for bit."""
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
    """Return the root mean square of all samples."""
    return float(wav.double().square().mean().sqrt())


def is_finite(*tensors: Tensor) -> bool:
    """Return whether the tensors contain neither NaN nor infinity."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
