"""Output of the benchmarks: Markdown tables, CSV files and a description of the machine."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

Row = Mapping[str, Any]

COLOURS = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #F0E442".split()
"""The colour-blind safe palette of Okabe and Ito (2008)."""

MARKERS = "osD^vPX<"


def figures(value: object, digits: int = 3) -> str:
    """Format a number with the given significant digits and thousands separators; None as a dash.

    >>> figures(0.012345), figures(22500.4), figures(7.0), figures(None)
    ('0.0123', '22,500', '7.00', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table with a left-aligned first column if it is text, others right-aligned.

    Raises:
        ValueError: if a row has another number of cells than the header.

    >>> print(markdown_table(["peer", "ratio"], [["faiss", 1.5]]))
    | peer | ratio |
    |---|---:|
    | faiss | 1.50 |
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, the header {len(header)}: {row}")
    first = rows[0] if rows else header
    rules = ["---" if isinstance(cell, str) and i == 0 else "---:" for i, cell in enumerate(first)]
    lines = [header, *([figures(cell) for cell in row] for row in rows)]
    written = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([written[0], "|" + "|".join(rules) + "|", *written[1:]])


def machine_lines(machine: Mapping[str, Any]) -> str:
    """Return a description of the machine, the versions and the threads, one sentence each."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = ", ".join(f"{name} {count}" for name, count in machine["threads"].items())
    gpu = machine["gpu"] or "none"
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['vector_instructions']}, "
        f"{machine['memory_gib']:g} GiB of memory, GPU: {gpu}; {machine['system']}, "
        f"Python {machine['python']}; {machine['date']}.\n"
        f"Versions: {versions}.\n"
        f"Threads: {threads}; environment variables that limit them were unset."
    )


def verdict(claim: str, value: float | None, bound: float, *, at_least: bool) -> list[object]:
    """Return a row with a claim, its bound, the value, and whether the bound is satisfied."""
    sign = ">=" if at_least else "<="
    if value is None:
        answer = "not measured"
    else:
        answer = "yes" if (value >= bound if at_least else value <= bound) else "NO"
    return [claim, f"{sign} {bound:g}", value, answer]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows with the same keys as CSV; columns of lists are left out, None is an empty cell.

    Raises:
        ValueError: if there is no row.
    """
    if not rows:
        raise ValueError(f"{path.name} not written: there is no row")
    names = [name for name, value in rows[0].items() if not isinstance(value, list | tuple)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            cells = [row[name] for name in names]
            writer.writerow([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in cells])


def write_json(path: Path | None, record: object) -> None:
    """Write all measurements as JSON, if a path is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def write_text(path: Path, parts: Sequence[str]) -> None:
    """Write the parts of a Markdown file, separated by empty lines; empty parts are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure as PNG, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
