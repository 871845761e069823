"""Copy a trained model into the package and write its card: training data, scores, limitations.

    python experiments/tiny_card.py RECIPE FOLDER [--audio DIR]

RECIPE is the TOML file and FOLDER the output of `neuralcodec train`. The model is scored on the
speech in DIR, by default `../shared/audio/eval`: mean PESQ-WB, STOI, ViSQOL (speech) and log-mel
distance.
"""

import argparse
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from reporting import markdown_table, write_text
from timing import machine

from neuralcodec.data import clips
from neuralcodec.metrics import score
from neuralcodec.tiny.codec import SHIPPED, Tiny
from neuralcodec.tiny.model import SAMPLE_RATE
from neuralcodec.tiny.training import recipe as recipes
from neuralcodec.tiny.training.corpus import find
from neuralcodec.tiny.training.train import MODEL

ROOT = Path(__file__).parents[1]
EVAL = "../shared/audio/eval"
METRICS = ["pesq_wb", "stoi", "visqol_speech", "log_mel_distance"]
MADE_AFTER = {"loudness": "PESQ", "envelope": "STOI"}
LICENCE = "MIT, like the code; the recordings in its training data have their own licences"


def asked(doc: str | None) -> argparse.Namespace:
    """Parse the arguments of a script that trains and scores: `audio` and `training`."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--audio", default=EVAL, help="its speech is scored")
    parser.add_argument("--training", type=Path, default=ROOT / "training", help="for the models")
    return parser.parse_args()


def speech(audio: str) -> list[torch.Tensor]:
    """Read the clips of speech of a folder, each `[1, T]`."""
    return [clip.read(SAMPLE_RATE) for clip in clips(audio) if clip.kind == "speech"]


def scores(
    codec: Tiny, wavs: list[torch.Tensor], depth: int, metrics: list[str] = METRICS
) -> list[float]:
    """Return the mean of each metric over the clips, with `depth` codebooks."""
    found = []
    for wav in wavs:
        estimate = codec.decode(codec.encode(wav[None], depth))
        given = score(wav, estimate[0], codec.sample_rate, metrics, kind="speech")
        found.append([given[name] for name in metrics])
    means: list[float] = torch.tensor(found, dtype=torch.float64).mean(dim=0).tolist()
    return means


def _row(path: Path, audio: str, depth: int, width: int) -> list[object]:
    torch.set_num_threads(1)
    codec = Tiny(weights=path, beam_width=width)
    kbps = depth * 10 * codec.frame_rate / 1000
    search = f"beam {width}" if width > 1 else "greedy"
    return [f"{depth}, {search}", kbps, *scores(codec, speech(audio), depth)]


def score_table(path: Path, audio: str) -> str:
    """Return a table of scores with 1, 2, 4 and 8 codebooks, and with a beam of 16 for 6 and 8."""
    depths, widths = (1, 2, 4, 8, 6, 8), (1, 1, 1, 1, 16, 16)
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        rows = [*processes.map(partial(_row, path, audio), depths, widths)]
    return markdown_table(["codebooks", "kbit/s", *METRICS], rows)


def heard(recipe: recipes.Recipe) -> str:
    """Return a table of the training data: kinds, duration and weight of each source."""
    rows = []
    for source in recipe.data.sources:
        found = find(source)
        hours = sum(clip.duration for clip in found) / 3600
        kinds = ", ".join(sorted({clip.kind for clip in found}))
        without = ", ".join(source.exclude_speakers) or "-"
        rows.append([source.audio, kinds, hours, source.weight, without])
    return markdown_table(["source", "kinds", "hours", "weight", "speakers left out"], rows)


def _began(path: str) -> str:
    """Return a description of the initial model and of its own training."""
    if not path:
        return "nothing"
    facts = Tiny(weights=path).facts
    steps, hours = facts["steps"], facts["hours_heard"]
    return f"{path}: {steps} steps, {hours:.1f} hours, plus the training of its own initial model"


def flattered(losses: Iterable[str]) -> str:
    """Return a sentence on which metrics the training losses were modelled on."""
    metrics = [metric for loss, metric in MADE_AFTER.items() if loss in losses]
    if not metrics:
        return "None of them is modelled on a metric below."
    names = " and ".join(metrics)
    return f"Some are modelled on parts of {names}, whose scores are therefore optimistic."


def main() -> None:
    """Copy a model into the package and write its card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--audio", default=EVAL)
    given = parser.parse_args()
    recipe = recipes.read(given.recipe)
    path = given.folder / MODEL
    codec = Tiny(weights=path)
    facts = codec.facts
    parameters = sum(p.numel() for p in codec.network.parameters()) / 1e6
    cpu = f"{machine()['cpu']} ({machine()['vector_instructions']})"
    SHIPPED.mkdir(exist_ok=True)
    shipped = SHIPPED / f"{recipe.name}.safetensors"
    began = _began(recipe.begin_with)  # before the copy, which may replace that file
    shutil.copy(path, shipped)
    losses = ", ".join(f"{name} {weight:g}" for name, weight in recipe.losses.items())
    causality = "" if codec.is_causal else ", since it is not causal"
    card = f"""# {recipe.name}

{codec.frame_rate:g} latents per second, {codec.num_codebooks} codebooks of \
{codec.codebook_sizes[0]} entries, {parameters:.2f} M parameters.
The file takes {shipped.stat().st_size / 1e6:.2f} MB; its matrices have 8 bits per weight.

| | |
|---|---|
| made by | `OMP_NUM_THREADS=1 neuralcodec train {given.recipe.as_posix()}` |
| card by | `python experiments/tiny_card.py` |
| initial model | {began} |
| steps | {facts["steps"]}, {facts["hours_heard"]:.1f} hours of audio, repetitions included |
| training time | {facts["seconds"]:.0f} s, with one thread of {cpu} |
| seed | {facts["seed"]} |
| licence | {LICENCE} |
| intended for | speech at 16 kHz, mono; music and other sounds are coded poorly |
| algorithmic delay | {float(codec.network.config.delay) * 1000:.0f} ms{causality}; no streams |

## Training data

{heard(recipe)}

No clip and no speaker of the evaluation set is in it. Weights of the losses: {losses}.
{flattered(recipe.losses)}

## Scores

Means over the speech clips in `{given.audio}`. The search for codes is greedy, or a beam search.

{score_table(path, given.audio)}"""
    write_text(SHIPPED / f"{recipe.name}.md", [card])
    print(f"{shipped} and its card")


if __name__ == "__main__":
    main()
