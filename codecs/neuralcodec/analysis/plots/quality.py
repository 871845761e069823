"""Quality against rate: one curve per codec, through its best points."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralcodec.analysis.plots.style import (
    counted,
    draw_infinite,
    draw_means,
    legend,
    look,
    metric_label,
    new_axes,
    new_panels,
    note,
    set_title,
)
from neuralcodec.analysis.rows import curve_names
from neuralcodec.analysis.stats import frontier, summarise
from neuralcodec.metrics.registry import find

RATES = {"bitrate_kbps": "bitrate [kbit/s]", "tokens_per_second": "tokens per second"}
"""Columns of rates, with their axis labels."""

_FEW_DECADES = 3.5  # up to these, ticks at 1, 2 and 5 have room


def _plain_number(value: float, _: int | None = None) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _use_log_axis(ax: Axes, rates: pd.Series) -> None:
    """Make the x axis logarithmic, with plain numbers: thousands as k, millions as M."""
    decades = np.log10(rates.max() / rates.min())
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(
        ticker.LogLocator(subs=(1, 2, 5) if decades <= _FEW_DECADES else (1,))
    )
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(_plain_number))
    ax.xaxis.set_minor_formatter(ticker.NullFormatter())


def plot_quality(
    rows: pd.DataFrame,
    metric: str,
    *,
    rate: str = "bitrate_kbps",
    ax: Axes | None = None,
) -> Axes:
    """Draw quality against rate: one curve per label, or per codec where there is no label.

    A codec may have many points at about one rate. The curve joins those that are better than
    every cheaper one; pale marks are the others. The band is the 95 % bootstrap interval of the
    mean over clips. An infinite mean, as of a perfect SI-SDR, is a hollow mark at the edge of the
    axes. The title counts clips, infinite means and points that have no positive rate.

    Args:
        rows: those of `results.csv`, from `analysis.rows.read_rows`.
        metric: one of its metric columns.
        rate: "bitrate_kbps" or "tokens_per_second", on a logarithmic axis.
        ax: where to draw; default: new axes.

    Raises:
        ValueError: if the rate or the metric is unknown, or no row has a value of the metric.
    """
    if rate not in RATES:
        raise ValueError(f"rate must be one of {', '.join(RATES)}, got {rate!r}")
    summary = summarise(rows, metric)
    if summary.empty:
        raise ValueError(f"no row has a value of {metric!r}")
    ax = new_axes() if ax is None else ax
    placed = summary[np.isfinite(summary[rate]) & (summary[rate] > 0)]
    for position, name in enumerate(curve_names(rows).unique()):  # the same look in every panel
        points = placed[placed["label"] == name]
        if points.empty:
            continue
        best = frontier(points, rate, higher_is_better=find(metric).higher_is_better)
        others = points[~points["point"].isin(best["point"]) & np.isfinite(points["mean"])]
        pale = look(position) | {"linestyle": "", "markersize": 3, "markeredgewidth": 0}
        ax.plot(others[rate], others["mean"], alpha=0.35, **pale)
        draw_means(ax, best, rate, name, position)
        draw_infinite(ax, points, rate, position)
    ax.set_xlabel(RATES[rate])
    ax.set_ylabel(metric_label(metric))
    unplaced = len(summary) - len(placed)
    without = f"{unplaced} without a positive rate, " if unplaced else ""
    set_title(ax, f"{without}{counted(summary)} clips per point, band: 95 % interval")
    if placed.empty:
        note(ax, "no point has a positive rate")
        return ax
    _use_log_axis(ax, placed[rate])
    if not np.isfinite(placed["mean"]).any():
        note(ax, "no mean is finite")
    return ax


def draw_quality(
    rows: pd.DataFrame, metrics: Sequence[str], rate: str, missing: Sequence[str] = ()
) -> Figure:
    """Draw one panel per metric under a common legend.

    Args:
        rows: those of `results.csv`.
        metrics: the columns to draw; each has a value in some row.
        rate: as in `plot_quality`.
        missing: metrics without any value, which the figure names.
    """
    figure, panels = new_panels(len(metrics), 5.2, 3.6, columns=2 if len(metrics) < 5 else 3)
    for metric, ax in zip(metrics, panels, strict=True):
        plot_quality(rows, metric, rate=rate, ax=ax)
    lines = ["lines join the best points, pale marks are the others"]
    if missing:
        lines.append(textwrap.fill(f"no value: {', '.join(missing)}", 60))
    legend(figure, panels, "\n".join(lines))
    return figure
