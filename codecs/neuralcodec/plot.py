"""Figures of a sweep, from its rows alone: quality against rate, codebook count, vocabulary.

Every `plot_...` draws into the axes given, or new ones, and returns them; nothing is shown. Colours
are those of Okabe and Ito (2008), which colour-blind people can tell apart; markers and line styles
repeat what colours say, for print.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralcodec.metrics import METRICS
from neuralcodec.sweep.stats import frontier, summarise

_COLOURS = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000 #7F7F7F".split()
_MARKERS = "osD^vPX*"
_RATES = {"bitrate_kbps": "bitrate [kbit/s]", "tokens_per_second": "tokens per second"}
_STYLE: dict[Any, Any] = {  # matplotlib types its keys one by one
    "figure.constrained_layout.use": True,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#DDDDDD",
    "font.size": 10,
    "svg.hashsalt": "neuralcodec",  # the same rows give the same file
    "svg.fonttype": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style inside this context."""
    with mpl.rc_context(_STYLE):
        yield


def _new_axes() -> Axes:
    return Figure(figsize=(6, 4), layout="constrained").subplots()


def _look(position: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[position % len(_COLOURS)],
        "marker": _MARKERS[position % len(_MARKERS)],
    }


def _plain_log(ax: Axes) -> None:
    """Label a logarithmic x axis with plain numbers."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(ticker.NullFormatter())


def _label(metric: str) -> str:
    arrow = "↑" if METRICS[metric].higher_is_better else "↓"
    return f"{METRICS[metric].label} {arrow}"


def plot_quality(
    rows: pd.DataFrame,
    metric: str,
    *,
    rate: str = "bitrate_kbps",
    ax: Axes | None = None,
) -> Axes:
    """Draw quality against rate: a line a codec, through its best points.

    A codec may have many points at about one rate; the line joins those that beat all cheaper ones,
    the pale marks are the others. The band is the 95 % bootstrap interval of the mean over clips.

    Args:
        rows: of `results.csv`.
        metric: a metric column of it.
        rate: "bitrate_kbps" or "tokens_per_second", on a logarithmic axis.
        ax: where to draw; new axes by default.

    Raises:
        ValueError: if the rate or the metric is unknown, or no row has the metric.
    """
    if rate not in _RATES:
        raise ValueError(f"rate must be one of {', '.join(_RATES)}, got {rate!r}")
    summary = summarise(rows, metric)
    if summary.empty:
        raise ValueError(f"no row has a value of {metric!r}")
    ax = _new_axes() if ax is None else ax
    for position, codec in enumerate(rows["codec"].unique()):  # the same look in every panel
        points = summary[summary["codec"] == codec]
        if points.empty:
            continue
        line = frontier(points, rate, higher_is_better=METRICS[metric].higher_is_better)
        look = _look(position)
        others = points[~points["point"].isin(line["point"])]
        ax.scatter(others[rate], others["mean"], s=9, alpha=0.3, linewidths=0, **look)
        ax.plot(line[rate], line["mean"], label=codec, markersize=4, linewidth=1.5, **look)
        ax.fill_between(
            line[rate], line["low"], line["high"], color=look["color"], alpha=0.18, linewidth=0
        )
    _plain_log(ax)
    ax.set_xlabel(_RATES[rate])
    ax.set_ylabel(_label(metric))
    counts = sorted(summary["n"].unique())
    shown = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    ax.set_title(f"n = {shown} clips a point, band 95 %", fontsize=9, loc="right")
    return ax


def _grid_of(rows: pd.DataFrame, metric: str, codec: str, frame_rate: float) -> pd.DataFrame:
    """Give the points of a codec at one frame rate."""
    chosen = (rows["codec"] == codec) & (rows["frame_rate"] == frame_rate)
    summary = summarise(rows[chosen], metric)
    if summary.empty:
        raise ValueError(f"no row of codec {codec!r} at {frame_rate:g} Hz has {metric!r}")
    return summary


def plot_codebooks(
    rows: pd.DataFrame, metric: str, codec: str, frame_rate: float, *, ax: Axes | None = None
) -> Axes:
    """Draw quality against codebook count at one frame rate: a line a vocabulary size.

    Args:
        rows: of `results.csv`.
        metric: a metric column of it.
        codec: one whose codebook count and size were swept.
        frame_rate: Hz.
        ax: where to draw; new axes by default.

    Raises:
        ValueError: if the metric is unknown, or no row fits.
    """
    summary = _grid_of(rows, metric, codec, frame_rate)
    ax = _new_axes() if ax is None else ax
    for position, (size, line) in enumerate(summary.groupby("codebook_size")):
        line = line.sort_values("num_codebooks")
        look = _look(position)
        x = line["num_codebooks"]
        ax.plot(x, line["mean"], label=f"V = {size:g}", markersize=4, linewidth=1.5, **look)
        ax.fill_between(x, line["low"], line["high"], color=look["color"], alpha=0.18, linewidth=0)
    _plain_log(ax)
    ax.set_xlabel("codebooks K")
    ax.set_ylabel(_label(metric))
    ax.set_title(f"{codec}, {frame_rate:g} Hz, n = {summary['n'].max()}", fontsize=9, loc="right")
    return ax


def _octaves(rates: pd.DataFrame) -> list[float]:
    """Give powers of two, in kbit/s, inside the range of some bitrates."""
    low, high = np.log2(np.nanmin(rates)), np.log2(np.nanmax(rates))
    return [float(2.0**power) for power in range(int(np.ceil(low)), int(np.floor(high)) + 1)]


def plot_vocabulary(
    rows: pd.DataFrame, metric: str, codec: str, frame_rate: float, *, ax: Axes | None = None
) -> Axes:
    """Draw the heat map of vocabulary size and codebook count at one frame rate.

    Each cell gives the mean and, below it, the bitrate. Dashed lines join places of equal bitrate,
    so that along one the question is whether bits buy more as entries or as codebooks.

    Args:
        rows: of `results.csv`.
        metric: a metric column of it.
        codec: one whose codebook count and size were swept.
        frame_rate: Hz.
        ax: where to draw; new axes by default.

    Raises:
        ValueError: if the metric is unknown, or no row fits.
    """
    summary = _grid_of(rows, metric, codec, frame_rate)
    ax = _new_axes() if ax is None else ax
    means = summary.pivot_table(index="codebook_size", columns="num_codebooks", values="mean")
    rates = summary.pivot_table(
        index="codebook_size", columns="num_codebooks", values="bitrate_kbps"
    )
    palette = "cividis" if METRICS[metric].higher_is_better else "cividis_r"
    image = ax.imshow(means, cmap=palette, aspect="auto", origin="lower")
    rate = rates.to_numpy()
    middle = (np.nanmin(means) + np.nanmax(means)) / 2
    for (y, x), mean in np.ndenumerate(means.to_numpy()):
        if np.isfinite(mean):
            light = (mean > middle) == METRICS[metric].higher_is_better
            text = f"{mean:.2f}\n{rate[y, x]:.2g}k"
            ax.text(x, y, text, ha="center", va="center", size=6.5, color="k" if light else "w")
    if min(rates.shape) > 1:
        ax.contour(
            rate,
            levels=_octaves(rates),
            colors=_COLOURS[1],
            linestyles="dashed",
            linewidths=1.0,
        )
    ax.set_xticks(range(len(means.columns)), [f"{depth:g}" for depth in means.columns])
    ax.set_yticks(range(len(means.index)), [f"{size:g}" for size in means.index])
    ax.grid(visible=False)
    ax.set_xlabel("codebooks K")
    ax.set_ylabel("codebook size V")
    ax.set_title(f"{codec}, {frame_rate:g} Hz, n = {summary['n'].max()}", fontsize=9, loc="right")
    ax.figure.colorbar(image, ax=ax, label=_label(metric))
    return ax


def _panels(count: int, width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """Make a figure of `count` panels, at most `columns` beside each other."""
    columns = min(columns, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for spare in panels[count:]:
        spare.remove()
    return figure, panels[:count]


def _swept(rows: pd.DataFrame) -> Iterator[tuple[str, list[float]]]:
    """Find the codecs with several codebook counts and sizes, and their frame rates."""
    for codec, part in rows.groupby("codec", sort=False):
        if part["num_codebooks"].nunique() > 1 and part["codebook_size"].nunique() > 1:
            yield str(codec), sorted(part["frame_rate"].dropna().unique())


def draw_all(rows: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Figure]:
    """Draw every figure that the rows can fill.

    Args:
        rows: of `results.csv`.
        metrics: the columns to draw, in order; one with no value in any row is left out.

    Returns:
        Figures by name: `quality_bitrate` and `quality_tokens` with a panel a metric, and for each
        codec whose codebooks were swept `codebooks_CODEC` and `vocabulary_CODEC` with a row a
        metric and a column a frame rate.
    """
    metrics = [metric for metric in metrics if rows[metric].notna().any()]
    if not metrics:
        raise ValueError("no row has a score, so there is nothing to draw")
    figures = {}
    for name, rate in (
        ("quality_bitrate", "bitrate_kbps"),
        ("quality_tokens", "tokens_per_second"),
    ):
        figures[name], panels = _panels(len(metrics), 5.2, 3.6, columns=3)
        for metric, ax in zip(metrics, panels, strict=True):
            plot_quality(rows, metric, rate=rate, ax=ax)
        panels[0].legend(fontsize=8)
    for codec, frame_rates in _swept(rows):
        cells = [(metric, rate) for metric in metrics for rate in frame_rates]
        for name, plot, width in (
            ("codebooks", plot_codebooks, 4.0),
            ("vocabulary", plot_vocabulary, 6.0),
        ):
            figure, panels = _panels(len(cells), width, 2.9, columns=len(frame_rates))
            for (metric, frame_rate), ax in zip(cells, panels, strict=True):
                plot(rows, metric, codec, frame_rate, ax=ax)
            if plot is plot_codebooks:
                panels[0].legend(fontsize=8)
            figures[f"{name}_{codec}"] = figure
    return figures


def save_all(rows: pd.DataFrame, metrics: Sequence[str], folder: Path) -> list[Path]:
    """Draw every figure that the rows can fill, into PNG and SVG files.

    Args:
        rows: of `results.csv`.
        metrics: the columns to draw.
        folder: made if it does not exist.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with style():
        for name, figure in draw_all(rows, metrics).items():
            for ending, metadata in ((".png", {}), (".svg", {"Date": None})):
                paths.append(folder / f"{name}{ending}")
                figure.savefig(paths[-1], dpi=130, metadata=metadata)
    return paths
