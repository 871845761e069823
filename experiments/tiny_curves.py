"""Record and plot training curves: losses and validation scores over hours of audio.

    python experiments/tiny_curves.py training/tiny_50hz training/tiny_50hz_seed2 ...

For each output folder of `neuralcodec train`, the mean losses of every 500 steps are written to
`NAME.csv` in `results/tiny/curves`, and the scores of held-out speakers to `NAME_validation.csv`.
`curves.png` shows all curves in that folder, including those of earlier calls.
"""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from reporting import COLOURS, save_figure

from neuralcodec.analysis.plots import literal
from neuralcodec.tiny.training.losses import LOSSES
from neuralcodec.tiny.training.train import LOG, SCORES

OUT = Path(__file__).parents[1] / "results" / "tiny" / "curves"
BLOCK = 500
"""Number of steps that are averaged."""


def keep(folder: Path, out: Path) -> None:
    """Write the two tables of a training run."""
    log = pd.read_csv(folder / LOG)
    block = (log["step"] - 1) // BLOCK
    last = log.groupby(block)[["step", "hours_heard", "seconds", "skipped"]].last()
    means = log.groupby(block)[[name for name in LOSSES if name in log.columns]].mean()
    out.mkdir(parents=True, exist_ok=True)
    last.join(means).to_csv(out / f"{folder.name}.csv", index=False, float_format="%.5g")
    scores = pd.read_csv(folder / SCORES)
    hours = scores["step"].map(log.set_index("step")["hours_heard"])
    scores.insert(1, "hours_heard", hours)
    scores.to_csv(out / f"{folder.name}_validation.csv", index=False, float_format="%.5g")


def draw(out: Path) -> Figure:
    """Plot the log-mel loss, and PESQ-WB and STOI of all codebooks, over hours of audio."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    paths = sorted(path for path in out.glob("*.csv") if not path.stem.endswith("_validation"))
    for place, path in enumerate(paths):
        look = {"color": COLOURS[place % len(COLOURS)], "label": literal(path.stem)}
        log = pd.read_csv(path)
        left.plot(log["hours_heard"], log["mel"], **look)
        scores = pd.read_csv(path.with_name(f"{path.stem}_validation.csv"))
        scores = scores[scores["num_codebooks"] == scores["num_codebooks"].max()]
        for ax, metric in ((middle, "pesq_wb"), (right, "stoi")):
            ax.plot(scores["hours_heard"], scores[metric], marker="o", **look)
    titles = ("log-mel loss, training", "PESQ-WB, held-out speakers", "STOI, held-out speakers")
    for ax, title in zip((left, middle, right), titles, strict=True):
        ax.set_title(title)
        ax.set_xlabel("hours heard")
        ax.grid(visible=True, color="#DDDDDD")
    left.legend()
    return figure


def main() -> None:
    """Record the curves of the given folders, and plot all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    for folder in given.folders:
        keep(folder, given.out)
    save_figure(draw(given.out), given.out / "curves.png")
    print(given.out / "curves.png")


if __name__ == "__main__":
    main()
