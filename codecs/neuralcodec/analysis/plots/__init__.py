"""Figures of a sweep, from its rows alone: quality against rate, codebook count, vocabulary.

Every `plot_...` draws into the axes given, or new ones, and returns them; nothing is shown. Colours
are those of Okabe and Ito (2008), which colour-blind people can tell apart; markers repeat what
colours say, for print, and line styles tell apart what has the same of both.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import patheffects, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralcodec.analysis.stats import frontier, summarise
from neuralcodec.metrics import METRICS

_COLOURS = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000 #7F7F7F".split()
_MARKERS = "osD^vPX*"
_LINES = ("-", "--", ":", "-.")
_RATES = {"bitrate_kbps": "bitrate [kbit/s]", "tokens_per_second": "tokens per second"}
_NEEDED = (
    "codec num_codebooks codebook_size frame_rate tokens_per_second bitrate_kbps status settings "
    "point"
).split()
_MOST_TICKS = 10
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue (ITU-R BT.709)
_CASING = [patheffects.withStroke(linewidth=2.6, foreground="w")]  # seen on light and dark cells
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
        "linestyle": _LINES[position // len(_COLOURS) % len(_LINES)],
    }


def _draw_means(ax: Axes, line: pd.DataFrame, x: str, label: str, position: int) -> None:
    """Draw means over the column `x` as a line, and their intervals as a band."""
    look = _look(position)
    ax.plot(line[x], line["mean"], label=label, markersize=4, linewidth=1.5, **look)
    ax.fill_between(
        line[x], line["low"], line["high"], color=look["color"], alpha=0.18, linewidth=0
    )


def _plain_log(ax: Axes) -> None:
    """Label a logarithmic x axis with plain numbers, thousands as k."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(
        ticker.FuncFormatter(lambda x, _: f"{x:g}" if x < 1000 else f"{x / 1000:g}k")
    )
    ax.xaxis.set_minor_formatter(ticker.NullFormatter())


def _label(metric: str) -> str:
    arrow = "↑" if METRICS[metric].higher_is_better else "↓"
    return f"{METRICS[metric].label} {arrow}"


def _count(summary: pd.DataFrame) -> str:
    """Say how many clips the points have: one figure, or the fewest and the most."""
    fewest, most = summary["n"].min(), summary["n"].max()
    return f"n = {most}" if fewest == most else f"n = {fewest}-{most}"


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
    An infinite mean (a perfect SI-SDR) has no place; the title says how many there are.

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
        others = points[~points["point"].isin(line["point"])]
        look = _look(position) | {"linestyle": "", "markersize": 3, "markeredgewidth": 0}
        ax.plot(others[rate], others["mean"], alpha=0.35, **look)
        _draw_means(ax, line, rate, codec, position)
    _plain_log(ax)
    ax.set_xlabel(_RATES[rate])
    ax.set_ylabel(_label(metric))
    infinite = int(np.isinf(summary["mean"]).sum())
    beyond = f"{infinite} at infinity, " if infinite else ""
    ax.set_title(f"{beyond}{_count(summary)} clips a point, band 95 %", fontsize=9, loc="right")
    return ax


def _grid_of(rows: pd.DataFrame, metric: str, codec: str, frame_rate: float) -> pd.DataFrame:
    """Give the points of a codec at one frame rate and in one setting."""
    chosen = (rows["codec"] == codec) & (rows["frame_rate"] == frame_rate)
    summary = summarise(rows[chosen], metric)
    if summary.empty:
        raise ValueError(f"no row of codec {codec!r} at {frame_rate:g} Hz has {metric!r}")
    settings = summary["settings"].unique()
    if len(settings) > 1:
        raise ValueError(
            f"rows of codec {codec!r} at {frame_rate:g} Hz differ in their settings: "
            f"{', '.join(settings)}; give the rows of one"
        )
    return summary


