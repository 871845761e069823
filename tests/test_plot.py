"""Figures from rows alone."""

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from neuralcodec.analysis import plots as plot


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """A grid of two swept codecs, a codec of one point a rate, undefined and failed rows."""
    made = []
    grid = itertools.product(("mel", "mdct"), (25.0, 50.0), (16, 64), (1, 2, 4), range(4))
    for codec, rate, size, depth, clip in grid:
        kbps = rate * depth * math.log2(size) / 1000
        made.append(
            (codec, rate, size, depth, kbps, rate * depth, clip, f'{{"frame_rate": {rate}}}')
        )
    for kbps, clip in itertools.product((6.0, 12.0), range(4)):
        settings = f'{{"bitrate_kbps": {kbps}}}'
        made.append(("opus", 125 * kbps, 256, 1, kbps, 125 * kbps, clip, settings))
    names = (
        "codec frame_rate codebook_size num_codebooks bitrate_kbps tokens_per_second clip settings"
    )
    frame = pd.DataFrame(made, columns=names.split())
    frame["status"] = "ok"
    frame["point"] = frame[["codec", "frame_rate", "codebook_size", "num_codebooks"]].apply(
        lambda row: "-".join(map(str, row)), axis=1
    )
    frame["si_sdr"] = frame["bitrate_kbps"] * 2 + frame["clip"]
    frame["stoi"] = (frame["bitrate_kbps"] / 20).where(frame["clip"] == 0)
    frame["visqol"] = math.nan
    return frame


