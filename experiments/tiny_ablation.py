"""Ablation of the recipe of tiny_50hz: short training runs, each with one part changed.

    python experiments/tiny_ablation.py [--audio DIR]

All runs start from the same model and see the same crops: 500 steps with a trained quantizer, then
200 steps of the decoder alone, with one thread each and two at a time. They are scored with 8
codebooks and a beam of 16 on the speech in DIR. The script writes `results/tiny/ablation.md`.
"""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from reporting import markdown_table, write_text
from tiny_card import METRICS, asked, scores, speech

from neuralcodec.tiny.codec import Tiny
from neuralcodec.tiny.training import recipe as recipes
from neuralcodec.tiny.training.train import train

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "experiments" / "train" / "tiny_50hz.toml"
OUT = ROOT / "results" / "tiny" / "ablation.md"
STEPS, FREEZE_FROM, FIT_SECONDS = 700, 500, 1200.0
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "unchanged": {},
    "straight-through gradient, commitment 1": {
        "quantizer": {"gradient": "straight_through", "commitment": 1.0},
    },
    "rotation trick, commitment 1": {"quantizer": {"gradient": "rotation", "commitment": 1.0}},
    "AdamW": {"schedule": {"optimizer": "adamw"}},
    "without `loudness`": {"losses": {"loudness": 0.0}},
    "without `envelope`": {"losses": {"envelope": 0.0}},
}
"""Changed settings, by table of the recipe; a weight of 0 removes a loss."""


def changed(recipe: recipes.Recipe, change: dict[str, dict[str, Any]]) -> recipes.Recipe:
    """Return the recipe of a short training run with a change."""
    short = {"steps": STEPS, "freeze_from": FREEZE_FROM, "average": 0.99}
    losses = {**recipe.losses, **change.get("losses", {})}
    update = {
        "schedule": {**short, **change.get("schedule", {})},
        "quantizer": {"fit_seconds": FIT_SECONDS, **change.get("quantizer", {})},
        "data": {"validation_clips": 0},
    }
    tables = {name: getattr(recipe, name).model_copy(update=new) for name, new in update.items()}
    tables["losses"] = {name: weight for name, weight in losses.items() if weight > 0}
    return recipe.model_copy(update=tables)


def _row(recipe: recipes.Recipe, folder: Path, audio: str, label: str) -> list[object]:
    torch.set_num_threads(1)
    name = "".join(c if c.isalnum() else "_" for c in label)
    path = train(changed(recipe, CHANGES[label]), folder / f"ablation_{name}")
    codec = Tiny(weights=path, beam_width=16)
    return [label, *scores(codec, speech(audio), codec.num_codebooks), codec.facts["seconds"]]


def main() -> None:
    """Train, score and write the table."""
    given = asked(__doc__)
    recipe = recipes.read(RECIPE)
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        rows = [*processes.map(partial(_row, recipe, given.training, given.audio), CHANGES)]
    start = Tiny(weights=recipe.begin_with, beam_width=16)
    begun = scores(start, speech(given.audio), start.num_codebooks)
    write_text(
        OUT,
        [
            "# Effect of each part of the recipe",
            f"`python experiments/tiny_ablation.py`: `tiny_50hz` trained for {STEPS} steps, the "
            f"last {STEPS - FREEZE_FROM} of them the decoder alone, always from the same initial "
            f"model and with the same crops. Means over the speech in `{given.audio}`, with "
            "8 codebooks and a beam of 16.",
            markdown_table(
                ["recipe", *METRICS, "seconds"], [["initial model", *begun, None], *rows]
            ),
        ],
    )
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
