"""The TOML file of a training run, validated before anything runs."""

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
    """Training and validation data.

    Attributes:
        sources: sets of recordings; see `corpus.Source`.
        seconds: duration of a crop; a multiple of 1 / frame_rate, so that it is whole latents.
        batch: crops per step, over all processes.
        held_out: fraction of the speakers that are held out for validation.
        validation_clips: number of held-out clips to score, chosen from each speaker in turn.
        validation_seconds: maximum duration that is scored per clip.
        memory_mib: memory for decoded clips per process, MiB.
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
    """Phases and learning rate, in steps.

    A training run has three phases. At first the networks train without a quantizer; noise replaces
    its error, so that the latents use only dimensions that are worth their bits. From
    `quantize_from` on the codebooks, initialised by k-means, train with the networks. From
    `freeze_from` on the encoder is frozen, the codebooks are fitted again to its latents with a
    beam search, and only the decoder continues to train.

    Attributes:
        steps: total number of steps.
        quantize_from: first step with a quantizer.
        freeze_from: first step with frozen encoder and codebooks; None: never.
        warmup: number of steps in which the learning rate rises linearly to `learning_rate`.
        optimizer: "adamw" for all parameters, or "muon" for the inner matrices (see `optimizers`),
            which takes longer per step.
        learning_rate: peak learning rate, from which it falls along a cosine to a hundredth.
        weight_decay: weight decay of the matrices.
        clip: maximum norm of the gradient; larger gradients are scaled down to it.
        average: decay per step of the moving average of the weights, which the model is saved from.
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
    """How the codebooks learn; see `neuralcodec.quantize.Learning`.

    Attributes:
        noise: before `quantize_from`, noise in place of the quantization error is added to the
            latents. Its power relative to their variance is drawn per crop from this range,
            uniformly on a logarithmic scale; [0, 0] disables it. See `trainer.add_noise`.
        dropout: probability that a crop uses a random number of codebooks instead of all.
        gradient: gradient estimator.
        decay: decay of the moving averages.
        commitment: weight of the commitment loss, relative to a reconstruction gradient of norm 1
            per crop.
        fit_seconds: duration of the audio on which codebooks are initialised and later fitted.
        beam_width: beam width of the codes on which the decoder trains in the frozen phase.
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
    """Settings of the discriminator; without this table there is none.

    Attributes:
        start: first step with the discriminator.
        channels: number of channels of its layers.
        learning_rate: learning rate of its AdamW.
        weight: weight of the adversarial loss among the losses.
        feature_weight: weight of the feature matching loss.
    """

    start: int = Field(default=0, ge=0)
    channels: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    weight: float = Field(default=1.0, gt=0)
    feature_weight: float = Field(default=1.0, gt=0)


class Records(_Table):
    """What is written, and at which intervals in steps.

    Attributes:
        log_every: interval of the rows of means in log.csv.
        validate_every: interval of the scores in validation.csv; 0: only at the end.
        save_every: interval at which the state for resuming is saved.
        tensorboard: whether to write event files too, which needs the package tensorboard.
    """

    log_every: int = Field(default=50, ge=1)
    validate_every: int = Field(default=0, ge=0)
    save_every: int = Field(default=500, ge=1)
    tensorboard: bool = False


class Recipe(_Table):
    """All settings of a training run.

    Attributes:
        name: name of the resulting model.
        seed: random seed of the weights, the data and the quantizer.
        model: see `model.TinyConfig`.
        data: see `Data`.
        schedule: see `Schedule`.
        losses: weights of losses by their names in `losses.LOSSES`, above 0; only their ratios
            count.
        quantizer: see `Quantizer`.
        adversary: see `Adversary`.
        records: see `Records`.
        begin_with: path of a tiny model from which all matching weights are initialised; "" for
            none.
        precision: precision of the network's matrix products; losses and codebooks are always in
            float32.
        device: a torch device, or "auto" for a GPU if there is one.
        compile: whether to compile the networks with torch.compile, which needs a C++ compiler.
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
    """Read and validate a recipe.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML, or a key or value is not allowed.
    """
    return settings_file.read(path, Recipe, "training")