def _title(ax: Axes, summary: pd.DataFrame) -> None:
    """Say which codec, frame rate and other settings a panel shows, and the number of clips."""
    first = summary.iloc[0]
    settings = json.loads(first["settings"])
    others = [f"{name} {value}" for name, value in settings.items() if name != "frame_rate"]
    parts = [first["codec"], f"{first['frame_rate']:g} Hz", *others, _count(summary)]
    ax.set_title(", ".join(parts), fontsize=9, loc="right")


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
        ValueError: if the metric is unknown, no row fits, or rows that do differ in their settings.
    """
    summary = _grid_of(rows, metric, codec, frame_rate)
    ax = _new_axes() if ax is None else ax
    for position, (size, line) in enumerate(summary.groupby("codebook_size")):
        line = line.sort_values("num_codebooks")
        _draw_means(ax, line, "num_codebooks", f"V = {size:g}", position)
    depths = sorted(summary["num_codebooks"].unique())
    if len(depths) > _MOST_TICKS:
        depths = [depth for depth in depths if np.log2(depth).is_integer()]
    ax.set_xscale("log", base=2)
    ax.set_xticks(depths, [f"{depth:g}" for depth in depths])
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.set_xlabel("codebooks K")
    ax.set_ylabel(_label(metric))
    _title(ax, summary)
    return ax


def _draw_equal_rates(ax: Axes, rates: np.ndarray) -> None:
    """Draw lines of equal bitrate, at powers of two kbit/s, over a map of cells `[V, K]`."""
    finite = rates[np.isfinite(rates)]
    powers = np.arange(np.ceil(np.log2(finite.min())), np.floor(np.log2(finite.max())) + 1)
    for level in 2.0**powers:
        places = []
        for y, row in enumerate(rates):
            (known,) = np.nonzero(np.isfinite(row))
            if len(known) and row[known[0]] <= level <= row[known[-1]]:  # the rate rises with K
                places.append((float(np.interp(level, row[known], known)), y))
        if len(places) < 2:
            continue
        ax.plot(*zip(*places, strict=True), color="k", lw=1, ls="--", path_effects=_CASING)
        ax.annotate(
            f"{level:g}k",
            places[-1],
            xytext=(0, 14),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            fontweight="bold",
            path_effects=_CASING,
        )


def plot_vocabulary(
    rows: pd.DataFrame, metric: str, codec: str, frame_rate: float, *, ax: Axes | None = None
) -> Axes:
    """Draw the heat map of vocabulary size and codebook count at one frame rate.

    Each cell gives the mean and, below it, the bitrate in kbit/s. Dashed lines join places of equal
    bitrate, so that along one the question is whether bits buy more as entries or as codebooks.

    Args:
        rows: of `results.csv`.
        metric: a metric column of it.
        codec: one whose codebook count and size were swept.
        frame_rate: Hz.
        ax: where to draw; new axes by default.

    Raises:
        ValueError: if the metric is unknown, no row fits, or rows that do differ in their settings.
    """
    summary = _grid_of(rows, metric, codec, frame_rate)
    ax = _new_axes() if ax is None else ax
    cells = summary.pivot(
        index="codebook_size", columns="num_codebooks", values=["mean", "bitrate_kbps"]
    )
    means, rates = cells["mean"], cells["bitrate_kbps"].to_numpy()
    palette = "cividis" if METRICS[metric].higher_is_better else "cividis_r"
    finite = means.where(np.isfinite(means))
    image = ax.imshow(finite, cmap=palette, aspect="auto", origin="lower")
    _draw_equal_rates(ax, rates)
    for (y, x), mean in np.ndenumerate(means.to_numpy()):
        if np.isnan(mean):
            continue
        colour = image.to_rgba(mean) if np.isfinite(mean) else (1.0, 1.0, 1.0, 1.0)
        ax.text(
            x,
            y,
            f"{mean:.2f}\n{rates[y, x]:.3g}k",
            ha="center",
            va="center",
            size=7.5,
            color="k" if np.dot(colour[:3], _LUMINANCE) > 0.45 else "w",
            bbox={"facecolor": colour, "linewidth": 0, "pad": 0.6},  # lines pass behind figures
        )
    ax.set_xticks(range(len(means.columns)), [f"{depth:g}" for depth in means.columns])
    ax.set_yticks(range(len(means.index)), [f"{size:g}" for size in means.index])
    ax.grid(visible=False)
    ax.set_xlabel("codebooks K")
    ax.set_ylabel("codebook size V")
    ax.set_title("k = kbit/s, dashed: equal", fontsize=8, loc="left")
    _title(ax, summary)
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


def legend(
    figure: Figure,
    panels: Sequence[Axes],
    title: str | None = None,
    *,
    ncols: int = 8,
    fontsize: float | None = None,
) -> None:
    """Put one legend above the panels, of what any of them shows; `fontsize` in points."""
    found: dict[str, Any] = {}
    for ax in panels:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        found.values(),
        found.keys(),
        loc="outside upper left",
        ncols=ncols,
        frameon=False,
        fontsize=fontsize,
        title=title,
        title_fontsize=None if fontsize is None else fontsize + 1,
        alignment="left",
    )


def _swept(rows: pd.DataFrame) -> Iterator[tuple[str, list[pd.DataFrame]]]:
    """Find the codecs with several codebook counts and sizes, and their rows by settings."""
    for codec, part in rows.groupby("codec", sort=False):
        if part["num_codebooks"].nunique() > 1 and part["codebook_size"].nunique() > 1:
            yield str(codec), [group for _, group in part.groupby(["frame_rate", "settings"])]


def draw_all(rows: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Figure]:
    """Draw every figure that the rows can fill.

    Args:
        rows: of `results.csv`.
        metrics: the columns to draw, in order; one with no value in any row is left out.

    Returns:
        Figures by name: `quality_bitrate` and `quality_tokens` with a panel a metric, and for each
        codec whose codebooks were swept `codebooks_CODEC` and `vocabulary_CODEC` with a row a
        metric and a column a frame rate.

    Raises:
        ValueError: if the rows lack a column, or none has a score.
    """
    missing = [column for column in [*_NEEDED, *metrics] if column not in rows]
    if missing:
        raise ValueError(f"these are no rows of a sweep: they lack {', '.join(missing)}")
    rows = rows[rows["status"] == "ok"]
    metrics = [metric for metric in metrics if rows[metric].notna().any()]
    if not metrics:
        raise ValueError("no row has a score, so there is nothing to draw")
    figures = {}
    for name, rate in (
        ("quality_bitrate", "bitrate_kbps"),
        ("quality_tokens", "tokens_per_second"),
    ):
        figures[name], panels = _panels(
            len(metrics), 5.2, 3.6, columns=2 if len(metrics) < 5 else 3
        )
        for metric, ax in zip(metrics, panels, strict=True):
            plot_quality(rows, metric, rate=rate, ax=ax)
        legend(figures[name], panels, "lines join the best points, pale marks are the others")
    for codec, parts in _swept(rows):
        cells = [(metric, part) for metric in metrics for part in parts]
        for name, plot, width in (
            ("codebooks", plot_codebooks, 4.0),
            ("vocabulary", plot_vocabulary, 6.0),
        ):
            figure, panels = _panels(len(cells), width, 2.9, columns=len(parts))
            for (metric, part), ax in zip(cells, panels, strict=True):
                if part[metric].notna().any():
                    plot(part, metric, codec, part["frame_rate"].iloc[0], ax=ax)
                else:
                    ax.set_axis_off()
            if plot is plot_codebooks:
                legend(figure, panels)
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

    Raises:
        ValueError: as `draw_all`.
        OSError: if a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with style():
        for name, figure in draw_all(rows, metrics).items():
            for ending, metadata in ((".png", {}), (".svg", {"Date": None})):
                paths.append(folder / f"{name}{ending}")
                figure.savefig(paths[-1], dpi=130, metadata=metadata)
                figure.set_layout_engine("none")  # laid out once, for it takes a second
    return paths
