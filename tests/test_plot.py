"""Figures from rows alone."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from neuralcodec import plot


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
        "import neuralcodec.plot, sys;"
        "print(*({'matplotlib.pyplot', 'neuralcodec.wrappers.classical', 'dac'} & {*sys.modules}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []
