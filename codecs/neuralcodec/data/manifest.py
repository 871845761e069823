"""Manifests: CSV files that list the clips of a set with their metadata."""

import csv
from collections import Counter
from pathlib import Path, PurePosixPath

from neuralcodec.core.audio import KINDS
from neuralcodec.core.files import expanded
from neuralcodec.core.names import unknown
from neuralcodec.data.clip import Clip


def _header(manifest: Path, names: list[str]) -> list[str]:
    """Return the names of a manifest's columns in lower case and without blanks around them."""
    header = [name.strip().lower() for name in names]
    if "file" not in header:
        found = ", ".join(header) or "nothing"
        raise ValueError(f"{manifest} needs a header with the column 'file', found {found}")
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise ValueError(f"{manifest} has two columns named {', '.join(map(repr, twice))}")
    return header


def _read_rows(manifest: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a column "file", without blanks around values."""
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets add a BOM
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            header = _header(manifest, next(reader, []))
            rows = [row for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {manifest} as CSV in UTF-8: {error}") from error
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"{manifest}, row {number}: not as many fields as the header has")
    return [dict(zip(header, map(str.strip, row), strict=True)) for row in rows]


def read_manifest(manifest: Path, *, split: str | None = None) -> list[Clip]:
    """Return the clips of a manifest, in its order.

    Args:
        manifest: a CSV file in UTF-8 with the column `file`, relative to its folder, and optionally
            `kind`, `transcript`, `speaker` and `split`; other columns are ignored.
        split: return only the clips with this `split`; None for all.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the column `file` is missing, two columns have the same name, a row has too
            many or too few fields, a kind is unknown or a file is listed twice.
    """
    found: dict[Path, Clip] = {}
    for number, row in enumerate(_read_rows(manifest), start=1):
        where = f"{manifest}, row {number}"
        name = PurePosixPath(row["file"]).as_posix()
        path = manifest.parent / expanded(name)
        kind = row.get("kind", "") or "unknown"
        if kind not in KINDS:
            raise unknown(f"kind in {where}:", kind, KINDS)
        if not path.is_file():
            raise FileNotFoundError(f"{where}: no file {row['file']!r} in {manifest.parent}")
        if path.resolve() in found:
            raise ValueError(f"{where}: {row['file']!r} stands there twice; remove one row")
        if split in (None, row.get("split")):
            found[path.resolve()] = Clip(
                name, path, kind, row.get("transcript", ""), row.get("speaker", "")
            )
    return list(found.values())
