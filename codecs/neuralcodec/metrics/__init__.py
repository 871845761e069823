"""Objective quality metrics, computed from a reference signal and an estimate.

    scores = score(reference, estimate, 16000, metrics=["pesq_wb", "si_sdr"], kind="speech")

A score that is undefined is NaN, and `scores.reasons` gives the reason. `table()` lists every
metric with its sample rate, range, direction and the kinds of audio that it is defined for. The
package of a metric is imported when the metric is first used.
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
    """Scores by metric name, NaN where undefined.

    Attributes:
        reasons: by metric name, the reason why a score is NaN; without entries for other metrics.
    """

    def __init__(self, values: Mapping[str, float], reasons: Mapping[str, str]) -> None:
        super().__init__(values)
        self.reasons: dict[str, str] = dict(reasons)


def _why_not(metric: Metric, kind: str) -> str | None:
    """Return why `metric` is undefined for audio of this kind, or None if it is defined."""
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
    """Compute `metrics` for `estimate` against `reference`.

    Args:
        reference: original signal, `[T]`, `[1, T]` or `[1, 1, T]`, float in [-1, 1], tensor or
            array.
        estimate: decoded signal, in one of these shapes and of the same length.
        sample_rate: sample rate of both, Hz.
        metrics: names from `METRICS`; default all that the base installation computes.
        kind: content of the clip: "speech", "music", "sound" or "unknown". Speech metrics are NaN
            for all kinds except "speech".

    Returns:
        Scores: one value per metric, in the given order; NaN if it is undefined or its package is
        not installed. `.reasons` gives the reason for each NaN.

    Raises:
        ValueError: if a signal has several channels, another shape, no samples, or NaN or infinite
            samples; if the lengths differ; if `sample_rate` is not a positive integer; or if a
            metric or the kind is unknown.

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
