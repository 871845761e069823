"""Rows of a sweep: reading `results.csv`, its metrics, and the names of its curves."""

from pathlib import Path

import pandas as pd

from neuralcodec.metrics.registry import find

_TEXTS = "codec label clip kind speaker status reason settings point".split()
_NUMBERS = (
    "num_codebooks codebook_size frame_rate tokens_per_second bitrate_kbps seconds encode_rtf "
    "decode_rtf"
).split()
_GAPS = ["", "NA", "NaN", "nan"]  # in a column of numbers; in one of text they are text


def metric_columns(rows: pd.DataFrame) -> list[str]:
    """Return the columns of `rows` that are registered metrics, in their order."""

    def known(column: str) -> bool:
        try:
            find(column)
        except ValueError:
            return False
        return True

    return [column for column in rows.columns if known(column)]


def _check_numbers(rows: pd.DataFrame, path: Path) -> None:
    """Raise ValueError if a column of numbers holds anything else."""
    for column in [*_NUMBERS, *metric_columns(rows)]:
        if column not in rows or pd.api.types.is_numeric_dtype(rows[column]):
            continue
        cells = rows[column].dropna()
        wrong = cells[pd.to_numeric(cells, errors="coerce").isna()]
        raise ValueError(f"{path}: column {column!r} must hold numbers, got {wrong.iloc[0]!r}")


def read_rows(path: str | Path) -> pd.DataFrame:
    """Read the `results.csv` of a sweep.

    Text columns are read as they are written, so a label or a codec may be called `NA`, `null` or
    `007`, and an absent label or reason is the empty string. An empty cell of any other column is
    NaN.

    Args:
        path: the file.

    Returns:
        One row per point and clip.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no CSV table, or a column of numbers holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}; run a sweep first")
    try:
        header = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns
        rows = pd.read_csv(
            path,
            encoding="utf-8-sig",  # a spreadsheet may have put a byte-order mark in front
            dtype={column: str for column in header if column in _TEXTS},
            keep_default_na=False,
            na_values={column: _GAPS for column in header if column not in _TEXTS},
            low_memory=False,  # the type of a column is decided once, not per block of lines
        )
    except ValueError as error:  # of pandas, and of bytes that are no UTF-8
        raise ValueError(f"{path} is not a table of rows: {error}") from error
    _check_numbers(rows, path)
    return rows


def curve_names(rows: pd.DataFrame) -> pd.Series:
    """Return the name under which each row is drawn.

    It is the row's label, or its codec where it has none. Several tables of one codec may share a
    label and are then one curve. Where different codecs share one, their rows are told apart:
    the names are `LABEL (CODEC)`.

    Args:
        rows: those of `read_rows`; the column `label` is optional.

    Raises:
        ValueError: if there is no column `codec`.
    """
    if "codec" not in rows:
        raise ValueError(
            f"rows must have a column 'codec', got {', '.join(map(str, rows.columns)) or 'none'}"
        )
    codecs = rows["codec"].astype(str)
    if "label" not in rows:
        return codecs.rename("label")
    given = rows["label"].astype(object).where(rows["label"].notna(), "").astype(str)
    labels = given.where(given.str.strip() != "", codecs)
    long_names = labels + " (" + codecs + ")"
    names = labels.mask(codecs.groupby(labels).transform("nunique") > 1, long_names)
    if (codecs.groupby(names).nunique() > 1).any():  # a long name is the label of another codec
        return long_names.rename("label")
    return names.rename("label")
