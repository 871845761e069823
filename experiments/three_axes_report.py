r"""Read `results/three_axes`: the best frame rate, codebook count and vocabulary at a bitrate.

    neuralcodec sweep experiments/three_axes.toml \
        --audio ../shared/audio/eval --fit-audio ../shared/audio/train
    python experiments/three_axes_report.py

Writes `best.md` and `axes.png` into the folder: a table of the best triple within each bitrate, and
quality over bitrate for each label and vocabulary.
"""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from reporting import COLOURS, MARKERS, markdown_table, save_figure, write_text

FOLDER = Path(__file__).parents[1] / "results" / "three_axes"
METRICS = {"pesq_wb": "PESQ-WB", "stoi": "STOI"}
KBPS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_TRIPLE = ["label", "frame_rate", "num_codebooks", "codebook_size"]


def means(path: Path) -> pd.DataFrame:
    """Read a sweep's rows; give the mean of each point over its clips.

    Raises:
        ValueError: if a row failed, for then means are not over the same clips.
    """
    rows = pd.read_csv(path)
    failed = int((rows["status"] != "ok").sum())
    if failed:
        raise ValueError(f"{failed} rows of {path} failed; run the sweep again with --retry")
    keys = [*_TRIPLE, "bitrate_kbps", "tokens_per_second"]
    grouped: pd.DataFrame = rows[[*keys, *METRICS]].groupby(keys).mean().reset_index()
    return grouped


def best(points: pd.DataFrame, metric: str) -> list[list[object]]:
    """List the best point within each bitrate: the limit, the triple, its rates, its score."""
    found: list[list[object]] = []
    for limit in KBPS:
        within = points[points["bitrate_kbps"] <= limit * 1.0001]
        if within.empty:
            continue
        top = within.sort_values(metric).iloc[-1]
        rate, depth, size = (top[name] for name in _TRIPLE[1:])
        found.append(
            [
                f"{limit:g}",
                top["label"],
                float(rate),
                int(depth),
                int(size),
                float(top["bitrate_kbps"]),
                float(top["tokens_per_second"]),
                float(top[metric]),
            ]
        )
    return found


def draw(points: pd.DataFrame) -> Figure:
    """Draw quality over bitrate: a row a metric, a column a label, a line a vocabulary."""
    labels = list(dict.fromkeys(points["label"]))
    sizes = sorted(set(points["codebook_size"]))
    figure = Figure(figsize=(3.0 * len(labels), 3.0 * len(METRICS)), layout="constrained")
    grid = figure.subplots(len(METRICS), len(labels), sharex=True, sharey="row", squeeze=False)
    for axes, (metric, title) in zip(grid, METRICS.items(), strict=True):
        for ax, label in zip(axes, labels, strict=True):
            for place, size in enumerate(sizes):
                line = points[(points["label"] == label) & (points["codebook_size"] == size)]
                line = line.sort_values("bitrate_kbps")
                look = {"color": COLOURS[place], "marker": MARKERS[place]}
                ax.plot(line["bitrate_kbps"], line[metric], label=f"V = {size}", **look)
            ax.grid(visible=True, color="#DDDDDD")
            ax.set_xscale("log")
            ax.set_xticks([0.25, 0.5, 1, 2, 4, 8], ["0.25", "0.5", "1", "2", "4", "8"])
            if axes is grid[0]:
                ax.set_title(label)
        axes[0].set_ylabel(title)
    for ax in grid[-1]:
        ax.set_xlabel("bitrate [kbit/s]")
    grid[0][0].legend()
    return figure


def main() -> None:
    """Write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    points = means(folder / "results.csv")
    header = ["within, kbit/s", "model", "frames/s", "K", "V", "kbit/s", "tokens/s"]
    tables = [
        f"## Best by {title}\n\n" + markdown_table([*header, title], best(points, metric))
        for metric, title in METRICS.items()
    ]
    write_text(folder / "best.md", ["# The best triple within each bitrate", *tables])
    save_figure(draw(points), folder / "axes.png")
    print((folder / "best.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
