"""Figures of awkward rows: many codecs, strange labels, infinite values, dense grids."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from neuralcodec.analysis import plots
from neuralcodec.analysis.plots.style import file_stems, look

STRANGE = [
    "NA", "null", "nan", "_x", "__", "a/b", "a\\b", "A/B", "..", "$", "$x$", "$\\frac{x$ $", "\\$",
    "50 %", "{x}", "<&>", "tab\there", "x" * 300, "ünï-編",
]  # fmt: skip


def rows_of(
    codecs: Sequence[str] = ("mel",),
    depths: Iterable[int] = (1, 2, 4),
    sizes: Iterable[int] = (16, 64),
    clips: int = 1,
    frame_rate: float = 50.0,
) -> pd.DataFrame:
    """Rows of a grid for each codec, whose label is its name."""
    made = []
    for (place, codec), size, depth, clip in itertools.product(
        enumerate(codecs), sizes, depths, range(clips)
    ):
        kbps = frame_rate * depth * math.log2(size) / 1000
        made.append(
            {
                "codec": codec,
                "num_codebooks": depth,
                "codebook_size": size,
                "frame_rate": frame_rate,
                "tokens_per_second": frame_rate * depth,
                "bitrate_kbps": kbps,
                "clip": clip,
                "status": "ok",
                "settings": "{}",
                "point": f"{place}-{size}-{depth}-{frame_rate}",
                "label": codec,
                "stoi": kbps / 20 + place / 100,
                "si_sdr": -120 - kbps - place - clip,
            }
        )
    return pd.DataFrame(made)


def render(ax: Axes) -> None:
    """Lay out and draw the figure of some axes; `canvas.draw` of a bare figure does nothing."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def curves(ax: Axes) -> dict[str, Any]:
    return {str(label): line for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}


def overlapping(texts: Iterable[Text]) -> list[tuple[str, str]]:
    """Pairs of texts that share more than a hair of the page."""
    boxes: list[tuple[str, Bbox]] = []
    for text in texts:
        if text.get_visible() and text.get_text():
            boxes.append((text.get_text(), text.get_window_extent().padded(-0.5)))
    return [
        (name, other)
        for (name, box), (other, second) in itertools.combinations(boxes, 2)
        if box.overlaps(second)
    ]


# The legend


@pytest.mark.parametrize(
    ("codecs", "metrics"),
    [
        ([f"codec_{n}" for n in range(7)], ["stoi"]),
        ([f"codec_{n}" for n in range(30)], ["stoi"]),
        ([f"codec {n}, beam 16" for n in range(25)], ["stoi", "si_sdr"]),
        ([f"{n} " + "word " * 30 for n in range(3)], ["stoi"]),
        ([str(n) + "W" * 80 for n in range(3)], ["stoi"]),
    ],
)
def test_legend_is_on_the_page_and_covers_no_panel(codecs: list[str], metrics: list[str]) -> None:
    rows = rows_of(codecs, sizes=(16,))
    with plots.style():
        figure = plots.draw_all(rows, metrics)["quality_bitrate"]
        figure.draw_without_rendering()
        alone = plots.draw_all(rows_of(codecs[:1], sizes=(16,)), metrics)["quality_bitrate"]
        alone.draw_without_rendering()
    (legend,) = figure.legends
    box, page = legend.get_window_extent(), figure.bbox
    assert len(legend.get_texts()) == len(codecs)
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert page.y0 <= box.y0 < box.y1 <= page.y1
    for ax, one in zip(figure.axes, alone.axes, strict=True):
        assert not box.overlaps(ax.get_tightbbox() or Bbox.null())
        for side in ("width", "height"):  # panels keep their size
            assert getattr(ax.bbox, side) > 0.95 * getattr(one.bbox, side)
    assert not overlapping(legend.get_texts())


def test_256_curves_look_different() -> None:
    assert len({tuple(look(position).items()) for position in range(256)}) == 256


def test_legend_shows_the_colours_of_every_panel() -> None:
    """A vocabulary size that one frame rate lacks must not shift the colours of the others."""
    rows = pd.concat([rows_of(sizes=(16, 64)), rows_of(sizes=(64, 256), frame_rate=25.0)])
    figure = plots.draw_all(rows, ["stoi"])["codebooks_mel"]
    looks: dict[str, set[str]] = {}
    for ax in figure.axes:
        for label, line in curves(ax).items():
            looks.setdefault(label, set()).add(line.get_color())
    assert looks.keys() == {"V = 16", "V = 64", "V = 256"}
    assert all(len(colours) == 1 for colours in looks.values())
    assert len(set.union(*looks.values())) == 3


