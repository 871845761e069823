"""A training from its first step to the model that comes out, or on from where it stopped."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from neuralcodec import __version__
from neuralcodec.data import Clip
from neuralcodec.tiny import checkpoint
from neuralcodec.tiny.training import validation
from neuralcodec.tiny.training.corpus import Corpus
from neuralcodec.tiny.training.processes import Processes, joined
from neuralcodec.tiny.training.recipe import Recipe
from neuralcodec.tiny.training.records import Events, Table
from neuralcodec.tiny.training.trainer import Trainer

STATE, MODEL, LOG, SCORES = "state.safetensors", "model.safetensors", "log.csv", "validation.csv"
"""Files that a training leaves in its folder."""


@dataclass
class _Means:
    """Means of what steps gave, since the last row."""

    total: dict[str, float]
    count: int = 0

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.total[name] = self.total.get(name, 0.0) + value
        self.count += 1

    def take(self) -> dict[str, float]:
        means = {name: value / self.count for name, value in self.total.items()}
        self.total, self.count = {}, 0
        return means


def _signature(recipe: Recipe) -> str:
    """8 hex digits of all of a recipe that changes what comes out, and of what it begins with."""
    decisive = recipe.model_dump(mode="json", exclude={"records", "device", "compile"})
    digest = hashlib.sha256(repr(decisive).encode())
    if recipe.begin_with:
        digest.update(Path(recipe.begin_with).read_bytes())
    return digest.hexdigest()[:8]


def _columns(recipe: Recipe) -> list[str]:
    judged = ["adversarial", "features", "discriminator"] if recipe.adversary else []
    ends = ["commitment", "gradient_norm", "learning_rate", "usage", "skipped", "seconds"]
    return ["step", "hours_heard", *recipe.losses, *judged, *ends]


@dataclass
class Run:
    """A training in its folder: what it computes, and what it writes down.

    Attributes:
        trainer: takes the steps.
        folder: for all that is written.
        signature: of the recipe, and of what it began with.
        seconds: of training so far, this and earlier runs.
    """

    trainer: Trainer
    folder: Path
    signature: str
    clips: Sequence[Clip]
    log: Table
    scores: Table
    events: Events
    seconds: float = 0.0

    @property
    def _first(self) -> bool:
        return self.trainer.processes.rank == 0

    def hours_heard(self) -> float:
        """Tell how much audio went by, hours."""
        data = self.trainer.recipe.data
        return self.trainer.step * data.batch * data.seconds / 3600

    def save(self) -> None:
        """Write the state to go on from."""
        if self._first:
            facts = {
                "step": self.trainer.step,
                "skipped": self.trainer.skipped,
                "seconds": self.seconds,
                "recipe": self.signature,
            }
            checkpoint.save_state(self.folder / STATE, self.trainer.parts, facts)
        self.trainer.processes.wait()

    def resume(self) -> None:
        """Go on from the state in the folder, if there is one.

        Raises:
            ValueError: if the state is of another recipe.
        """
        path, trainer = self.folder / STATE, self.trainer
        if path.is_file():
            facts = checkpoint.facts_of(path)
            if facts.get("recipe") != self.signature:
                raise ValueError(
                    f"{path} is of another recipe than {trainer.recipe.name!r} is now, or began "
                    f"with another model: train into another folder, or remove it"
                )
            checkpoint.load_state(path, trainer.parts)
            trainer.step, trainer.skipped = facts["step"], facts["skipped"]
            self.seconds = facts["seconds"]
        if self._first:
            self.log.begin(trainer.step)
            self.scores.begin(trainer.step)

    def validate(self) -> None:
        """Score the averaged model on the validation clips."""
        if self._first and self.clips:
            rows = validation.validate(
                self.trainer.averaged(),
                self.clips,
                seconds=self.trainer.recipe.data.validation_seconds,
                quantized=self.trainer.step > self.trainer.recipe.schedule.quantize_from,
            )
            for row in rows:
                self.scores.add({"step": self.trainer.step, **row})
                self.events.add(f"validation_{row['num_codebooks']:.0f}", row, self.trainer.step)
        self.trainer.processes.wait()

    def export(self) -> Path:
        """Write the averaged model."""
        trainer, recipe = self.trainer, self.trainer.recipe
        facts = {
            "name": recipe.name,
            "steps": trainer.step,
            "hours_heard": round(self.hours_heard(), 3),
            "seconds": round(self.seconds, 1),
            "seed": recipe.seed,
            "neuralcodec": __version__,
        }
        if self._first:
            checkpoint.save_model(
                self.folder / MODEL,
                recipe.model,
                trainer.averaged().state_dict(),
                trainer.model.rvq.codebooks,
                facts,
            )
        trainer.processes.wait()
        return self.folder / MODEL

    def steps(self, last: int, *, progress: bool) -> Iterator[None]:
        """Take steps up to number `last`, writing down what the recipe asks for."""
        trainer, records = self.trainer, self.trainer.recipe.records
        means = _Means({})
        bar = tqdm(
            total=last, initial=trainer.step, unit="step", disable=not (progress and self._first)
        )
        with bar:
            while trainer.step < last:
                start = time.perf_counter()
                rate = trainer.learning_rate()
                means.add(trainer.run_step())
                self.seconds += time.perf_counter() - start
                bar.update()
                if trainer.step % records.log_every == 0 or trainer.step == last:
                    row = {
                        "step": trainer.step,
                        "hours_heard": self.hours_heard(),
                        **means.take(),
                        "learning_rate": rate,
                        "usage": float(trainer.model.rvq.usage.mean()),
                        "skipped": trainer.skipped,
                        "seconds": self.seconds,
                    }
                    if self._first:
                        self.log.add(row)
                        self.events.add("training", row, trainer.step)
                    bar.set_postfix({k: f"{row[k]:.3g}" for k in trainer.recipe.losses})
                every = records.validate_every
                if (every and trainer.step % every == 0) or trainer.step == last:
                    self.validate()
                if trainer.step % records.save_every == 0 or trainer.step == last:
                    self.save()
                yield


def _start(recipe: Recipe, folder: Path, processes: Processes) -> Run:
    if recipe.data.batch % processes.count:
        raise ValueError(
            f"data.batch must be a multiple of the {processes.count} processes, "
            f"got {recipe.data.batch}"
        )
    data = recipe.data
    corpus = Corpus(
        data.sources,
        seconds=data.seconds,
        augmentation=data.augmentation,
        held_out=data.held_out,
        memory_mib=data.memory_mib,
    )
    trainer = Trainer(recipe, corpus, processes)
    if recipe.begin_with:
        checkpoint.begin_with(trainer.model, recipe.begin_with)
        for name, parameter in trainer.model.named_parameters():
            trainer.average[name].copy_(parameter.detach())
    clips = validation.choose(corpus.held_out, data.validation_clips)
    columns = ["step", "num_codebooks", "clips", *validation.METRICS]
    first = processes.rank == 0
    return Run(
        trainer,
        folder,
        _signature(recipe),
        clips,
        Table(folder / LOG, _columns(recipe)),
        Table(folder / SCORES, columns),
        Events(folder / "events" if recipe.records.tensorboard and first else None),
    )


def train(
    recipe: Recipe, folder: str | Path, *, steps: int | None = None, progress: bool = False
) -> Path:
    """Train a model, or go on with a training that was stopped.

    A folder that has the state of the same recipe is gone on with, and the curve is that of a
    training that was never stopped: on the same machine with the same threads, to the last bit.
    Started by `torchrun`, processes share each batch between them.

    Args:
        recipe: all that decides the training.
        folder: for the state, the tables and the model.
        steps: stop after this number of the recipe's; default all.
        progress: show a bar with the time that is left.

    Returns:
        Path of the model, for `neuralcodec.load("tiny_50hz", weights=path)`.

    Raises:
        FileNotFoundError: if audio is missing.
        ValueError: if the recipe doesn't fit the audio, or the folder is of another recipe.
        Diverged: if gradients are not finite any more.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with joined(recipe.device) as processes:
        run = _start(recipe, folder, processes)
        run.resume()
        last = recipe.schedule.steps if steps is None else min(steps, recipe.schedule.steps)
        for _ in run.steps(last, progress=progress):
            pass
        run.events.close()
        return run.export()
