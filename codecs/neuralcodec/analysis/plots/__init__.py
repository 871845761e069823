"""Figures of a sweep, from its rows alone.

Every `plot_...` function draws into the axes given, or into new ones, and returns them; nothing is
shown. Curves bear the label of a sweep's table, or the name of the codec where there is none.
"""

from neuralcodec.analysis.plots.figures import draw_all, save_all
from neuralcodec.analysis.plots.grid import plot_codebooks, plot_vocabulary
from neuralcodec.analysis.plots.quality import plot_quality
from neuralcodec.analysis.plots.style import legend, literal, look, save, style
from neuralcodec.analysis.rows import read_rows

__all__ = [
    "draw_all",
    "legend",
    "literal",
    "look",
    "plot_codebooks",
    "plot_quality",
    "plot_vocabulary",
    "read_rows",
    "save",
    "save_all",
    "style",
]
