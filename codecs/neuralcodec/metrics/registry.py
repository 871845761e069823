"""The registry of metrics: requirements, sample rate, range and direction of each."""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from neuralcodec.core import plugins
from neuralcodec.core.audio import KINDS
from neuralcodec.core.names import unknown
from neuralcodec.metrics import custom
from neuralcodec.metrics.custom import CustomMetric
from neuralcodec.metrics.signals import Signal, Undefined

Function: TypeAlias = Callable[[Signal, Signal, int], float]

_ANY = frozenset(KINDS)
_SPEECH = frozenset({"speech"})


@dataclass(frozen=True)
class Metric:
    """The description of a metric: where its function is, and how to interpret its values.

    Attributes:
        name: name in the registry, and of its column in `results.csv`.
        module: module that contains the function.
        function: name of the function.
        extra: pip extra that installs its dependencies; None if the base installation does.
        rate: sample rate in Hz that the signals are resampled to; None if they are not resampled.
        low: lower bound of the values, up to rounding.
        high: upper bound of the values, up to rounding.
        higher_is_better: whether larger values mean better quality.
        kinds: kinds of audio for which the metric is defined.
        unit: unit of the values; "1" if dimensionless.
        label: axis label for plots.
        summary: description in one line.
    """

    name: str
    module: str
    function: str
    extra: str | None
    rate: int | None
    low: float
    high: float
    higher_is_better: bool
    kinds: frozenset[str]
    unit: str
    label: str
    summary: str

    def load(self) -> Function:
        """Import and return the function `(reference, estimate, sample_rate) -> float`.

        Raises:
            ImportError: if a package that it needs is missing; the message says how to install it.
        """
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if self.extra is None or missing in {"", "neuralcodec"}:
                raise
            raise ImportError(
                f"needs {missing!r}: pip install 'neuralcodec[{self.extra}]'", name=missing
            ) from error
        return getattr(module, self.function)  # type: ignore[no-any-return]  # a module's contents


@dataclass(frozen=True)
class CustomEntry(Metric):
    """A metric of another distribution.

    Attributes:
        metric: the instance.
        package: name of the distribution; "" where none is known.
    """

    metric: CustomMetric
    package: str

    def load(self) -> Function:
        """Return the function `(reference, estimate, sample_rate) -> float`.

        Whatever it raises beside `Undefined` becomes an `Undefined` that names metric and package,
        so that an error in one metric does not cost the others.
        """
        whose = f" of package {self.package!r}" if self.package else ""

        def scored(reference: Signal, estimate: Signal, sample_rate: int) -> float:
            try:
                return self.metric(reference, estimate, sample_rate)
            except Undefined:
                raise
            except Exception as error:  # a foreign metric may raise anything
                said = " ".join(f"{type(error).__name__}: {error}".split())
                raise Undefined(f"metric {self.name!r}{whose} failed: {said}") from error

        return scored


def _metric(
    name: str,
    module: str,
    low: float,
    high: float,
    unit: str,
    label: str,
    summary: str,
    *,
    rate: int | None = None,
    extra: str | None = None,
    lower_is_better: bool = False,
    kinds: frozenset[str] = _ANY,
) -> Metric:
    where = f"neuralcodec.metrics.{module}"
    return Metric(
        name, where, name, extra, rate, low, high, not lower_is_better, kinds, unit, label, summary
    )


