"""What was lost: reference and estimate in, figures out.

    scores = score(reference, estimate, 16000, metrics=["pesq_wb", "si_sdr"], kind="speech")

A figure that has no value is NaN, and `scores.reasons` says why; nothing is made up. `table()`
lists every metric with its rate, range, direction and the kinds of audio it is defined for. A
metric's package is imported when the metric is asked for.
"""

from collections.abc import Iterable, Mapping
from math import nan

from neuralcodec.core.audio import KINDS
from neuralcodec.core.names import unknown
from neuralcodec.metrics.custom import CustomMetric
from neuralcodec.metrics.registry import DEFAULT, METRICS, Metric, find, is_metric, table
from neuralcodec.metrics.signals import Signal, Undefined, check_pair

__all__ = [
    "DEFAULT",
    "METRICS",
    "CustomMetric",
    "Metric",
    "Scores",
    "Undefined",
    "find",
    "is_metric",
    "score",
    "table",
]


class Scores(dict[str, float]):
    """Figures by metric, NaN where undefined.

    Attributes:
        reasons: why a figure is NaN, by metric; the others are not in it.
    """

    def __init__(self, values: Mapping[str, float], reasons: Mapping[str, str]) -> None:
        super().__init__(values)
        self.reasons: dict[str, str] = dict(reasons)


def _why_not(metric: Metric, kind: str) -> str | None:
    """Say why `metric` is not defined for audio of this kind; None if it is."""
    if kind in metric.kinds:
        return None
    is_what = "clip's kind is unknown" if kind == "unknown" else f"clip is {kind}"
    return f"defined for {' and '.join(sorted(metric.kinds))} only, the {is_what}"


def score(
    reference: Signal,
    estimate: Signal,
    sample_rate: int,
    metrics: Iterable[str] = DEFAULT,
    kind: str = "speech",
) -> Scores:
    """Score `estimate` against `reference` by each of `metrics`.

    Args:
        reference: the original, `[T]`, `[1, T]` or `[1, 1, T]`, float in [-1, 1], tensor or array.
        estimate: what came back, of the same length.
        sample_rate: Hz of both.
        metrics: names from `METRICS`; by default all that the base install computes.
        kind: what the clip holds: "speech", "music", "sound" or "unknown". Metrics of speech are
            NaN for all but the first.

    Returns:
        Scores: a figure for each metric in the order asked, NaN where it is undefined or its
        package is not installed; `.reasons` tells which of these, and why.

    Raises:
        ValueError: if a signal has several channels, another shape, no samples or NaN or infinite
            ones; the lengths differ; `sample_rate` is not a positive whole number; or a metric or
            the kind is unknown.

    >>> import torch
    >>> tone = torch.sin(torch.arange(16000) * 0.1)
    >>> scores = score(tone, 0.5 * tone, 16000, metrics=["si_sdr", "stoi"], kind="music")
    >>> scores, scores.reasons
    ({'si_sdr': inf, 'stoi': nan}, {'stoi': 'defined for speech only, the clip is music'})
    """
    if isinstance(metrics, str):
        raise ValueError(f"metrics must be a list of names, got the string {metrics!r}")
    asked = [find(name) for name in metrics]
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    reference, estimate, sample_rate = check_pair(reference, estimate, sample_rate)
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for metric in asked:
        values[metric.name] = nan
        reason = _why_not(metric, kind)
        if reason is not None:
            reasons[metric.name] = reason
            continue
        try:
            values[metric.name] = metric.load()(reference, estimate, sample_rate)
        except (Undefined, ImportError) as error:
            reasons[metric.name] = str(error)
    return Scores(values, reasons)
