"""Conversion of a sweep's grid to jobs, in which points share encodes and fits.

A *setup* is a codec in one configuration, without the number of codebooks. A *point* is a setup
with a number of codebooks; it has a signature. A job scores all points of a setup on one clip, from
one encode if the codes are nested.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.loading import check_settings, find
from neuralcodec.core.registry import RVQ_SUFFIX, entry_of
from neuralcodec.data import Clip, clips
from neuralcodec.latent import requantized
from neuralcodec.sweep.config import Axes, Base, Experiment, Setting

SMALLEST_CODEBOOK = 2
DEFAULT_CODEBOOKS = (8,)
DEFAULT_CODEBOOK_SIZE = (1024,)


@dataclass(frozen=True)
class Fit:
    """The fit of one quantizer to the latents of a codec in one configuration.

    Attributes:
        codec: name of the latent codec.
        settings: its settings, sorted by name.
        codebook_size: V.
        num_codebooks: K, the largest number that the sweep asks for.
        seed: seed of the k-means initialisation.
        audio: clips to fit on.
        audio_digest: hex digest of their content.
    """

    codec: str
    settings: tuple[tuple[str, Setting], ...]
    codebook_size: int
    num_codebooks: int
    seed: int
    audio: tuple[Clip, ...]
    audio_digest: str

    @property
    def signature(self) -> str:
        """16 hex digits of everything in a plan that determines the codebooks, K included.

        The codec's weights are not included, since a plan does not load codecs.
        """
        return _digest([*_described(self), self.num_codebooks, self.seed, self.audio_digest], 16)


@dataclass(frozen=True)
class Setup:
    """A codec in one configuration, at several numbers of codebooks.

    Attributes:
        codec: name of the codec, as in the sweep file.
        settings: its settings, sorted by name.
        codebook_size: V of our quantizer; None for a codec with its own codebooks.
        depths: numbers of codebooks in ascending order; (None,) for all that the codec has.
        fit: fit of our quantizer; None for a codec with its own codebooks.
    """

    codec: str
    settings: tuple[tuple[str, Setting], ...]
    codebook_size: int | None
    depths: tuple[int | None, ...]
    fit: Fit | None


class Key(NamedTuple):
    """The key of a row: a point, and a clip with the digest of its content and kind."""

    point: str
    clip: str
    clip_digest: str


@dataclass(frozen=True)
class Job:
    """One setup on one clip.

    Attributes:
        setup: setup to run.
        clip: clip to run it on.
        clip_digest: hex digest of its content and kind; if either changes, the clip is scored
            again.
        base: settings that all points of the sweep share.
        points: the points to score, as pairs of number of codebooks and signature.
    """

    setup: Setup
    clip: Clip
    clip_digest: str
    base: Base
    points: tuple[tuple[int | None, str], ...]

    def key(self, point: str) -> "Key":
        """Return the key of the row of one of the points."""
        return Key(point, self.clip.name, self.clip_digest)


@dataclass(frozen=True)
class Plan:
    """All jobs of a sweep, in the order of its file.

    Attributes:
        experiment: the sweep file.
        jobs: its jobs.
        labels: name under which each point is plotted, by signature.
    """

    experiment: Experiment
    jobs: tuple[Job, ...]
    labels: Mapping[str, str]

    @property
    def keys(self) -> list[Key]:
        """The keys of all rows, in order."""
        return [job.key(point) for job in self.jobs for _, point in job.points]

    def without(self, done: Set[Key]) -> "Plan":
        """Return the plan without the rows in `done`, and without jobs that have no other rows."""
        jobs = []
        for job in self.jobs:
            left = tuple(pair for pair in job.points if job.key(pair[1]) not in done)
            if left:
                jobs.append(replace(job, points=left))
        return replace(self, jobs=tuple(jobs))


def _digest(value: Any, length: int) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _described(part: Fit | Setup) -> list[Any]:
    return [part.codec, dict(part.settings), part.codebook_size]


def _is_requantized(name: str) -> bool:
    """Return whether the sweep uses our quantizer: "+rvq" is named, or the codec has none."""
    if name.endswith(RVQ_SUFFIX):
        return True
    facts = entry_of(name).facts
    if facts is not None:  # importing a package takes seconds
        return not facts.codebook_sizes
    try:
        return not find(name).has_codebooks
    except ImportError:  # it cannot run here; its rows will state why
        return False


def _gives_latents(name: str) -> bool:
    facts = entry_of(name).facts
    return issubclass(find(name), LatentCodec) if facts is None else facts.dim is not None


def _check(name: str, axes: Axes, own_codebooks: bool) -> None:
    """Raise ValueError if a codec does not have a setting in its axes, or takes no such size."""
    latent = name.removesuffix(RVQ_SUFFIX)
    ours = () if own_codebooks else (*requantized.RETIMING, requantized.BEAM)
    settings = set(axes.settings) - set(ours)
    try:
        if settings:  # reading them imports the codec's package, which takes seconds
            check_settings(latent, settings)
        gives_latents = own_codebooks or _gives_latents(latent)
    except ImportError:  # it cannot run here; its rows will state why
        return
    if not gives_latents:
        raise ValueError(f"grid.{name}: codec {latent!r} gives no latents to quantize")
    if own_codebooks and axes.codebook_size:
        raise ValueError(
            f"grid.{name}.codebook_size: this codec has its own codebooks; "
            f"only latent codecs, and names with {RVQ_SUFFIX!r}, take a size"
        )
    for size in axes.codebook_size:
        if size < SMALLEST_CODEBOOK:
            raise ValueError(
                f"grid.{name}.codebook_size: must be at least {SMALLEST_CODEBOOK}, got {size}"
            )


def _combinations(axes: Axes) -> Iterator[tuple[tuple[str, Setting], ...]]:
    names = sorted(axes.settings)
    for values in itertools.product(*(axes.settings[name] for name in names)):
        yield tuple(zip(names, values, strict=True))


def _setups(
    name: str, axes: Axes, seed: int, fit_audio: tuple[Clip, ...], digest: str
) -> Iterator[Setup]:
    own_codebooks = not _is_requantized(name)
    _check(name, axes, own_codebooks)
    depths = tuple(sorted(axes.num_codebooks))
    for settings in _combinations(axes):
        if own_codebooks:
            yield Setup(name, settings, None, depths or (None,), None)
            continue
        latent, deepest = name.removesuffix(RVQ_SUFFIX), max(depths or DEFAULT_CODEBOOKS)
        for size in axes.codebook_size or DEFAULT_CODEBOOK_SIZE:
            fitted = tuple(pair for pair in settings if pair[0] != requantized.BEAM)
            fit = Fit(latent, fitted, size, deepest, seed, fit_audio, digest)
            yield Setup(name, settings, size, depths or DEFAULT_CODEBOOKS, fit)


def _point(setup: Setup, depth: int | None, base: Base) -> str:
    """Return the signature of a point: 16 hex digits of a hash of its sorted settings.

    Among a million points two have the same signature with a probability of 3e-8; with 8 digits,
    as in results of earlier versions, a collision is practically certain.
    """
    fitted = [setup.fit.seed, setup.fit.audio_digest] if setup.fit else None
    return _digest([_described(setup), depth, fitted, base.sample_rate, sorted(base.metrics)], 16)


def make(
    experiment: Experiment,
    *,
    audio: str | Path | None = None,
    fit_audio: str | Path | None = None,
    kind: str | None = None,
) -> Plan:
    """Return all jobs of a sweep.

    Args:
        experiment: the validated sweep file.
        audio: clips to score, instead of the file's `base.audio`.
        fit_audio: clips to fit on, instead of the file's `base.fit_audio`.
        kind: kind of the clips to score whose kind is unknown.

    Raises:
        ValueError: if a codec has no such setting, a size is out of range, a set of clips is empty,
            a clip is both fitted on and scored, or two tables of the grid have a point in common.
        FileNotFoundError: if there is no such audio.
    """
    base = experiment.base
    scored = clips(audio if audio is not None else base.audio, kind=kind)
    scored = [clip for clip in scored if clip.kind in base.kinds]
    if not scored:
        raise ValueError(
            f"no clip to score is of kind {', '.join(base.kinds)}; --kind, or a manifest, says "
            f"what they are"
        )
    needs_fit = any(_is_requantized(name) for name in experiment.grid)
    fitted = clips(fit_audio if fit_audio is not None else base.fit_audio) if needs_fit else []
    fit_digests = [clip.digest() for clip in fitted]
    fitted_on = {digest: clip.name for digest, clip in zip(fit_digests, fitted, strict=True)}
    digests = {}
    for clip in scored:
        content = clip.digest()
        if content in fitted_on:
            raise ValueError(
                f"clip {clip.name} is also fitted on, as {fitted_on[content]}: "
                f"scores on it would flatter"
            )
        digests[clip.name] = _digest([content, clip.kind], 16)
    jobs: list[Job] = []
    labels: dict[str, str] = {}
    tables = [(name, axes) for name, several in experiment.grid.items() for axes in several]
    for name, axes in tables:
        for setup in _setups(name, axes, base.seed, tuple(fitted), _digest(fit_digests, 16)):
            points = tuple((depth, _point(setup, depth, base)) for depth in setup.depths)
            if not labels.keys().isdisjoint(point for _, point in points):
                raise ValueError(f"grid.{name}: two of its tables have a point in common")
            labels |= {point: axes.label or name for _, point in points}
            jobs += [Job(setup, clip, digests[clip.name], base, points) for clip in scored]
    return Plan(experiment, tuple(jobs), labels)