_ALL = (
    _metric(
        *("pesq_wb", "pesq", 1.0, 4.65, "MOS-LQO", "PESQ-WB [MOS-LQO]"),
        "wideband speech quality (ITU-T P.862.2)",
        rate=16000,
        kinds=_SPEECH,
    ),
    _metric(
        *("pesq_nb", "pesq", 1.0, 4.55, "MOS-LQO", "PESQ-NB [MOS-LQO]"),
        "telephone-band speech quality (ITU-T P.862, P.862.1)",
        rate=8000,
        kinds=_SPEECH,
    ),
    _metric(
        *("stoi", "stoi", -1.0, 1.0, "1", "STOI"),
        "speech intelligibility (Taal et al. 2011)",
        rate=10000,
        kinds=_SPEECH,
    ),
    _metric(
        *("estoi", "stoi", -1.0, 1.0, "1", "ESTOI"),
        "extended speech intelligibility (Jensen and Taal 2016)",
        rate=10000,
        kinds=_SPEECH,
    ),
    _metric(
        *("si_sdr", "si_sdr", -inf, inf, "dB", "SI-SDR [dB]"),
        "waveform fidelity but for level (Le Roux et al. 2019)",
    ),
    _metric(
        *("si_sdr_aligned", "si_sdr", -inf, inf, "dB", "SI-SDR, aligned [dB]"),
        "SI-SDR at the best delay within 25 ms",
    ),
    _metric(
        *("log_mel_distance", "log_mel_distance", 0.0, inf, "log10", "Log-mel distance [log10]"),
        "L1 of log-mel spectrograms, 7 windows (after Kumar et al. 2023)",
        lower_is_better=True,
    ),
    _metric(
        *("mrstft_distance", "mrstft_distance", 0.0, inf, "1", "Multi-resolution STFT distance"),
        "spectral convergence and log magnitude, 3 windows (Yamamoto et al. 2020)",
        lower_is_better=True,
    ),
    _metric(
        *("visqol", "visqol", 1.0, 5.0, "MOS-LQO", "ViSQOL audio [MOS-LQO]"),
        "audio quality, audio mode (Chinen et al. 2020)",
        rate=48000,
        extra="metrics",
    ),
    _metric(
        *("visqol_speech", "visqol", 1.0, 5.0, "MOS-LQO", "ViSQOL speech [MOS-LQO]"),
        "speech quality, speech mode (Chinen et al. 2020)",
        rate=16000,
        extra="metrics",
        kinds=_SPEECH,
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name."""

DEFAULT: tuple[str, ...] = tuple(metric.name for metric in _ALL if metric.extra is None)
"""Names of the metrics that the base installation computes: all except ViSQOL's."""


@functools.cache
def _custom(plugin: plugins.Plugin) -> Metric:
    metric = custom.build(plugin)
    return CustomEntry(
        name=plugin.name,
        module=plugin.module,
        function=plugin.attribute,
        extra=None,
        rate=metric.rate,
        low=metric.low,
        high=metric.high,
        higher_is_better=metric.higher_is_better,
        kinds=frozenset(metric.kinds),
        unit=metric.unit,
        label=metric.label or plugin.name,
        summary=metric.summary or f"of {plugin.package or plugin.module}",
        metric=metric,
        package=plugin.package,
    )


def is_metric(name: str) -> bool:
    """Return whether a name is that of a metric: built in, of a package, or `module:Class`."""
    return name in METRICS or plugins.find(plugins.METRICS, name) is not None


def find(name: str) -> Metric:
    """Return the metric `name`: built in, of an installed package, or `module:Class`.

    Raises:
        ValueError: if there is no such metric; the nearest name is given.
        ImportError: if the metric of another package can't be imported; names the package.
    """
    if name in METRICS:
        return METRICS[name]
    plugin = plugins.find(plugins.METRICS, name)
    if plugin is None:
        raise unknown("metric", name, [*METRICS, *plugins.installed(plugins.METRICS)])
    return _custom(plugin)


def table() -> str:
    """Return a printable table of all metrics: name, rate, range, direction, kinds, description.

    >>> table().splitlines()[1]
    'pesq_wb           16 kHz  1..4.65    higher  speech  wideband speech quality (ITU-T P.862.2)'
    """
    rows = [("metric", "rate", "range", "better", "kinds", "what")]
    for metric in (*_ALL, *map(find, plugins.installed(plugins.METRICS))):
        rate = "any" if metric.rate is None else f"{metric.rate / 1000:g} kHz"
        better = "higher" if metric.higher_is_better else "lower"
        kinds = "any" if metric.kinds == _ANY else ", ".join(sorted(metric.kinds))
        span = f"{metric.low:g}..{metric.high:g}"
        rows.append((metric.name, rate, span, better, kinds, metric.summary))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
