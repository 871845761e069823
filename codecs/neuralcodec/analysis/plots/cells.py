"""The text and lines on a map of cells `[V, K]`: as much of them as has room."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from neuralcodec.analysis.plots.style import room

_LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue (ITU-R BT.709)
_CASING = [patheffects.withStroke(linewidth=2.6, foreground="w")]  # seen on light and dark cells
_LAID_OUT = 0.85  # share of the axes' size that a layout engine leaves, at the least
_SIZES = (5.5, 7.5)  # smallest and largest font of a cell, in points
_DIGIT = 0.65  # width of a digit, in font sizes
_RATE_SIZE = 7.0  # font of the label of a line of equal bitrate, in points
_RATE_ROOM = 10.0  # its height with casing, in points
_WIDEST = 12.0  # inches of a panel

Place = tuple[float, int, float]
"""Column and row of the end of a line of equal bitrate, and the rate in kbit/s."""


def width_of(columns: int) -> float:
    """Return the width in inches of a panel whose `columns` cells have room for text, up to 12."""
    return min(max(6.0, 2.2 + 0.6 * columns), _WIDEST)


def height_of(lines: int) -> float:
    """Return the height in inches of a panel whose `lines` of cells have room for text."""
    return max(2.9, 1.2 + 0.55 * lines)


def _cell(ax: Axes) -> tuple[float, float]:
    """Return width and height of a cell in points, at the least."""
    width, height = room(ax)
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    return _LAID_OUT * width / abs(right - left), _LAID_OUT * height / abs(high - low)


def label_cells(ax: Axes, columns: Sequence[float], lines: Sequence[float]) -> None:
    """Label every column and line of cells, or every n-th where all have no room."""
    width, height = _cell(ax)
    names = [f"{value:g}" for value in columns]
    step = int(np.ceil((max(map(len, names)) * _DIGIT * 10 + 4) / width))
    ax.set_xticks(range(0, len(names), step), names[::step])
    step = int(np.ceil(13 / height))
    ax.set_yticks(range(0, len(lines), step), [f"{value:g}" for value in lines][::step])


def _font_size(ax: Axes, texts: Iterable[str]) -> float | None:
    """Return the size at which texts of two lines fit into cells; None if they would be too small.

    Between the texts of two lines of cells there is room for the label of a rate.
    """
    width, height = _cell(ax)
    longest = max(len(line) for text in texts for line in text.splitlines())
    fitting = min((width - 3) / (_DIGIT * longest), (height - _RATE_ROOM) / 2.6)
    return min(fitting, _SIZES[1]) if fitting >= _SIZES[0] else None


def annotate_cells(ax: Axes, image: AxesImage, means: np.ndarray, rates: np.ndarray) -> bool:
    """Write mean and bitrate into every cell, if they have room.

    Args:
        ax: with the image.
        image: of the means.
        means: `[V, K]`, NaN where there is no point.
        rates: `[V, K]`, kbit/s.

    Returns:
        Whether there was room.
    """
    texts = {}
    for (y, x), mean in np.ndenumerate(means):
        if np.isfinite(rates[y, x]):
            texts[y, x] = f"{mean:.2f}\n{rates[y, x]:.3g}k"
        elif not np.isnan(mean):
            texts[y, x] = f"{mean:.2f}"
    size = _font_size(ax, texts.values())
    if size is None:
        return False
    for (y, x), text in texts.items():
        mean = means[y, x]
        colour = image.to_rgba(mean) if np.isfinite(mean) else (1.0, 1.0, 1.0, 1.0)
        ax.text(
            *(x, y, text),
            ha="center",
            va="center",
            size=size,
            color="k" if np.dot(colour[:3], _LUMINANCE) > 0.45 else "w",
            bbox={"facecolor": colour, "linewidth": 0, "pad": 0.6},  # lines pass behind the text
        )
    return True


def draw_equal_rates(ax: Axes, rates: np.ndarray) -> list[Place]:
    """Draw lines of equal bitrate, at powers of two kbit/s; return their upper ends.

    Args:
        ax: of the map.
        rates: `[V, K]`, kbit/s, NaN where there is no point.
    """
    positive = rates[np.isfinite(rates) & (rates > 0)]
    if not len(positive):
        return []
    ends = []
    low, high = np.log2(positive.min()), np.log2(positive.max())
    for level in 2.0 ** np.arange(np.ceil(low), np.floor(high) + 1):
        places = []
        for y, row in enumerate(rates):
            (known,) = np.nonzero(np.isfinite(row))
            if len(known) and row[known[0]] <= level <= row[known[-1]]:  # the rate rises with K
                places.append((float(np.interp(level, row[known], known)), y))
        if len(places) > 1:
            ax.plot(*zip(*places, strict=True), color="k", lw=1, ls="--", path_effects=_CASING)
            ends.append((*places[-1], float(level)))
    return ends


def annotate_rates(ax: Axes, ends: Iterable[Place]) -> None:
    """Write the bitrate above the end of each line, where it covers no other."""
    width, _ = _cell(ax)
    taken: list[tuple[float, float, int]] = []  # left, right, line of cells
    for x, y, level in ends:
        text = f"{level:g}k"
        half = (0.75 * _RATE_SIZE * len(text) + 4) / width / 2
        if any(y == line and x - half < right and left < x + half for left, right, line in taken):
            continue
        taken.append((x - half, x + half, y))
        ax.annotate(
            text,
            (x, y + 0.5),  # between two lines of cells
            ha="center",
            va="center",
            fontsize=_RATE_SIZE,
            fontweight="bold",
            path_effects=_CASING,
        )