# Labels


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")  # the font has no Chinese
def test_strange_labels_keep_curve_and_legend(tmp_path: Path) -> None:
    rows = rows_of([f"codec{n}" for n in range(len(STRANGE))], depths=(1, 2), sizes=(16,))
    rows["label"] = rows["codec"].map(dict(zip(rows["codec"].unique(), STRANGE, strict=True)))
    rows.to_csv(tmp_path / "results.csv", index=False)
    plots.save_all(plots.read_rows(tmp_path / "results.csv"), ["stoi"], tmp_path / "plots")
    drawn = (tmp_path / "plots" / "quality_bitrate.svg").read_text(encoding="utf-8")
    assert "$\\frac{x$ $" in drawn
    assert "&lt;&amp;&gt;" in drawn
    figure = plots.draw_all(plots.read_rows(tmp_path / "results.csv"), ["stoi"])["quality_bitrate"]
    assert [text.replace("\n", "") for text in legend_of(figure)] == [
        label.replace("\t", " ") for label in STRANGE
    ]
    assert all(len(line.get_xdata()) == 2 for line in curves(figure.axes[0]).values())


def test_strange_labels_have_a_file_each(tmp_path: Path) -> None:
    figures = {f"codebooks_{label}": Figure(figsize=(1, 1)) for label in STRANGE}
    stems = file_stems(list(figures))
    assert len({stem.casefold() for stem in stems.values()}) == len(STRANGE)
    plots.save(figures, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        stem + ending for stem in stems.values() for ending in (".png", ".svg")
    }
    assert file_stems(["codebooks_50 Hz, stacked"]) == {
        "codebooks_50 Hz, stacked": "codebooks_50 Hz, stacked"
    }


@pytest.mark.parametrize("size", [(0.1, 1000), (1000, 0.1)])
def test_a_figure_of_any_size_is_saved(size: tuple[float, float], tmp_path: Path) -> None:
    paths = plots.save({"long": Figure(figsize=size)}, tmp_path)
    assert [path.name for path in paths] == ["long.png", "long.svg"]
    assert max(image.imread(paths[0]).shape) == 60_000  # pixels


@pytest.mark.parametrize("label", ["_x", "$\\frac{x$ $", "a\\$b", "50 % {x}"])
def test_label_is_literal_in_everything_that_shows_it(label: str) -> None:
    rows = rows_of().assign(label=label)
    ax = plots.plot_quality(rows, "stoi")
    own = ax.legend()  # of matplotlib, as a user would call it
    render(ax)
    (text,) = own.get_texts()
    shown, is_math = text._preprocess_math(text.get_text())  # type: ignore[attr-defined]  # no public way
    assert (shown.removeprefix("\u200b"), is_math) == (label, False)
    for panel in (
        plots.plot_codebooks(rows, "stoi", label, 50),
        plots.plot_vocabulary(rows, "stoi", label, 50),
    ):
        assert panel.get_title(loc="right").startswith(f"{label}, 50 Hz")
        render(panel)


def test_figures_are_drawn_by_label_from_python() -> None:
    rows = rows_of(["mel", "mdct"])
    rows["label"] = rows["codec"].map({"mel": "ours", "mdct": "theirs"})
    assert list(curves(plots.plot_quality(rows, "stoi"))) == ["ours", "theirs"]
    assert {"codebooks_ours", "vocabulary_theirs"} <= plots.draw_all(rows, ["stoi"]).keys()
    for name in ("ours", "mel"):  # the codec's own name is understood too
        title = plots.plot_codebooks(rows, "stoi", name, 50).get_title(loc="right")
        assert title == "ours, 50 Hz, n = 1"
    unlabelled = rows.drop(columns="label")
    assert list(curves(plots.plot_quality(unlabelled, "stoi"))) == ["mel", "mdct"]


def test_one_label_of_two_codecs_is_two_curves_and_of_one_codec_one() -> None:
    rows = rows_of(["mel", "mdct"]).assign(label="ours")
    assert list(curves(plots.plot_quality(rows, "stoi"))) == ["ours (mel)", "ours (mdct)"]
    assert "vocabulary_ours (mdct)" in plots.draw_all(rows, ["stoi"])
    two = pd.concat([rows_of(frame_rate=50.0), rows_of(frame_rate=25.0)]).assign(label="ours")
    assert list(curves(plots.plot_quality(two, "stoi"))) == ["ours"]


