"""Codebook count and vocabulary size at one frame rate: as curves, and as a map."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralcodec.analysis.plots.cells import (
    annotate_cells,
    annotate_rates,
    draw_equal_rates,
    height_of,
    label_cells,
    width_of,
)
from neuralcodec.analysis.plots.style import (
    counted,
    draw_infinite,
    draw_means,
    legend,
    metric_label,
    new_axes,
    new_panels,
    note,
    set_title,
)
from neuralcodec.analysis.rows import curve_names
from neuralcodec.analysis.stats import summarise
from neuralcodec.metrics.registry import find

_MOST_TICKS = 10
_MOST_COLUMNS = 4  # of panels


def _rows_of(rows: pd.DataFrame, codec: str) -> pd.DataFrame:
    """Return the rows drawn under this name, or else those of the codec of this name."""
    named = curve_names(rows) == codec
    return rows[named if named.any() else rows["codec"].astype(str) == codec]


def _grid_of(
    rows: pd.DataFrame, metric: str, codec: str, frame_rate: float, settings: str | None
) -> pd.DataFrame:
    """Return the points of a codec at one frame rate and in one setting."""
    chosen = rows["frame_rate"] == frame_rate
    if settings is not None:
        chosen &= rows["settings"] == settings
    summary = summarise(rows[chosen], metric)
    if summary.empty:
        raise ValueError(f"no row of codec {codec!r} at {frame_rate:g} Hz has {metric!r}")
    found = summary["settings"].unique()
    if len(found) > 1:
        raise ValueError(
            f"rows of codec {codec!r} at {frame_rate:g} Hz differ in their settings: "
            f"{', '.join(found)}; choose one with settings="
        )
    axes = ["num_codebooks", "codebook_size"]
    twice = summary[summary.duplicated(axes, keep=False)]
    if len(twice):
        depth, size = twice.iloc[0][axes]
        same = twice[(twice["num_codebooks"] == depth) & (twice["codebook_size"] == size)]
        raise ValueError(
            f"codec {codec!r} at {frame_rate:g} Hz has {len(same)} points with K = {depth:g} and "
            f"V = {size:g}: {', '.join(map(str, same['point']))}; they need different labels, or "
            f"come from different sweeps"
        )
    return summary


def _describe(summary: pd.DataFrame) -> str:
    """Return what a panel shows: label, frame rate, other settings and the number of clips."""
    first = summary.iloc[0]
    others = [
        f"{name} {value}"
        for name, value in json.loads(first["settings"]).items()
        if name != "frame_rate"
    ]
    return ", ".join([first["label"], f"{first['frame_rate']:g} Hz", *others, counted(summary)])


def _depth_ticks(depths: Sequence[float]) -> list[float]:
    """Choose the codebook counts that are ticked on a logarithmic axis.

    Up to ten are all ticked where they have room. Of more, powers of two come first, then the
    largest and the smallest, then others at least half an octave away; fewer than two octaves
    are divided in about four.
    """
    octaves = np.log2(max(depths) / min(depths))
    apart = 0.06 * octaves  # the width of a number of two digits
    if len(depths) > _MOST_TICKS:
        apart = max(apart, min(0.5, octaves / 4))
    powers = [depth for depth in depths if np.log2(depth).is_integer()]
    chosen: list[float] = []
    for depth in [*powers, max(depths), *sorted(depths)]:
        if all(abs(np.log2(depth / other)) >= apart for other in chosen if other != depth):
            chosen.append(depth)
    return sorted(set(chosen))


def plot_codebooks(
    rows: pd.DataFrame,
    metric: str,
    codec: str,
    frame_rate: float,
    *,
    settings: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw quality against codebook count at one frame rate: one curve per vocabulary size.

    The band is the 95 % bootstrap interval of the mean over clips. A vocabulary size has the same
    colour at every frame rate and in all settings of `rows`.

    Args:
        rows: those of `results.csv`, from `analysis.rows.read_rows`.
        metric: one of its metric columns.
        codec: a label, or the name of a codec, whose codebook count and size were swept.
        frame_rate: in Hz.
        settings: the text of the column `settings`, if the codec has several at this frame rate.
        ax: where to draw; default: new axes.

    Raises:
        ValueError: if the metric is unknown, no row fits, those that fit differ in their settings,
            or two points have the same codebook count and size.
    """
    rows = _rows_of(rows, codec)
    summary = _grid_of(rows, metric, codec, frame_rate, settings)
    ax = new_axes() if ax is None else ax
    for position, size in enumerate(sorted(rows["codebook_size"].dropna().unique())):
        line = summary[summary["codebook_size"] == size].sort_values("num_codebooks")
        if len(line):
            draw_means(ax, line, "num_codebooks", f"V = {size:g}", position)
            draw_infinite(ax, line, "num_codebooks", position)
    depths = _depth_ticks(sorted(summary["num_codebooks"].unique()))
    ax.set_xscale("log", base=2)
    ax.set_xticks(depths, [f"{depth:g}" for depth in depths])
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.set_xlabel("codebooks K")
    ax.set_ylabel(metric_label(metric))
    set_title(ax, _describe(summary))
    if not np.isfinite(summary["mean"]).any():
        note(ax, "no mean is finite")
    return ax


