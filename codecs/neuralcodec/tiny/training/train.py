"""A complete training run, from its first step to the exported model, or resumed."""

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
"""Names of the files in the folder of a training run."""


@dataclass
class _Means:
    """Running means of the values of steps since the last row of the log."""

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
    """Return 8 hex digits of the settings and the initial model on which the result depends."""
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
    """A training run in its folder.

    Attributes:
        trainer: performs the steps.
        folder: folder for all files of the run.
        signature: digest of the recipe and of the model that it starts from.
        clips: validation clips.
        log: table of the losses.
        scores: table of the validation scores.
        events: writer for TensorBoard.
        seconds: training time so far, including earlier runs that were resumed.
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
        """Return the duration of the audio used so far, in hours."""
        data = self.trainer.recipe.data
        return self.trainer.step * data.batch * data.seconds / 3600

    def save(self) -> None:
        """Write the state for resuming."""
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
        """Restore the state in the folder, if there is one, and truncate the tables to its step.

        Raises:
            ValueError: if the state is of another recipe, or a table has other columns.
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
        """Score the averaged model on the validation clips and record the scores."""
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
        """Write the averaged model; return the path of its file."""
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
        """Run steps up to number `last`, and log, score and save as the recipe specifies."""
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
    """Train a model, or resume a training run that was interrupted.

    If the folder contains the state of the same recipe, training continues from it. The result is
    that of an uninterrupted run: bit-identical on the same machine with the same number of threads.
    Under `torchrun` the processes share each batch.

    Args:
        recipe: settings of the training run.
        folder: folder for the state, the tables and the model, created if it does not exist.
        steps: number of the step at which to stop; default all steps of the recipe.
        progress: whether to show a progress bar.

    Returns:
        Path of the model, for `neuralcodec.load("tiny_50hz", weights=path)`.

    Raises:
        FileNotFoundError: if audio is missing.
        ValueError: if the recipe does not match the audio or the number of processes, or the folder
            contains the state of another recipe.
        Diverged: if gradients are no longer finite.
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
