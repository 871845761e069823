"""Reading the rows of a sweep, and the names under which they are drawn."""

import math
from pathlib import Path

import pandas as pd
import pytest

from neuralcodec.analysis.rows import curve_names, metric_columns, read_rows

HEADER = "codec,num_codebooks,bitrate_kbps,clip,stoi,status,reason,settings,point,label"
WORDS = ["NA", "null", "nan", "NaN", "None", "n/a", "", "007", "1e5", "inf", "True", "_x", " a "]


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


def test_text_is_read_as_it_is_written(tmp_path: Path) -> None:
    lines = [f"{word},1,0.5,{word},0.5,ok,{word},{{}},{word},{word}" for word in WORDS]
    rows = read_rows(written(tmp_path / "results.csv", *lines))
    for column in ("codec", "clip", "reason", "point", "label"):
        assert rows[column].tolist() == WORDS


def test_a_single_point_of_digits_is_text(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path / "results.csv", "pcm,1,0.5,a,0.5,ok,,{},1234e567,16"))
    assert (rows["point"][0], rows["label"][0]) == ("1234e567", "16")


def test_numbers_come_back(tmp_path: Path) -> None:
    values = [0.1 + 0.2, 1 / 3, 1e-310, math.inf, -math.inf, math.nan, 5.62341325190349]
    table = pd.DataFrame({"codec": "pcm", "stoi": values, "num_codebooks": range(7)})
    table.to_csv(tmp_path / "results.csv", index=False)
    rows = read_rows(tmp_path / "results.csv")
    assert rows["stoi"].tolist() == pytest.approx(values, rel=1e-14, nan_ok=True)
    assert rows["num_codebooks"].dtype == "int64"


def test_column_without_a_value_is_of_numbers(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path / "results.csv", "pcm,1,,a,,failed,why,{},p,pcm"))
    assert rows["stoi"].dtype == rows["bitrate_kbps"].dtype == "float64"
    assert rows["stoi"].isna().all()


def test_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = written(tmp_path / "results.csv", "pcm,1,0.5,a,0.5,ok,,{},p,pcm")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_rows(path).columns[0] == "codec"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with pytest.raises(FileNotFoundError, match=r"no results at .*run a sweep first"):
        read_rows(path)
    path.write_text("")
    with pytest.raises(ValueError, match=r"results\.csv is not a table of rows: No columns"):
        read_rows(path)
    path.write_bytes(b"codec,stoi\n\xff,1\n")
    with pytest.raises(ValueError, match=r"results\.csv is not a table of rows: .*utf-8"):
        read_rows(path)


@pytest.mark.parametrize("column", ["num_codebooks", "bitrate_kbps", "stoi"])
def test_text_in_a_column_of_numbers_is_named(tmp_path: Path, column: str) -> None:
    line = "pcm,1,0.5,a,0.5,ok,,{},p,pcm"
    cells = line.split(",")
    cells[HEADER.split(",").index(column)] = "good"
    path = written(tmp_path / "results.csv", line, ",".join(cells))
    with pytest.raises(ValueError, match=rf"column '{column}' must hold numbers, got 'good'"):
        read_rows(path)


def test_metrics_are_the_registered_columns_in_their_order() -> None:
    rows = pd.DataFrame(columns=["codec", "stoi", "my_own", "pesq_wb", "encode_rtf"])
    assert metric_columns(rows) == ["stoi", "pesq_wb"]


def names(*pairs: tuple[str, object]) -> list[str]:
    return curve_names(pd.DataFrame(pairs, columns=["codec", "label"])).tolist()


def test_rows_are_named_by_label_and_without_one_by_codec() -> None:
    assert names(("opus", "best"), ("mp3", "")) == ["best", "mp3"]
    assert names(("opus", math.nan), ("mp3", " ")) == ["opus", "mp3"]
    assert names(("opus", 16), ("mp3", 8)) == ["16", "8"]
    assert curve_names(pd.DataFrame({"codec": ["opus"]})).tolist() == ["opus"]
    with pytest.raises(ValueError, match="must have a column 'codec', got label"):
        curve_names(pd.DataFrame({"label": ["opus"]}))


def test_tables_of_one_codec_may_share_a_label() -> None:
    assert names(("mdct", "ours"), ("mdct", "ours")) == ["ours", "ours"]


def test_codecs_under_one_label_are_told_apart() -> None:
    pairs = ("mdct", "ours"), ("mel", "ours"), ("opus", "opus"), ("mp3", "opus")
    assert names(*pairs) == ["ours (mdct)", "ours (mel)", "opus (opus)", "opus (mp3)"]
    # A third codec has the very name that would tell two others apart.
    found = names(("mdct", "ours"), ("mel", "ours"), ("opus", "ours (mdct)"))
    assert len(set(found)) == 3


def test_names_stay_when_they_are_the_labels() -> None:
    rows = pd.DataFrame({"codec": ["a", "b", "c"], "label": ["x", "x", "y"]}, index=[0, 0, 0])
    once = rows.assign(label=curve_names(rows))
    assert curve_names(once).tolist() == once["label"].tolist() == ["x (a)", "x (b)", "y"]
