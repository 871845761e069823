"""Metrics of other distributions: a base class to fill in, and how they are built.

A class derived from `CustomMetric` is a metric wherever one is named, as `module:Class` or under
the name of an entry point of the group `neuralcodec.metrics`.
"""

from abc import ABC, abstractmethod
from math import inf
from typing import ClassVar

from torch import Tensor

from neuralcodec.core.audio import KINDS, resample
from neuralcodec.core.plugins import Plugin
from neuralcodec.metrics.signals import Signal, check_pair


class CustomMetric(ABC):
    """A metric of one's own; an instance is made once per process, without arguments.

    Attributes:
        label: for the axis of a plot, with the unit.
        summary: one line.
        unit: of the figure; "1" for a pure number.
        low: no figure is below.
        high: no figure is above.
        higher_is_better: the direction.
        kinds: kinds of audio for which it is defined; for others it is NaN.
        rate: Hz at which `score` gets the signals; None for their own rate.
    """

    label: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    unit: ClassVar[str] = "1"
    low: ClassVar[float] = -inf
    high: ClassVar[float] = inf
    higher_is_better: ClassVar[bool] = True
    kinds: ClassVar[frozenset[str]] = frozenset(KINDS)
    rate: ClassVar[int | None] = None

    @abstractmethod
    def score(self, reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
        """Return the figure.

        Args:
            reference: the original, `[T]` float64, finite.
            estimate: what came back, `[T]` float64, finite.
            sample_rate: Hz of both: `rate`, or that of the audio where `rate` is None.

        Raises:
            Undefined: if it has no value for these signals, with the reason.
        """

    def __call__(self, reference: Signal, estimate: Signal, sample_rate: int) -> float:
        """Check and resample the signals, and return their `score`."""
        one, other, rate = check_pair(reference, estimate, sample_rate)
        if self.rate is not None and self.rate != rate:
            one, other = (resample(each, rate, self.rate).double() for each in (one, other))
            rate = self.rate
        return float(self.score(one, other, rate))


def build(plugin: Plugin) -> CustomMetric:
    """Import and build a metric of another distribution.

    Raises:
        ImportError: if it can't be imported or built or is no `CustomMetric`; names the package.
    """
    make = plugin.load(CustomMetric, "metric", "neuralcodec.metrics.CustomMetric")
    try:
        metric: CustomMetric = make()
    except Exception as error:  # a foreign class may raise anything
        said = f"{type(error).__name__}: {error}"
        raise ImportError(f"metric {plugin.name!r}{plugin.whose} can't be built: {said}") from error
    return metric
