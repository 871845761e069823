"""The TOML file of a training: read, and checked before anything runs."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from neuralcodec.core import settings_file
from neuralcodec.core.files import expanded
from neuralcodec.core.names import unknown
from neuralcodec.quantize.gradient import Gradient
from neuralcodec.tiny.model import TinyConfig
from neuralcodec.tiny.training.corpus import Augmentation, Source
from neuralcodec.tiny.training.losses import ENVELOPE_SECONDS, LOSSES


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Table):
    """What is heard.

    Attributes:
        sources: sets of recordings, see `corpus.Source`.
        seconds: of a crop; whole latents, so a multiple of 1 / frame_rate.
        batch: crops a step, over all processes.
        held_out: share of the speakers that are kept for validation.
        validation_clips: of them that are scored, one a speaker in turn.
        validation_seconds: of each at most.
        memory_mib: of clips kept in memory, a process.
        augmentation: see `corpus.Augmentation`.
    """

    sources: tuple[Source, ...] = Field(min_length=1)
    seconds: float = Field(default=1.28, gt=0)
    batch: int = Field(default=16, ge=1)
    held_out: float = Field(default=0.02, ge=0, lt=1)
    validation_clips: int = Field(default=12, ge=0)
    validation_seconds: float = Field(default=6.0, gt=0)
    memory_mib: int = Field(default=2048, ge=0)
    augmentation: Augmentation = Augmentation()


class Schedule(_Table):
    """What happens when, in steps.

    A training has three phases. First the networks learn without a quantizer, with noise in its
    place, so that latents spread over what is worth its bits. From `quantize_from` on codebooks,
    begun by k-means, learn with them. From `freeze_from` on the encoder stays as it is, the
    codebooks are fitted anew on its latents, with beams, and the decoder learns to make the best of
    them.

    Attributes:
        steps: in all.
        quantize_from: first step with a quantizer.
        freeze_from: first step with a frozen encoder and codebooks; None: never.
        warmup: steps in which the learning rate rises to `learning_rate`.
        optimizer: "adamw" for all, or "muon" for the matrices inside, see `optimizers`; its steps
            take longer.
        learning_rate: from which a cosine falls to a hundredth of it.
        weight_decay: of matrices.
        clip: largest norm of the gradient, a larger one is scaled down to it.
        average: decay of the moving average of the weights, which is what is kept.
    """

    steps: int = Field(ge=1)
    quantize_from: int = Field(default=0, ge=0)
    freeze_from: int | None = Field(default=None, ge=0)
    warmup: int = Field(default=200, ge=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=5.0, gt=0)
    average: float = Field(default=0.999, ge=0, lt=1)


class Quantizer(_Table):
    """How codebooks learn, see `neuralcodec.quantize.Training`.

    Attributes:
        noise: while there is no quantizer, as much noise is added to the latents as one would:
            squared error over variance, drawn for each crop from this range on a logarithmic
            scale. See `trainer.add_noise`.
        dropout: chance that a crop uses a random number of codebooks instead of all.
        gradient: what the encoder is told.
        decay: of the moving averages.
        commitment: weight of the commitment loss, to a reconstruction gradient of norm 1 a crop.
        fit_seconds: of audio that the codebooks begin with, and are fitted on when frozen.
        beam_width: of the codes that the decoder learns from when frozen.
    """

    noise: tuple[float, float] = (0.03, 0.5)
    dropout: float = Field(default=0.5, ge=0, le=1)
    gradient: Gradient = "straight_through"
    decay: float = Field(default=0.99, ge=0, lt=1)
    commitment: float = Field(default=1.0, ge=0)
    fit_seconds: float = Field(default=600.0, gt=0)
    beam_width: int = Field(default=4, ge=1)

    @field_validator("noise")
    @classmethod
    def _range(cls, noise: tuple[float, float]) -> tuple[float, float]:
        if not (noise == (0, 0) or 0 < noise[0] <= noise[1]):
            raise ValueError(f"must be a range above 0, or [0, 0] for none, got {[*noise]}")
        return noise


class Adversary(_Table):
    """A discriminator; without this table there is none.

    Attributes:
        start: first step with it.
        channels: of its layers.
        learning_rate: of its AdamW.
        weight: of the adversarial loss among the losses.
        feature_weight: of feature matching.
    """

    start: int = Field(default=0, ge=0)
    channels: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    weight: float = Field(default=1.0, gt=0)
    feature_weight: float = Field(default=1.0, gt=0)


class Records(_Table):
    """What is written, and how often, in steps.

    Attributes:
        log_every: a line of means into log.csv.
        validate_every: scores of the validation clips into validation.csv; 0: at the end only.
        save_every: the state to go on from.
        tensorboard: write event files too, if the package is there.
    """

    log_every: int = Field(default=50, ge=1)
    validate_every: int = Field(default=0, ge=0)
    save_every: int = Field(default=500, ge=1)
    tensorboard: bool = False


class Recipe(_Table):
    """All that decides a training.

    Attributes:
        name: of the model that comes out.
        seed: of the weights, the data and the quantizer.
        model: see `model.TinyConfig`.
        data: see `Data`.
        schedule: see `Schedule`.
        losses: weights by name of `losses.LOSSES`.
        quantizer: see `Quantizer`.
        adversary: see `Adversary`.
        records: see `Records`.
        begin_with: path of a tiny model of which all weights that fit are taken; "" for none.
        precision: of the network's products; sums, losses and codebooks stay float32.
        device: "auto" takes a GPU if there is one.
        compile: compile the networks with torch.compile, which needs a C++ compiler.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    seed: int = Field(default=0, ge=0)
    model: TinyConfig = TinyConfig()
    data: Data
    schedule: Schedule
    losses: dict[str, float] = Field(default_factory=lambda: {"mel": 1.0, "complex": 1.0})
    quantizer: Quantizer = Quantizer()
    adversary: Adversary | None = None
    records: Records = Records()
    begin_with: str = ""
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    compile: bool = False

    @field_validator("begin_with")
    @classmethod
    def _expand(cls, path: str) -> str:
        return str(expanded(path)) if path else ""

    @field_validator("losses")
    @classmethod
    def _known(cls, losses: dict[str, float]) -> dict[str, float]:
        for name, weight in losses.items():
            if name not in LOSSES:
                raise unknown("loss", name, LOSSES)
            if not weight > 0:
                raise ValueError(f"{name} must have a weight above 0, got {weight}")
        if not losses:
            raise ValueError(f"must name at least one of {', '.join(LOSSES)}")
        return losses

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        frames = self.data.seconds * self.model.frame_rate
        if abs(frames - round(frames)) > 1e-6:
            raise ValueError(
                f"data.seconds must be whole latents of {1 / self.model.frame_rate:g} s, "
                f"got {self.data.seconds}"
            )
        frozen = self.schedule.freeze_from
        if frozen is not None and frozen < self.schedule.quantize_from:
            raise ValueError(
                f"schedule.freeze_from must not be before quantize_from, "
                f"got {frozen} and {self.schedule.quantize_from}"
            )
        unseen = frozen is None or frozen >= self.schedule.steps
        if self.quantizer.gradient == "noise_substitution" and unseen:
            raise ValueError(
                f"quantizer.gradient 'noise_substitution' needs a schedule.freeze_from before step "
                f"{self.schedule.steps}, or the decoder never sees codes, got {frozen}"
            )
        if "envelope" in self.losses and self.data.seconds < ENVELOPE_SECONDS:
            raise ValueError(
                f"losses.envelope needs data.seconds of at least {ENVELOPE_SECONDS:g}, "
                f"got {self.data.seconds}"
            )
        return self


def read(path: str | Path) -> Recipe:
    """Read and check a training file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no TOML, or a key or value is not allowed.
    """
    return settings_file.read(path, Recipe, "training")
