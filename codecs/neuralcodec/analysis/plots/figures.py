"""Every figure that the rows of a sweep can fill, and their files."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from neuralcodec.analysis.plots.grid import draw_grids
from neuralcodec.analysis.plots.quality import draw_quality
from neuralcodec.analysis.plots.style import save, style
from neuralcodec.analysis.rows import curve_names

_NEEDED = (
    "codec num_codebooks codebook_size frame_rate tokens_per_second bitrate_kbps status settings "
    "point"
).split()


def draw_all(rows: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Figure]:
    """Draw every figure that the rows can fill.

    Args:
        rows: those of `results.csv`, from `analysis.rows.read_rows`.
        metrics: the columns to draw, in order. One without a value in any row has no panel; the
            figures of quality name it.

    Returns:
        Figures by name: `quality_bitrate` and `quality_tokens` with one panel per metric, and for
        each label whose codebooks were swept `codebooks_LABEL` and `vocabulary_LABEL`, with one
        line of panels per metric and one column per frame rate and settings.

    Raises:
        ValueError: if the rows lack a column, no row has a score, or two points of one label have
            the same axes and settings.
    """
    lacking = [column for column in [*_NEEDED, *metrics] if column not in rows]
    if lacking:
        raise ValueError(f"these are no rows of a sweep: they lack {', '.join(lacking)}")
    rows = rows.assign(label=curve_names(rows))
    rows = rows[rows["status"] == "ok"]
    filled = [metric for metric in metrics if rows[metric].notna().any()]
    if not filled:
        raise ValueError("no row has a score, so there is nothing to draw")
    missing = [metric for metric in metrics if metric not in filled]
    figures = {
        "quality_bitrate": draw_quality(rows, filled, "bitrate_kbps", missing),
        "quality_tokens": draw_quality(rows, filled, "tokens_per_second", missing),
    }
    return figures | draw_grids(rows, filled)


def save_all(rows: pd.DataFrame, metrics: Sequence[str], folder: Path) -> list[Path]:
    """Draw every figure that the rows can fill, into PNG and SVG files.

    Args:
        rows: those of `results.csv`.
        metrics: the columns to draw.
        folder: made if it does not exist.

    Returns:
        The files written.

    Raises:
        ValueError: as `draw_all`.
        OSError: if a file cannot be written.
    """
    with style():
        return save(draw_all(rows, metrics), folder)
