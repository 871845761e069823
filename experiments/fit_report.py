"""Tables and figures of `bench_fit`, generated from its record."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fitting import OURS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from reporting import (
    COLOURS,
    MARKERS,
    machine_lines,
    markdown_table,
    save_figure,
    verdict,
    write_csv,
    write_text,
)

from neuralcodec.analysis import plots as plot

Row = Mapping[str, Any]

_NMSE = (
    "NMSE, the normalised squared error, is sum |z - q|^2 / sum |z|^2 over all latents z, without "
    "subtracting their mean; q is z quantized."
)
_RIVAL = "FAISS ResidualQuantizer"
_BELOW = {16: 9.0, 30: 17.0, 46: 25.0}  # target per cent below the greedy error, by codebooks


def _by_name(rows: Sequence[Row]) -> dict[str, Row]:
    return {row["fit"]: row for row in rows}


def _fit_claims(rows: Sequence[Row], width: int) -> list[list[object]]:
    by = _by_name(rows)
    mine, rival = by[OURS], by.get(_RIVAL)
    shares: list[list[object]] = []
    for claim, column, bound in (
        (f"our NMSE / that of {_RIVAL}, greedy", "nmse_greedy", 1.0),
        (f"our NMSE / that of {_RIVAL}, beam {width}", f"nmse_beam{width}", 1.0),
        (f"our seconds / those of {_RIVAL}", "seconds", 0.25),
    ):
        share = mine[column] / rival[column] if rival else None
        shares.append(verdict(claim, share, bound, at_least=False))
    return shares


def _draw_fits(rows: Sequence[Row], width: int) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for position, row in enumerate(rows):
        own = plot.look(position)
        colour, marker = own["color"], own["marker"]
        for column, filled in (("nmse_greedy", "none"), (f"nmse_beam{width}", colour)):
            ax.plot(
                row["seconds"],
                row[column],
                linestyle="",
                color=colour,
                marker=marker,
                markerfacecolor=filled,
                label=row["fit"] if filled != "none" else None,
            )
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("seconds of fitting")
    ax.set_ylabel("NMSE on unseen speakers")
    ax.set_title(f"hollow: greedy, filled: beam {width}", fontsize=9, loc="right")
    ax.legend(frameon=False)
    return figure


def write_fit(record: Mapping[str, Any], folder: Path) -> None:
    """Write `fit.md`, `fit.csv` and `plots/fit.png` of a record to a folder."""
    rows, width = record["fits"], record["beam_width"]
    header = [
        *("fit", "seconds", "NMSE greedy", f"NMSE beam {width}"),
        *("greedy, FAISS's encoder", f"beam {width}, FAISS's encoder"),
    ]
    columns = [
        *("fit", "seconds", "nmse_greedy", f"nmse_beam{width}"),
        *("nmse_greedy_faiss_encoder", f"nmse_beam{width}_faiss_encoder"),
    ]
    write_csv(folder / "fit.csv", rows)
    with plot.style():
        save_figure(_draw_fits(rows, width), folder / "plots" / "fit.png")
    write_text(
        folder / "fit.md",
        [
            "# Fitting codebooks",
            machine_lines(record["machine"]),
            f"Latents of Lyra v2: {record['fit_frames']:,} x 64 of "
            f"{len(record['fit_speakers'])} speakers, on which {record['num_codebooks']} codebooks "
            f"of {record['codebook_size']} entries are fitted, and {record['score_frames']:,} of "
            f"{len(record['score_speakers'])} other speakers, on which they are scored. {_NMSE} "
            "All codebooks are scored with our encoder, and again with that of FAISS as a check. "
            "Our `fit`, with its default settings, ran before and after each of the others, and "
            "its median time is given. FAISS used the defaults of its ResidualQuantizer, "
            "vector-quantize-pytorch its k-means initialisation with 10 iterations.",
            markdown_table(header, [[row[column] for column in columns] for row in rows]),
            "![Error over time](plots/fit.png)",
            "## Targets",
            markdown_table(["claim", "target", "measured", "met"], _fit_claims(rows, width)),
        ],
    )


def _beam_claims(record: Mapping[str, Any]) -> list[list[object]]:
    width = record["beam_width"]
    claims = [
        verdict(
            f"per cent below greedy search, {row['num_codebooks']} codebooks",
            row["below_greedy_percent"],
            _BELOW[row["num_codebooks"]],
            at_least=True,
        )
        for row in record["beam"]
        if row["num_codebooks"] in _BELOW
    ]
    raced = [row for row in record["races"] if row["beam_width"] == width]
    speed = min((row["ratio"] for row in raced), default=None)
    error = max((round(row["ours_nmse"] / row["faiss_nmse"], 6) for row in raced), default=None)
    return [
        *claims,
        verdict(
            f"smallest ratio of our vectors/s to FAISS's, beam {width}", speed, 1.0, at_least=True
        ),
        verdict(f"largest ratio of our NMSE to FAISS's, beam {width}", error, 1.0, at_least=False),
    ]


def _beam_table(rows: Sequence[Row], width: int) -> str:
    header = ["K", "kbit/s", "greedy", f"beam {width}", "below greedy", "beam of 46, cut", "below"]
    return markdown_table(
        header,
        [
            [
                row["num_codebooks"],
                row["bitrate_kbps"],
                row["nmse_greedy"],
                row["nmse_beam"],
                f"{row['below_greedy_percent']:.1f} %",
                row["nmse_cut"],
                f"{row['cut_below_greedy_percent']:.1f} %",
            ]
            for row in rows
        ],
    )


def _race_table(rows: Sequence[Row]) -> str:
    header = [
        *("codebooks", "D, V, K", "beam", "FAISS", "ours, 1/s", "FAISS, 1/s", "ratio"),
        *("NMSE ours", "NMSE FAISS"),
    ]
    return markdown_table(
        header,
        [
            [
                row["codebooks"],
                f"{row['dim']}, {row['codebook_size']}, {row['num_codebooks']}",
                row["beam_width"],
                row["faiss"],
                row["ours_vectors_a_second"],
                row["faiss_vectors_a_second"],
                row["ratio"],
                row["ours_nmse"],
                row["faiss_nmse"],
            ]
            for row in rows
        ],
    )


def _draw_beam(ax: Axes, rows: Sequence[Row], width: int) -> None:
    lines = (
        ("nmse_greedy", "greedy"),
        ("nmse_beam", f"beam {width}, the best code of each K"),
        ("nmse_cut", f"beam {width} of K = 46, cut short"),
    )
    rates = [row["bitrate_kbps"] for row in rows]
    for (column, label), colour, marker in zip(lines, COLOURS, MARKERS, strict=False):
        values = [row[column] for row in rows]
        ax.plot(rates, values, label=label, color=colour, marker=marker, linewidth=1.5)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("bitrate [kbit/s]")
    ax.set_ylabel("NMSE of Lyra's latents")
    ax.legend(frameon=False)


def write_beam(record: Mapping[str, Any], folder: Path) -> None:
    """Write `beam.md`, `beam.csv`, `beam_speed.csv` and `plots/beam.png` to a folder."""
    width = record["beam_width"]
    write_csv(folder / "beam.csv", record["beam"])
    if record["races"]:
        write_csv(folder / "beam_speed.csv", record["races"])
    figure = Figure(figsize=(6, 4), layout="constrained")
    with plot.style():
        _draw_beam(figure.subplots(), record["beam"], width)
        save_figure(figure, folder / "plots" / "beam.png")
    write_text(
        folder / "beam.md",
        [
            "# Encoding with a beam search",
            machine_lines(record["machine"]),
            f"Lyra's own codebooks, on its latents of {record['english_clips']} clips of English "
            f"speech, {record['english_frames']:,} frames. {_NMSE} The beam's figures are of the "
            "best code for each K, which `prefix_lengths` returns; `cut` is the best code for 46 "
            "codebooks, cut to the first K. `below` is by how much the error is lower than that of "
            "greedy search; if it is negative, the cut code is worse.",
            _beam_table(record["beam"], width),
            "![Error over bitrate](plots/beam.png)",
            "## Speed",
            "Vectors encoded per second, by our search and by FAISS alternately, with the same "
            "codebooks, vectors and beam width. FAISS is its ResidualQuantizer with "
            "`max_beam_size`, either with its defaults or with look-up tables (`use_beam_LUT`), "
            "which were computed before the measurement. Our time includes the preparation of the "
            "codebooks. The latents are of speakers on which nothing was fitted.",
            _race_table(record["races"]) if record["races"] else "FAISS is not installed.",
            "## Targets",
            markdown_table(["claim", "target", "measured", "met"], _beam_claims(record)),
        ],
    )
