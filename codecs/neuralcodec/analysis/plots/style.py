"""The look of all figures: colours, markers, literal text, panels, the legend and files.

Colours are those of Okabe and Ito (2008), which colour-blind people can tell apart. Markers repeat
what colours say, for print; line styles and shifted markers tell further curves apart.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from neuralcodec.metrics.registry import find

_COLOURS = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000 #7F7F7F".split()
_MARKERS = "osD^vPX*"
_LINES = ("-", "--", ":", "-.")
_STYLE: dict[Any, Any] = {  # matplotlib types its keys one by one
    "figure.constrained_layout.use": True,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#DDDDDD",
    "font.size": 10,
    "text.usetex": False,  # labels are arbitrary text, not TeX
    "svg.hashsalt": "neuralcodec",  # the same rows give the same file
    "svg.fonttype": "none",
}
_LITERAL_UNDERSCORE = "\u200b_"  # a space of no width, then the underscore
_LONGEST_ENTRY = 60  # characters of one line of a legend
_PAD = 0.1  # inches around a legend
_FEW_ENTRIES = 12  # of a legend; more are set in small type
_DPI = 130
_LARGEST_SIDE = 60_000  # pixels; the Agg renderer allows 2^16
_LONGEST_STEM = 120  # bytes; file systems allow 255
_UNSAFE = frozenset('/\\:*?"<>|%$#&{}')


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style inside this context."""
    with mpl.rc_context(_STYLE):
        yield


