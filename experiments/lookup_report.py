"""Tables and figures of `bench_lookup`, generated from its record."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from lookup_peers import CHUNKED, FLAT, SGEMM, VQP, Shape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from reporting import (
    COLOURS,
    MARKERS,
    figures,
    machine_lines,
    markdown_table,
    save_figure,
    verdict,
    write_csv,
    write_text,
)
from timing import geometric_mean

from neuralcodec.analysis import plots as plot

Row = Mapping[str, Any]

_OURS = "ours, auto"
_LARGE = 22_500  # smallest number of vectors for the claims about throughput
_WIDE = 128  # smallest D for the comparison with sgemm
_HOW = """Greedy search of N vectors of dimension D in K codebooks of V entries. Columns named after
other implementations are ratios: their time divided by ours (`backend="auto"`), the median over
rounds in which both ran one right after the other; above 1, ours is faster. Our time includes the
preparation of the codebooks; the others prepared theirs before the measurement. GFLOP/s count
only the inner products, 2 N D V K, for every implementation. `sgemm` is `torch.mm` of `[N, D]` by
`[D, V]`, K times, into preallocated memory; `share` is our GFLOP/s divided by its. `dac` searches
by cosine similarity, without the projections of its quantizer, and is compared with our cosine
search of the same shape. FAISS's ResidualQuantizer is greedy (`max_beam_size=1`) and packs its
codes into bits. For a ratio with its own N, both were measured on fewer vectors, because the other
needs too much time or memory for all; a dash means not measured. Vectors and codebooks are
Gaussian, and every implementation compares with every entry."""


def _shapes(rows: Sequence[Row]) -> list[Shape]:
    found = [(row["dim"], row["codebook_size"], row["num_codebooks"]) for row in rows]
    return list(dict.fromkeys(found))


def _contestants(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["contestant"] for row in rows if row["contestant"] != SGEMM))


def _short(count: int) -> str:
    return f"{count / 1000:g}k" if count >= 1000 else str(count)


def _ratio(row: Row | None) -> str:
    if row is None:
        return "-"
    note = "" if row["vectors"] == row["vectors_asked"] else f" (N={_short(row['vectors'])})"
    return figures(float(row["ratio"])) + note


def _of(rows: Sequence[Row], shape: Shape) -> list[Row]:
    return [row for row in rows if _shapes([row]) == [shape]]


def _ours(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    """Return seconds and GFLOP/s of our Euclidean search in rows with all vectors, else None."""
    whole = [
        row for row in rows if row["vectors"] == row["vectors_asked"] and row["metric"] != "cosine"
    ]
    if not whole:
        return None, None
    return median(row["ours_seconds"] for row in whole), median(row["ours_gflops"] for row in whole)


def speed_table(rows: Sequence[Row]) -> str:
    """Return the table of one device and one N: one row per shape, one column per contestant."""
    names = _contestants(rows)
    header = ["D, V, K", "ours, ms", "GFLOP/s", "sgemm GFLOP/s", "share", *names]
    lines = []
    for shape in _shapes(rows):
        part = _of(rows, shape)
        by = {row["contestant"]: row for row in part}
        seconds, rate = _ours(part)
        ceiling = by.get(SGEMM)
        lines.append(
            [
                ", ".join(map(str, shape)),
                None if seconds is None else seconds * 1e3,
                rate,
                ceiling and ceiling["gflops"],
                ceiling and float(ceiling["ratio"]),
                *(_ratio(by.get(name)) for name in names),
            ]
        )
    return markdown_table(header, lines)


def claims(rows: Sequence[Row]) -> list[list[object]]:
    """Return the comparison of the CPU measurements with the targets."""
    cpu = [row for row in rows if row["device"] == "cpu"]

    def ratios(name: str, least: int = 0, most: float = float("inf"), dim: int = 0) -> list[float]:
        return [
            row["ratio"]
            for row in cpu
            if row["contestant"] == name
            and least <= row["vectors_asked"] <= most
            and row["dim"] >= dim
        ]

    flat, vqp = ratios(FLAT, _LARGE), ratios(VQP)
    ceiling, streaming = ratios(SGEMM, _LARGE, dim=_WIDE), ratios(CHUNKED, most=1_000)

    def least(values: Sequence[float]) -> float | None:
        return min(values, default=None)

    mean = geometric_mean(flat) if flat else None
    return [
        verdict(f"smallest ratio, {FLAT}, N >= 22,500", least(flat), 1.0, at_least=True),
        verdict(f"geometric mean of these {len(flat)}", mean, 1.25, at_least=True),
        verdict(f"smallest ratio, {VQP}", least(vqp), 8.0, at_least=True),
        verdict(
            "smallest share of sgemm, D >= 128, N >= 22,500", least(ceiling), 0.75, at_least=True
        ),
        verdict(f"smallest ratio, {CHUNKED}, N = 1,000", least(streaming), 1.0, at_least=True),
    ]


def checks_table(rows: Sequence[Row]) -> str:
    """Return per contestant the share of vectors with other codes, and the worst excess."""
    lines = []
    for name in _contestants(rows):
        part = [row for row in rows if row["contestant"] == name]
        answer = "yes" if all(row["same"] for row in part) else "NO, not timed where it differs"
        mismatch = max(row["mismatch"] for row in part)
        lines.append(
            [name, f"{100 * mismatch:.2f} %", f"{max(row['excess'] for row in part):.1e}", answer]
        )
    header = [
        "implementation",
        "vectors with other codes, at most",
        "largest excess",
        "only near ties",
    ]
    return markdown_table(header, lines)


def memory_table(rows: Sequence[Row]) -> str:
    """Return the memory in addition to input and codes, one row per shape and contestant."""
    header = ["implementation", "D, V, K", "N", "codes, MiB", "beyond input and codes, MiB"]
    lines = [
        [
            row["contestant"],
            f"{row['dim']}, {row['codebook_size']}, {row['num_codebooks']}",
            row["vectors"],
            row["codes_mib"],
            row["mib"],
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def _look(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the colour and marker of a contestant, the same in all panels."""
    if name == _OURS:
        return {"color": "k", "marker": "_"}
    if name == SGEMM:
        return {"color": "#7F7F7F", "marker": "*"}
    place = names.index(name)
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def _name_shapes(ax: Axes, shapes: Sequence[Shape]) -> None:
    labels = [f"{dim}\n{size}" for dim, size, _ in shapes]
    ax.set_xticks(range(len(shapes)), labels, fontsize=8)
    ax.set_xlabel("D above V", fontsize=8)