def test_points_that_would_hide_each_other_are_named() -> None:
    one = rows_of(depths=(1,), sizes=(16,))
    both = pd.concat([one, one.assign(point="other")])
    with pytest.raises(
        ValueError, match=r"50 Hz has 2 points with K = 1 and V = 16: 0-16-1.*other"
    ):
        plots.plot_vocabulary(both, "stoi", "mel", 50)


# Values


@pytest.mark.parametrize("sign", [1, -1])
def test_infinite_means_are_drawn_at_the_edge(sign: int) -> None:
    rows = rows_of(["mel", "mdct"], sizes=(16,))
    rows.loc[rows["codec"] == "mel", "si_sdr"] = sign * np.inf
    ax = plots.plot_quality(rows, "si_sdr")
    (marks,) = [line for line in ax.get_lines() if line.get_markerfacecolor() == "none"]
    assert list(np.asarray(marks.get_xdata())) == pytest.approx([0.2, 0.4, 0.8])
    assert set(np.asarray(marks.get_ydata())) == {1.0 if sign > 0 else 0.0}
    assert marks.get_color() == curves(ax)["mel"].get_color()
    assert ax.get_title(loc="right").startswith("3 at infinity")
    render(ax)
    assert ax.get_ylim()[1] < 0  # the scale is that of the finite means


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_metric_without_a_finite_mean_says_so(value: float) -> None:
    for figure in plots.draw_all(rows_of().assign(si_sdr=value), ["si_sdr"]).values():
        (ax,) = figure.axes
        render(ax)
        words = [text.get_text() for text in ax.texts] + [ax.get_title(loc="right")]
        assert any("no mean is finite" in text for text in words)
        assert any("SI-SDR [dB]" in text for text in [*words, ax.get_ylabel()])


def test_mean_of_both_infinities_is_counted_and_hides_no_other() -> None:
    rows = rows_of(sizes=(16,), clips=2)
    second = rows["num_codebooks"] == 2
    rows.loc[second, "si_sdr"] = [np.inf, -np.inf]
    rows["si_sdr"] = rows["si_sdr"].where(second, rows["bitrate_kbps"])
    ax = plots.plot_quality(rows, "si_sdr")
    assert ax.get_title(loc="right").startswith("1 of both infinities, n = 2 clips")
    assert list(curves(ax)["mel"].get_xdata()) == pytest.approx([0.2, 0.8])


def test_metrics_without_any_value_are_named() -> None:
    figures = plots.draw_all(rows_of().assign(visqol=np.nan), ["stoi", "visqol"])
    for name in ("quality_bitrate", "quality_tokens"):
        (legend,) = figures[name].legends
        assert "no value: visqol" in legend.get_title().get_text()


@pytest.mark.parametrize("rate", [0.0, math.nan, math.inf])
def test_points_without_a_rate_are_counted(rate: float) -> None:
    rows = rows_of(sizes=(16,))
    rows.loc[rows["num_codebooks"] == 2, "bitrate_kbps"] = rate
    ax = plots.plot_quality(rows, "stoi")
    assert ax.get_title(loc="right").startswith("1 without a positive rate, n = 1")
    assert list(curves(ax)["mel"].get_xdata()) == pytest.approx([0.2, 0.8])
    ax = plots.plot_quality(rows.assign(bitrate_kbps=rate), "stoi")
    render(ax)
    assert [text.get_text() for text in ax.texts] == ["no point has a positive rate"]
    for figure in plots.draw_all(rows_of().assign(bitrate_kbps=rate), ["stoi"]).values():
        figure.draw_without_rendering()


def test_rates_over_many_decades_have_ticks_apart() -> None:
    rows = rows_of(sizes=(16,), depths=(1, 2, 4, 8))
    ax = plots.plot_quality(rows.assign(bitrate_kbps=[0.05, 5, 900, 3e6]), "stoi")
    render(ax)
    assert not overlapping(ax.get_xticklabels())
    words = [text.get_text() for text in ax.get_xticklabels()]
    assert {"0.1", "1", "1k", "1M"} <= set(words)


# Grids