def look(position: int) -> dict[str, Any]:
    """Return colour, marker and line style of the curve at `position`, 0 or more.

    256 positions differ from each other.
    """
    lap, place = divmod(position, len(_COLOURS))
    return {
        "color": _COLOURS[place],
        "marker": _MARKERS[(place + lap // len(_LINES)) % len(_MARKERS)],
        "linestyle": _LINES[lap % len(_LINES)],
    }


def plain(text: str) -> str:
    """Return `text` with each character that cannot be printed replaced by a space."""
    return "".join(character if character.isprintable() else " " for character in text)


def literal(text: str) -> str:
    r"""Return `text` in a form that matplotlib takes as the label of an artist and shows as it is.

    By matplotlib's rules, a pair of dollar signs encloses mathematics, and an artist whose label
    starts with an underscore has no entry in a legend.

    >>> literal("5 $ or 6 $")
    '5 \\$ or 6 \\$'
    """
    text = plain(text).replace("$", r"\$")
    return text.replace("_", _LITERAL_UNDERSCORE, 1) if text.startswith("_") else text


def _from_literal(label: str) -> str:
    return label.removeprefix(_LITERAL_UNDERSCORE[0]).replace(r"\$", "$")


def metric_label(metric: str) -> str:
    """Return the axis label of a metric: its name, unit and better direction."""
    facts = find(metric)
    return f"{facts.label} {'↑' if facts.higher_is_better else '↓'}"


def counted(summary: pd.DataFrame) -> str:
    """Return how many points have no finite mean, and how many clips a point has.

    The number of clips is one figure, or the smallest and the largest.
    """
    means = summary["mean"].to_numpy(dtype=float)
    infinite, mixed = int(np.isinf(means).sum()), int(np.isnan(means).sum())
    fewest, most = summary["n"].min(), summary["n"].max()
    parts = [
        *([f"{infinite} at infinity"] if infinite else []),
        *([f"{mixed} of both infinities"] if mixed else []),
        f"n = {most}" if fewest == most else f"n = {fewest}-{most}",
    ]
    return ", ".join(parts)


def new_axes() -> Axes:
    """Return the axes of a new figure of one panel."""
    return Figure(figsize=(6, 4), layout="constrained").subplots()


def new_panels(count: int, width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels, at most `columns` in a row; sizes are in inches."""
    columns = min(columns, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for spare in panels[count:]:
        spare.remove()
    return figure, panels[:count]


def room(ax: Axes) -> tuple[float, float]:
    """Return width and height of the axes in points, before a layout engine moves them."""
    box = ax.get_window_extent()
    scale = 72 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]  # axes have a figure
    return box.width * scale, box.height * scale


def set_title(ax: Axes, text: str, pad: float = 6) -> None:
    """Set the small title at the right, broken into lines that fit, `pad` points above the axes."""
    size = 9
    longest = max(20, int(room(ax)[0] / (0.56 * size)))
    lines = [textwrap.fill(plain(line), longest) for line in text.splitlines()]
    ax.set_title("\n".join(lines), fontsize=size, loc="right", pad=pad, parse_math=False)


def note(ax: Axes, text: str) -> None:
    """Write into axes without data why there is nothing to see."""
    ax.set_yticks([])
    ax.text(*(0.5, 0.5, text), transform=ax.transAxes, ha="center", va="center", color="#555555")


def draw_means(ax: Axes, line: pd.DataFrame, x: str, label: str, position: int) -> None:
    """Draw finite means over the column `x` as a line, and their intervals as a band."""
    line = line[np.isfinite(line["mean"])]
    own = look(position)
    ax.plot(line[x], line["mean"], label=literal(label), markersize=4, linewidth=1.5, **own)
    ax.fill_between(line[x], line["low"], line["high"], color=own["color"], alpha=0.18, linewidth=0)


def draw_infinite(ax: Axes, points: pd.DataFrame, x: str, position: int) -> None:
    """Draw infinite means as hollow marks at the upper or lower edge of the axes."""
    own = look(position) | {"linestyle": "", "markersize": 6, "markerfacecolor": "none"}
    for infinity, edge in ((np.inf, 1.0), (-np.inf, 0.0)):
        places = points.loc[points["mean"] == infinity, x]
        if len(places):
            transform = ax.get_xaxis_transform()  # x of the data, y from 0 to 1
            ax.plot(places, [edge] * len(places), transform=transform, clip_on=False, **own)


def _make_legend(figure: Figure, entries: Mapping[str, Any], ncols: int, **options: Any) -> Legend:
    texts = [textwrap.fill(_from_literal(label), _LONGEST_ENTRY) for label in entries]
    made = figure.legend(
        entries.values(), texts, loc="outside upper left", ncols=ncols, frameon=False, **options
    )
    for text, label in zip(made.get_texts(), entries, strict=True):
        text.set_parse_math(r"\$" not in label)
    return made


def legend(
    figure: Figure,
    panels: Iterable[Axes],
    title: str | None = None,
    *,
    ncols: int = 8,
    fontsize: float | None = None,
) -> None:
    """Put one legend above the panels, with an entry for each curve that any of them shows.

    It has as many columns as fit into the width of the figure. The figure becomes higher by the
    height of the legend, so that panels keep their size, and wider if one column does not fit.

    Args:
        figure: the figure of the panels; one without a layout engine gets the constrained one.
        panels: its axes.
        title: above the entries.
        ncols: the largest number of columns.
        fontsize: of the entries, in points; default: that of the style, 8 for more than 12 entries.
    """
    entries: dict[str, Any] = {}
    for ax in panels:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(str(label), handle)
    if not entries:
        return
    if figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")
    if fontsize is None and len(entries) > _FEW_ENTRIES:
        fontsize = 8
    options: dict[str, Any] = {
        "fontsize": fontsize,
        "title": title,
        "title_fontsize": None if fontsize is None else fontsize + 1,
        "alignment": "left",
        "handlelength": 3 if fontsize is None else 4,  # long enough to tell line styles apart
        "columnspacing": 1.5,
    }
    width, height = figure.get_size_inches()
    for most in range(min(ncols, len(entries)), 0, -1):
        lines = -(-len(entries) // most)
        made = _make_legend(figure, entries, -(-len(entries) // lines), **options)
        box = made.get_window_extent()
        needed = box.width / figure.dpi + 2 * _PAD
        if needed <= width or most == 1:
            break
        made.remove()
    figure.set_size_inches(max(width, needed), height + box.height / figure.dpi + _PAD)


def file_stems(names: Sequence[str]) -> dict[str, str]:
    """Return a file name without its ending for each of `names`.

    Characters that are special to file systems, shells or URLs become underscores, and long names
    are cut. Names that are the same after this, or differ in case alone, are numbered.

    >>> file_stems(["codebooks_a/b", "codebooks_a:b", "codebooks_50 Hz"])
    {'codebooks_a/b': 'codebooks_a_b', 'codebooks_a:b': 'codebooks_a_b_2', 'codebooks_50 Hz': 'codebooks_50 Hz'}
    """  # noqa: E501  (one line of output)
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        safe = "".join("_" if character in _UNSAFE else character for character in plain(name))
        safe = safe.encode()[:_LONGEST_STEM].decode(errors="ignore").strip(". ")
        stem, number = safe, 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{safe}_{number}"
        taken.add(stem.casefold())
        stems[name] = stem
    return stems


def save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each figure as a PNG and an SVG file into a folder, which is made if need be.

    Args:
        figures: by name; `file_stems` makes the file names.
        folder: where.

    Returns:
        The files written.

    Raises:
        OSError: if a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stems = file_stems(list(figures))
    paths = []
    for name, figure in figures.items():
        dpi = min(_DPI, _LARGEST_SIDE / max(figure.get_size_inches()))
        for ending, metadata in ((".png", {}), (".svg", {"Date": None})):
            paths.append(folder / f"{stems[name]}{ending}")
            figure.savefig(paths[-1], dpi=dpi, metadata=metadata)
            figure.set_layout_engine("none")  # laid out once, which takes a second
    return paths
