"""The TOML file of a sweep, validated before anything runs."""

from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationInfo,
    field_validator,
)

from neuralcodec.core import settings_file
from neuralcodec.core.audio import KINDS
from neuralcodec.core.names import unknown
from neuralcodec.core.registry import RVQ_SUFFIX, entry_of
from neuralcodec.metrics import DEFAULT, find

Setting = bool | int | float | str


class Base(BaseModel):
    """Settings that all points of a sweep share.

    Attributes:
        audio: clips to score: a source that `neuralcodec.data.clips` accepts.
        kinds: kinds of clips to score; clips of other kinds are left out.
        fit_audio: clips on which quantizers are fitted; it must not contain a clip to score.
        metrics: names from `neuralcodec.metrics.METRICS`.
        sample_rate: sample rate in Hz at which estimates are compared with their clips, 8000 to
            192000; wideband PESQ needs at least 16000.
        seed: random seed of the fitting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    audio: str = "starter:test"
    kinds: tuple[str, ...] = KINDS
    fit_audio: str = "starter:fit"
    metrics: tuple[str, ...] = DEFAULT
    sample_rate: StrictInt = Field(default=16000, ge=8000, le=192000)
    seed: StrictInt = Field(default=0, ge=0)

    @field_validator("audio", "fit_audio")
    @classmethod
    def _named(cls, source: str) -> str:
        if not source.strip():
            raise ValueError(f"must be a folder, a manifest or 'starter', got {source!r}")
        return source

    @field_validator("metrics", "kinds")
    @classmethod
    def _known(cls, names: tuple[str, ...], field: ValidationInfo) -> tuple[str, ...]:
        for name in names:
            if field.field_name == "metrics":
                find(name)
            elif name not in KINDS:
                raise unknown("kind", name, KINDS)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"must name {field.field_name}, each once, got {[*names]}")
        return names


class Axes(BaseModel):
    """The axes of one codec, each a list of values; its points are all combinations.

    Attributes:
        num_codebooks: numbers of codebooks, K. One encode serves all of them, unless the codes come
            from a beam search, which are not nested. Default: all codebooks of the codec, or 8 for
            our quantizer.
        codebook_size: vocabulary sizes, V, for codecs whose latents our quantizer encodes; default
            1024.
        settings: settings of the codec, by name.
        label: name under which the points are plotted; None for the name of the codec.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_codebooks: tuple[StrictInt, ...] = ()
    codebook_size: tuple[StrictInt, ...] = ()
    settings: dict[str, tuple[Setting, ...]] = Field(default_factory=dict)
    label: str | None = None

    @field_validator("num_codebooks", "codebook_size")
    @classmethod
    def _positive(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        for value in values:
            if value < 1:
                raise ValueError(f"must be at least 1, got {value}")
        return values


class Experiment(BaseModel):
    """A sweep: its name, the question it answers, the shared settings and the grid.

    The grid has one or several sets of axes per codec; the points of all of them are swept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    question: str = ""
    base: Base = Base()
    grid: dict[str, tuple[Axes, ...]]

    @field_validator("grid", mode="before")
    @classmethod
    def _split_axes(cls, grid: Any) -> Any:
        """Convert `{axis: value or list}`, or a list of these, into `Axes` for each codec."""
        if not isinstance(grid, dict) or not grid:
            raise ValueError("must have a table [grid.CODEC] for at least one codec")
        return {
            name: [_axes(name, table) for table in (given if isinstance(given, list) else [given])]
            for name, given in grid.items()
        }


def _values(axis: str, value: Any) -> tuple[Setting, ...]:
    """Return the values of an axis; 25.0 becomes 25, so that both denote the same point."""
    values = value if isinstance(value, list) else [value]
    for one in values:
        if not isinstance(one, Setting):
            raise ValueError(f"{axis} must have numbers, strings or booleans as values, got {one}")
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{axis} must have values, each once, got {values}")
    return tuple(int(v) if isinstance(v, float) and v.is_integer() else v for v in values)


def _axes(codec: str, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ValueError(f"{codec} must be a table [grid.{codec}], got {table!r}")
    entry_of(codec.removesuffix(RVQ_SUFFIX))
    label = table.get("label")
    if not isinstance(label, str | None) or label == "":
        raise ValueError(f"{codec}.label must be a text that is not empty, got {label!r}")
    axes = {axis: value for axis, value in table.items() if axis != "label"}
    lists = {axis: _values(f"{codec}.{axis}", value) for axis, value in axes.items()}
    sizes = {axis: lists.pop(axis) for axis in ("num_codebooks", "codebook_size") if axis in lists}
    return {**sizes, "settings": lists, "label": label}


def read(path: str | Path) -> Experiment:
    """Read and validate a sweep file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML, or a key or value is not allowed; the message gives the key
            and the nearest known one.
    """
    return settings_file.read(path, Experiment, "sweep")