def render(ax: Axes) -> None:
    """Lay out and draw the figure of some axes; `canvas.draw` of a bare figure does nothing."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()


def _words(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_every_figure_is_drawn_with_units(rows: pd.DataFrame, tmp_path: Path) -> None:
    paths = plot.save_all(rows, ["si_sdr", "stoi", "visqol"], tmp_path / "new")
    names = "quality_bitrate quality_tokens codebooks_mel vocabulary_mel codebooks_mdct".split()
    assert {path.stem for path in paths} == {*names, "vocabulary_mdct"}
    assert all(path.stat().st_size > 5000 for path in paths)
    quality = _words(tmp_path / "new" / "quality_bitrate.svg")
    assert "bitrate [kbit/s]" in quality
    assert "SI-SDR [dB]" in quality
    assert "n = 4 clips" in quality
    assert "n = 1 clips" in quality  # STOI has one clip with a value
    assert "ViSQOL" not in quality  # no value at all, so no panel
    assert all(codec in quality for codec in ("mel", "mdct", "opus"))
    tokens = _words(tmp_path / "new" / "quality_tokens.svg")
    assert "tokens per second" in tokens


def test_same_rows_give_the_same_bytes(rows: pd.DataFrame, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        plot.save_all(rows, ["si_sdr"], tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_lines_have_the_points_of_the_rows(rows: pd.DataFrame) -> None:
    ax = plot.plot_quality(rows, "si_sdr")
    lines = {str(line.get_label()): line for line in ax.get_lines()}
    assert lines["opus"].get_xydata().tolist() == [[6.0, 13.5], [12.0, 25.5]]  # type: ignore[union-attr]  # it has data
    assert ax.get_xscale() == "log"
    ax = plot.plot_codebooks(rows, "si_sdr", "mel", 50)
    assert [str(line.get_label()) for line in ax.get_lines()] == ["V = 16", "V = 64"]


def test_heat_map_has_a_cell_for_each_v_and_k(rows: pd.DataFrame) -> None:
    ax = plot.plot_vocabulary(rows, "si_sdr", "mdct", 25)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "4"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["16", "64"]
    cells = [text.get_text() for text in ax.texts if "\n" in text.get_text()]
    assert len(cells) == 6
    assert "1.90\n0.2k" in cells  # 25 Hz x 2 codebooks x 4 bits; 2 * 0.2 dB + mean of 0..3


def test_failed_rows_are_not_drawn(rows: pd.DataFrame) -> None:
    failed = rows.assign(status=rows["status"].where(rows["codec"] != "opus", "failed"))
    figures = plot.draw_all(failed, ["si_sdr"])
    labels = {
        str(line.get_label()) for ax in figures["quality_bitrate"].axes for line in ax.get_lines()
    }
    assert "opus" not in labels
    assert {"mel", "mdct"} <= labels


def test_bad_arguments(rows: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="rate must be one of bitrate_kbps"):
        plot.plot_quality(rows, "si_sdr", rate="kbps")
    with pytest.raises(ValueError, match="unknown metric 'si_srd'; did you mean 'si_sdr'"):
        plot.plot_quality(rows, "si_srd")
    with pytest.raises(ValueError, match="no row has a value of 'visqol'"):
        plot.plot_quality(rows, "visqol")
    with pytest.raises(ValueError, match="no row of codec 'mel' at 75 Hz"):
        plot.plot_vocabulary(rows, "si_sdr", "mel", 75)
    with pytest.raises(ValueError, match="no row has a score"):
        plot.draw_all(rows, ["visqol"])
    with pytest.raises(ValueError, match="they lack"):
        plot.draw_all(rows.drop(columns="point"), ["si_sdr"])


def test_drawing_needs_no_display_and_no_codec() -> None:
    code = (
        "import neuralcodec.analysis.plots, sys;"
        "print(*({'matplotlib.pyplot', 'neuralcodec.core.codec', 'dac'} & {*sys.modules}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []


# What went wrong once


def lines_of(ax: Axes) -> dict[str, Any]:
    """The lines of some axes that have a name."""
    return {str(label): line for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}


def cells_of(ax: Axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in ax.texts if "\n" in text.get_text()}


def test_line_joins_the_points_that_beat_all_cheaper_ones(rows: pd.DataFrame) -> None:
    rows = rows.assign(log_mel_distance=10 - rows["si_sdr"])
    for metric, sign in (("si_sdr", 1), ("log_mel_distance", -1)):
        line = lines_of(plot.plot_quality(rows, metric))["mdct"]
        assert len(line.get_xdata()) > 3
        assert (np.diff(line.get_xdata()) > 0).all()
        assert (sign * np.diff(line.get_ydata()) > 0).all()


def test_legend_holds_codecs_that_the_first_panel_lacks(rows: pd.DataFrame) -> None:
    stoi = rows["stoi"].where(rows["codec"] != "mel")
    figure = plot.draw_all(rows.assign(stoi=stoi), ["stoi", "si_sdr"])["quality_bitrate"]
    assert "mel" not in lines_of(figure.axes[0])
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"mel", "mdct", "opus"}
    first, second = map(lines_of, figure.axes)  # the same look in both
    for codec in ("mdct", "opus"):
        assert first[codec].get_color() == second[codec].get_color()
        assert first[codec].get_marker() == second[codec].get_marker()


def test_many_codecs_look_different(rows: pd.DataFrame) -> None:
    opus = rows[rows["codec"] == "opus"]
    many = [opus.assign(codec=f"c{n}", point=opus["point"] + f"-{n}") for n in range(20)]
    lines = lines_of(plot.plot_quality(pd.concat(many), "si_sdr")).values()
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == 20


def test_infinite_means_are_told(rows: pd.DataFrame) -> None:
    perfect = rows["si_sdr"].where((rows["codec"] != "opus") | (rows["bitrate_kbps"] < 12), np.inf)
    ax = plot.plot_quality(rows.assign(si_sdr=perfect), "si_sdr")
    assert ax.get_title(loc="right").startswith("1 at infinity, n = 4 clips")
    assert np.isfinite(ax.get_ylim()).all()


@pytest.mark.parametrize("draw", [plot.plot_codebooks, plot.plot_vocabulary])
def test_settings_are_not_mixed(rows: pd.DataFrame, draw: Callable[..., Axes]) -> None:
    other = rows.assign(settings='{"frame_rate": 50, "num_mels": 40}', point=rows["point"] + "x")
    both = pd.concat([rows, other])
    with pytest.raises(ValueError, match="'mel' at 50 Hz differ in their settings: "):
        draw(both, "si_sdr", "mel", 50)
    titles = [
        ax.get_title(loc="right") for ax in plot.draw_all(both, ["si_sdr"])["codebooks_mel"].axes
    ]
    assert titles == [
        "mel, 25 Hz, n = 4",
        "mel, 25 Hz, num_mels 40, n = 4",
        "mel, 50 Hz, num_mels 40, n = 4",
        "mel, 50 Hz, n = 4",
    ]


def test_panel_without_a_score_stays_empty(rows: pd.DataFrame) -> None:
    none = (rows["codec"] == "mel") & (rows["frame_rate"] == 25)
    scored = rows.assign(stoi=rows["stoi"].mask(none))
    figures = plot.draw_all(scored, ["stoi", "si_sdr"])
    assert [ax.axison for ax in figures["codebooks_mel"].axes] == [False, True, True, True]


def test_frame_rate_that_failed_altogether(rows: pd.DataFrame) -> None:
    failed = rows[rows["frame_rate"] == 25].assign(status="failed", frame_rate=33.0)
    failed[["si_sdr", "bitrate_kbps", "tokens_per_second"]] = math.nan
    figures = plot.draw_all(pd.concat([rows, failed]), ["si_sdr"])
    assert len(figures["codebooks_mel"].axes) == 2


def test_many_codebooks_are_ticked_at_octaves(rows: pd.DataFrame) -> None:
    part = rows[rows["point"] == "mel-50.0-16-1"]
    many = [part.assign(num_codebooks=k, point=f"k{k}") for k in range(1, 33)]
    ax = plot.plot_codebooks(pd.concat(many), "si_sdr", "mel", 50)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "2", "4", "8", "16", "32"]


def test_lines_of_equal_bitrate_are_where_the_bitrate_is_equal(rows: pd.DataFrame) -> None:
    ax = plot.plot_vocabulary(rows, "si_sdr", "mdct", 50)
    # At 50 Hz V = 16 costs 0.2 K kbit/s and V = 64 costs 0.3 K; both reach 0.5 kbit/s, and no other
    # power of two, between K = 1, 2 and 4, which are the columns 0, 1 and 2.
    (line,) = ax.lines
    assert np.asarray(line.get_xdata()) == pytest.approx([1 + 0.1 / 0.4, 0.2 / 0.3])
    assert "0.5k" in {text.get_text() for text in ax.texts}


def test_missing_and_infinite_cells(rows: pd.DataFrame) -> None:
    rows = rows[rows["point"] != "mdct-50.0-16-2"]
    ax = plot.plot_vocabulary(
        rows.assign(si_sdr=rows["si_sdr"].mask(rows["point"] == "mdct-50.0-64-4", np.inf)),
        *("si_sdr", "mdct", 50),
    )
    cells = cells_of(ax)
    assert (1, 0) not in cells
    assert cells[2, 1].startswith("inf")
    render(ax)


@pytest.mark.parametrize("axis", ["num_codebooks", "codebook_size"])
def test_one_row_or_column_of_cells(rows: pd.DataFrame, axis: str) -> None:
    part = rows[rows[axis] == rows[axis].min()]
    render(plot.plot_vocabulary(part, "si_sdr", "mdct", 50))


@pytest.mark.parametrize("metric", ["si_sdr", "log_mel_distance"])
def test_cells_can_be_read_and_better_ones_are_lighter(rows: pd.DataFrame, metric: str) -> None:
    ax = plot.plot_vocabulary(rows.assign(log_mel_distance=10 - rows["si_sdr"]), metric, "mdct", 50)
    luminance = (0.2126, 0.7152, 0.0722)
    for text in ax.texts:
        if (patch := text.get_bbox_patch()) is not None:
            ground = np.dot(patch.get_facecolor()[:3], luminance)
            assert abs(np.dot(to_rgba(text.get_color())[:3], luminance) - ground) > 0.4
    (image,) = ax.images
    means = np.asarray(image.get_array())
    worst, best = (sum(image.to_rgba(means[place])[:3]) for place in ((0, 0), (-1, -1)))
    assert worst < best