def plot_vocabulary(
    rows: pd.DataFrame,
    metric: str,
    codec: str,
    frame_rate: float,
    *,
    settings: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the heat map of vocabulary size and codebook count at one frame rate.

    A cell shows the mean and, below it, the bitrate in kbit/s, as long as there is room for text.
    Dashed lines join places of equal bitrate: along one of them the question is whether bits buy
    more as entries or as codebooks. Cells without a finite mean are white.

    Args:
        rows: those of `results.csv`, from `analysis.rows.read_rows`.
        metric: one of its metric columns.
        codec: a label, or the name of a codec, whose codebook count and size were swept.
        frame_rate: in Hz.
        settings: the text of the column `settings`, if the codec has several at this frame rate.
        ax: where to draw; default: new axes.

    Raises:
        ValueError: if the metric is unknown, no row fits, those that fit differ in their settings,
            or two points have the same codebook count and size.
    """
    summary = _grid_of(_rows_of(rows, codec), metric, codec, frame_rate, settings)
    cells = summary.pivot(
        index="codebook_size", columns="num_codebooks", values=["mean", "bitrate_kbps"]
    )
    means, rates = cells["mean"], cells["bitrate_kbps"].to_numpy(dtype=float)
    if ax is None:
        _, (ax,) = new_panels(1, width_of(means.shape[1]), max(4.0, height_of(len(means))), 1)
    palette = "cividis" if find(metric).higher_is_better else "cividis_r"
    finite = np.ma.masked_invalid(means.to_numpy(dtype=float))
    image = ax.imshow(finite, cmap=palette, aspect="auto", origin="lower")
    ax.grid(visible=False)
    ax.set_xlabel("codebooks K")
    ax.set_ylabel("codebook size V")
    if finite.count():  # the label of the colour bar names the metric
        ax.get_figure(root=True).colorbar(image, ax=ax, label=metric_label(metric))  # type: ignore[union-attr]  # axes have a figure
    label_cells(ax, list(means.columns), list(means.index))
    written = annotate_cells(ax, image, means.to_numpy(dtype=float), rates)
    annotate_rates(ax, draw_equal_rates(ax, rates))
    key = "k: kbit/s, dashed: equal bitrate" if written else "dashed: equal bitrate"
    if not written and finite.count() < finite.size:
        key += ", white: no finite mean"
    if not finite.count():
        key = f"{metric_label(metric)}: no mean is finite"
    set_title(ax, f"{_describe(summary)}\n{key}", pad=9)  # above the rates at the edge
    return ax


def _swept(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Find the labels with several codebook counts and sizes, and their rows."""
    for label, part in rows.groupby("label", sort=False):
        if part["num_codebooks"].nunique() > 1 and part["codebook_size"].nunique() > 1:
            yield str(label), part


def _places(rows: pd.DataFrame) -> list[tuple[float, str]]:
    """Return the pairs of a frame rate and settings, in order."""
    pairs = rows[["frame_rate", "settings"]].drop_duplicates()
    return sorted(pairs.itertuples(index=False, name=None))


def _draw_grid(
    rows: pd.DataFrame,
    metrics: Sequence[str],
    label: str,
    plot: Callable[..., Axes],
    size: tuple[float, float],
) -> tuple[Figure, list[Axes]]:
    """Draw one line of panels per metric and one column per frame rate and settings."""
    places = _places(rows)
    columns = min(len(places), _MOST_COLUMNS)
    lines = -(-len(places) // columns)  # for one metric
    figure, panels = new_panels(columns * lines * len(metrics), *size, columns)
    for i, metric in enumerate(metrics):
        own = panels[i * columns * lines : (i + 1) * columns * lines]
        scored = set(_places(rows[rows[metric].notna()]))
        for ax, place in zip_longest(own, places):
            if place in scored:
                plot(rows, metric, label, place[0], settings=place[1], ax=ax)
            else:
                ax.set_axis_off()
    return figure, panels


def draw_grids(rows: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Figure]:
    """Draw the grids of each label with several codebook counts and vocabulary sizes.

    Args:
        rows: those of `results.csv` that did not fail, with a label each.
        metrics: the columns to draw; each has a value in some row.

    Returns:
        `codebooks_LABEL` and `vocabulary_LABEL` for each such label, with one line of panels per
        metric and one column per frame rate and settings; more than four are broken into lines.
    """
    figures = {}
    for label, part in _swept(rows):
        figure, panels = _draw_grid(part, metrics, label, plot_codebooks, (4.0, 2.9))
        legend(figure, panels, "bands: 95 % intervals of the mean over clips")
        figures[f"codebooks_{label}"] = figure
        size = width_of(part["num_codebooks"].nunique()), height_of(part["codebook_size"].nunique())
        figures[f"vocabulary_{label}"], _ = _draw_grid(part, metrics, label, plot_vocabulary, size)
    return figures
