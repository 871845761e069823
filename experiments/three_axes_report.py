r"""Find the best frame rate, codebook count and vocabulary size at each bitrate.

    neuralcodec sweep experiments/three_axes.toml \
        --audio ../shared/audio/eval --fit-audio ../shared/audio/train
    python experiments/three_axes_report.py

The script reads `results/three_axes` and writes `best.md` and `axes.png` into that folder: a table
of the best triple within each bitrate, and quality over bitrate for each label and vocabulary size.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from reporting import markdown_table, save_figure, write_text

from neuralcodec.analysis.plots import literal, look
from neuralcodec.analysis.rows import read_rows
from neuralcodec.analysis.stats import frontier, summarise

FOLDER = Path(__file__).parents[1] / "results" / "three_axes"
METRICS = {"pesq_wb": "PESQ-WB", "stoi": "STOI"}
KBPS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def points(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the mean of each point over its clips.

    Raises:
        ValueError: if a row failed, since the means are then not over the same clips.
    """
    failed = int((rows["status"] != "ok").sum())
    if failed:
        raise ValueError(f"{failed} rows failed; run the sweep again with --retry")
    return summarise(rows, metric)


def best(summary: pd.DataFrame) -> list[list[object]]:
    """Return for each bitrate limit the best point: limit, label, triple, rates and score."""
    front = frontier(summary, "bitrate_kbps", higher_is_better=True)
    found: list[list[object]] = []
    for limit in KBPS:
        within = front[front["bitrate_kbps"] <= limit * 1.0001]
        if within.empty:
            continue
        top = within.iloc[-1]
        triple = [float(top["frame_rate"]), int(top["num_codebooks"]), int(top["codebook_size"])]
        costs = [float(top["bitrate_kbps"]), float(top["tokens_per_second"])]
        found.append([f"{limit:g}", top["label"], *triple, *costs, float(top["mean"])])
    return found


def draw(summaries: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw quality over bitrate: one row per metric, one column per label, one curve per V."""
    first = next(iter(summaries.values()))
    labels = list(dict.fromkeys(first["label"]))
    sizes = sorted(set(first["codebook_size"]))
    figure = Figure(figsize=(3.0 * len(labels), 3.0 * len(METRICS)), layout="constrained")
    grid = figure.subplots(len(METRICS), len(labels), sharex=True, sharey="row", squeeze=False)
    for axes, (metric, summary) in zip(grid, summaries.items(), strict=True):
        for ax, label in zip(axes, labels, strict=True):
            for place, size in enumerate(sizes):
                line = summary[(summary["label"] == label) & (summary["codebook_size"] == size)]
                line = line.sort_values("bitrate_kbps")
                ax.plot(line["bitrate_kbps"], line["mean"], label=f"V = {size}", **look(place))
            ax.grid(visible=True, color="#DDDDDD")
            ax.set_xscale("log")
            ax.set_xticks([0.25, 0.5, 1, 2, 4, 8], ["0.25", "0.5", "1", "2", "4", "8"])
        axes[0].set_ylabel(METRICS[metric])
    for ax, label in zip(grid[0], labels, strict=True):
        ax.set_title(literal(label))
    for ax in grid[-1]:
        ax.set_xlabel("bitrate [kbit/s]")
    grid[0][0].legend()
    return figure


def main() -> None:
    """Write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    rows = read_rows(folder / "results.csv")
    summaries = {metric: points(rows, metric) for metric in METRICS}
    header = ["limit, kbit/s", "model", "frames/s", "K", "V", "kbit/s", "tokens/s"]
    tables = [
        f"## Best by {METRICS[name]}\n\n" + markdown_table([*header, METRICS[name]], best(summary))
        for name, summary in summaries.items()
    ]
    write_text(
        folder / "best.md",
        ["# The best frame rate, codebook count and vocabulary size within each bitrate", *tables],
    )
    save_figure(draw(summaries), folder / "axes.png")
    print((folder / "best.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