@pytest.mark.parametrize(
    ("depths", "sizes", "panels"),
    [
        (range(1, 47), (16, 64, 256, 1024), 1),
        (range(1, 47), (16, 64), 4),
        (range(1, 25), [2**bits for bits in range(1, 16)], 1),
        (range(1, 18), (4, 16, 64), 2),
        ((1, 2, 3, 4, 6, 8, 12, 16), (64, 256, 1024), 3),
        ((1, 100, 1000), [2**bits for bits in range(1, 30)], 1),
    ],
)
def test_texts_of_a_grid_do_not_overlap(
    depths: Sequence[int], sizes: Sequence[int], panels: int
) -> None:
    parts = [rows_of(["m"], depths, sizes, frame_rate=25.0 * (n + 1)) for n in range(panels)]
    with plots.style():
        figures = plots.draw_all(pd.concat(parts), ["si_sdr"])
        for name in ("vocabulary_m", "codebooks_m"):
            figure = figures[name]
            figure.draw_without_rendering()
            for ax in figure.axes:
                title = ax.title if ax.get_title() else ax._right_title  # type: ignore[attr-defined]  # no public way
                assert not overlapping([*ax.texts, title])
                assert not overlapping(ax.get_xticklabels())
                assert not overlapping(ax.get_yticklabels())
                if ax.get_label() != "<colorbar>":
                    assert len([text for text in ax.get_xticklabels() if text.get_text()]) > 1


@pytest.mark.parametrize("size", [(3, 2), (6, 4), (12, 8)])
@pytest.mark.parametrize("count", [3, 12, 46])
def test_texts_fit_into_axes_of_any_size(size: tuple[float, float], count: int) -> None:
    figure = Figure(figsize=size, layout="constrained")
    ax = plots.plot_vocabulary(
        rows_of(depths=range(1, count + 1), sizes=(4, 16, 64, 256)), "si_sdr", "mel", 50,
        ax=figure.subplots(),
    )  # fmt: skip
    figure.draw_without_rendering()
    assert not overlapping([*ax.texts, *ax.get_xticklabels()])
    if count == 3 and size[0] > 3:
        assert len([text for text in ax.texts if "\n" in text.get_text()]) == 12
    if count == 46:
        assert "\n" not in "".join(text.get_text() for text in ax.texts)


@pytest.mark.parametrize(
    ("depths", "ticks"),
    [
        (range(1, 47), "1 2 4 8 16 32 46"),
        ([3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33], "3 6 33"),  # no power of two
        (range(40, 52), None),
    ],
)
def test_codebook_counts_are_ticked(depths: Sequence[int], ticks: str | None) -> None:
    ax = plots.plot_codebooks(rows_of(depths=depths), "stoi", "mel", 50)
    words = [text.get_text() for text in ax.get_xticklabels()]
    assert 3 <= len(words) <= 10
    assert {int(word) for word in words} <= set(depths)
    assert str(max(depths)) in words
    if ticks is not None:
        assert set(ticks.split()) <= set(words)


def test_more_than_four_settings_are_broken_into_lines() -> None:
    whole = rows_of()
    parts = [
        whole.assign(settings=f'{{"x": {n}}}', point=whole["point"] + f"x{n}") for n in range(6)
    ]
    figures = plots.draw_all(pd.concat(parts), ["stoi", "si_sdr"])
    for name in ("codebooks_mel", "vocabulary_mel"):
        panels = [ax for ax in figures[name].axes if ax.get_title(loc="right")]
        titles = [ax.get_title(loc="right").splitlines()[0] for ax in panels]
        assert titles == [f"mel, 50 Hz, x {n}, n = 1" for n in (0, 1, 2, 3, 4, 5)] * 2
        assert figures[name].get_size_inches()[0] <= 4 * 6
    with pytest.raises(
        ValueError, match=r"differ in their settings: .*; choose one with settings="
    ):
        plots.plot_codebooks(pd.concat(parts), "stoi", "mel", 50)


# The command line


def test_plot_by_the_command_line(cli: Callable[..., Any], tmp_path: Path) -> None:
    rows = rows_of(["opus", "mp3"], sizes=(16,)).assign(visqol=np.nan)
    rows["label"] = rows["codec"].map({"opus": "NA", "mp3": "_x"})
    rows.to_csv(tmp_path / "results.csv", index=False)
    said = cli("plot", tmp_path)
    assert said.err == ""
    assert said.out.splitlines() == [
        "not drawn, because no row has a value: visqol",
        f"4 plots: {tmp_path / 'plots'}",
    ]
    figure = (tmp_path / "plots" / "quality_bitrate.svg").read_text(encoding="utf-8")
    assert ">NA<" in figure
    assert ">_x<" in figure