def _draw_ratios(ax: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    shapes = _shapes(rows)
    for i, name in enumerate(names):
        shift = 0.8 * ((i + 0.5) / len(names) - 0.5)
        for x, shape in enumerate(shapes):
            for row in _of(rows, shape):
                if row["contestant"] == name:
                    look = _look(name, names)
                    ends = [row["lowest_ratio"], row["highest_ratio"]]
                    ax.plot([x + shift] * 2, ends, color=look["color"], linewidth=0.8)
                    ax.plot(x + shift, row["ratio"], label=name, linestyle="", ms=4, **look)
    ax.axhline(1, color="k", linewidth=1)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_ylabel("their time / ours")
    _name_shapes(ax, shapes)


def _draw_rates(ax: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    shapes = _shapes(rows)
    rates = {_OURS: [_ours(_of(rows, shape))[1] for shape in shapes]}
    for name in (FLAT, SGEMM):
        by = {_shapes([row])[0]: row["gflops"] for row in rows if row["contestant"] == name}
        rates[name] = [by.get(shape) for shape in shapes]
    for name, values in rates.items():
        if any(value is not None for value in values):
            known = [np.nan if value is None else value for value in values]
            ax.plot(range(len(shapes)), known, label=name, linewidth=1.2, **_look(name, names))
    ax.set_ylim(bottom=0)
    ax.set_ylabel("GFLOP/s")
    _name_shapes(ax, shapes)


def draw(rows: Sequence[Row], title: str) -> Figure:
    """Plot one device: ratios above, rates below, one column per N."""
    sizes = sorted({row["vectors_asked"] for row in rows})
    names = _contestants(rows)
    figure = Figure(figsize=(4.6 * len(sizes), 6.5), layout="constrained")
    panels = figure.subplots(2, len(sizes), squeeze=False, sharey="row")
    for column, size in enumerate(sizes):
        part = [row for row in rows if row["vectors_asked"] == size]
        _draw_ratios(panels[0, column], part, names)
        panels[0, column].set_title(f"N = {size:,}", fontsize=10)
        _draw_rates(panels[1, column], part, names)
    title = f"{title}; lines: least to greatest ratio of all rounds"
    plot.legend(figure, list(panels.flat), title, ncols=5, fontsize=8)
    return figure


def _device_parts(record: Mapping[str, Any], device: str, folder: Path) -> list[str]:
    rows = [row for row in record["timings"] if row["device"] == device]
    name = {"cpu": "CPU", "cuda": "CUDA"}[device]
    if not rows:
        return [f"## {name}", "Not measured."]
    file = "lookup.png" if device == "cpu" else f"lookup_{device}.png"
    machine = record["machine"]
    hardware = machine["cpu"] if device == "cpu" else machine["gpu"]
    with plot.style():
        save_figure(
            draw(rows, f"{hardware}, torch {machine['versions']['torch']}"), folder / "plots" / file
        )
    parts = [f"## {name}: {hardware}", f"![Ratios and rates](plots/{file})"]
    for size in sorted({row["vectors_asked"] for row in rows}):
        part = [row for row in rows if row["vectors_asked"] == size]
        parts += [f"### N = {size:,}", speed_table(part)]
    return parts


def write_report(record: Mapping[str, Any], folder: Path) -> None:
    """Write `lookup.md`, `lookup.csv` and the figures of a record to a folder."""
    checks = [row for row in record["checks"] if row["mismatch"] is not None]
    missing = ", ".join(record["missing"])
    write_csv(folder / "lookup.csv", record["timings"])
    write_text(
        folder / "lookup.md",
        [
            "# Codebook lookup",
            machine_lines(record["machine"]),
            _HOW,
            f"Not installed, so not measured: {missing}." if missing else "",
            "## Targets",
            markdown_table(["claim", "target", "measured", "met"], claims(record["timings"])),
            *_device_parts(record, "cpu", folder),
            *_device_parts(record, "cuda", folder),
            "## Are the codes the same?",
            f"{len(checks)} pairs of implementation and shape with 2,000 vectors each. Excess: by "
            "how much the squared distance from the residual to the chosen entry is larger than to "
            "the nearest one, relative to the squared length of the vector; up to "
            f"{record['tolerance']:g} is explained by float32.",
            checks_table(checks),
            "## Memory" if record["memory"] else "",
            memory_table(record["memory"]) if record["memory"] else "",
        ],
    )


def write_memory(machine: Mapping[str, Any], row: Row, folder: Path) -> None:
    """Write `memory.md`: the memory for encoding very many vectors."""
    claim = verdict("GiB beyond input and codes", row["mib"] / 1024, 1.0, at_least=False)
    write_text(
        folder / "memory.md",
        [
            "# Memory for encoding many vectors",
            machine_lines(machine),
            memory_table([row]),
            f"Encoding took {row['seconds']:.0f} s.",
            markdown_table(["claim", "target", "measured", "met"], [claim]),
        ],
    )
