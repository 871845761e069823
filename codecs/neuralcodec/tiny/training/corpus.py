"""Recordings to train on: crops of them, drawn anew for each step and the same for each resume.

A batch is a function of the seed and the step alone, so that a training that was stopped goes on
with the very batches it would have had.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from neuralcodec.core import torchaudio_guard
from neuralcodec.core.files import expanded
from neuralcodec.core.names import printable, unknown
from neuralcodec.data import Clip, clips
from neuralcodec.tiny.model import SAMPLE_RATE

_RETRIES = 20  # draws of another place where a crop is silent
_SILENT = 1e-3  # peak of a crop below which it teaches nothing
_DATASET = "torchaudio:"
_SPEAKER = {  # where the metadata of datasets have the speaker; the others don't tell
    "LIBRISPEECH": 3,
    "SPEECHCOMMANDS": 3,
    "FluentSpeechCommands": 3,
    "VoxCeleb1Identification": 2,
}


@dataclass(frozen=True)
class Source:
    """A set of recordings and its part in the training.

    Attributes:
        audio: what `neuralcodec.data.clips` takes, or "torchaudio:NAME:ROOT" for a dataset of
            `torchaudio.datasets` that lies in the folder ROOT; NAME is one of LIBRISPEECH,
            SPEECHCOMMANDS, FluentSpeechCommands and VoxCeleb1Identification.
        weight: how much of the training it is, to the other sources; 0 or less: by its length.
        kinds: of the clips that are heard; empty for all.
        exclude_speakers: who is left out.
        speaker_level: which folder within a plain folder of audio bears the name of the speaker,
            1 for the outermost, as of VCTK's wav48 or LibriTTS's subsets; 0: none does.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    audio: str
    weight: float = 0.0
    kinds: tuple[str, ...] = ()
    exclude_speakers: tuple[str, ...] = ()
    speaker_level: int = 0

    def __post_init__(self) -> None:
        if not self.audio.strip():
            raise ValueError(f"audio must be a folder, a manifest or 'starter', got {self.audio!r}")


@dataclass(frozen=True)
class Augmentation:
    """What is done to a crop before it is heard.

    Attributes:
        peak: range of the peak that it is scaled to, in 0..1; the lower end is drawn as often as
            the upper, on a logarithmic scale.
        keep_level: chance that it keeps the level it has.
        mix: chance that another crop is added to it, 5 to 25 dB below.
        filter: chance that it goes through a random gentle equalizer.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    peak: tuple[float, float] = (0.05, 0.95)
    keep_level: float = 0.3
    mix: float = 0.1
    filter: float = 0.2

    def __post_init__(self) -> None:
        low, high = self.peak
        if not 0 < low <= high <= 1:
            raise ValueError(f"peak must be a range in 0 < low <= high <= 1, got {[*self.peak]}")
        for name in ("keep_level", "mix", "filter"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)}")


def _dataset_clips(source: str) -> list[Clip]:
    """List the recordings of a dataset of torchaudio."""
    name, _, root = source.removeprefix(_DATASET).partition(":")
    if name not in _SPEAKER or not root:
        reason = unknown("NAME", name, _SPEAKER) if name not in _SPEAKER else "ROOT is missing"
        raise ValueError(f"{source!r} must be {_DATASET}NAME:ROOT: {reason}")
    dataset = getattr(torchaudio_guard.load().datasets, name)(expanded(root))
    found = []
    for index in range(len(dataset)):
        metadata = dataset.get_metadata(index)
        # The path is relative to what a dataset calls its archive or path, inside the root.
        folder = getattr(dataset, "_archive", getattr(dataset, "_path", root))
        path = Path(folder, metadata[0])
        speaker = str(metadata[_SPEAKER[name]])
        found.append(Clip(printable(metadata[0]), path, "speech", speaker=speaker))
    return found


def _with_speaker(clip: Clip, level: int) -> Clip:
    folders = clip.name.split("/")[:-1]
    if not 1 <= level <= len(folders):
        raise ValueError(f"speaker_level {level} is no folder around {clip.name}")
    return replace(clip, speaker=folders[level - 1])


def find(source: Source) -> list[Clip]:
    """List the recordings of a source.

    Raises:
        FileNotFoundError: if the source is not there.
        ValueError: if nothing is left of it, or it is no dataset.
    """
    if source.audio.startswith(_DATASET):
        found = _dataset_clips(source.audio)
    else:
        found = clips(source.audio)
    if source.speaker_level:
        found = [_with_speaker(clip, source.speaker_level) for clip in found]
    kept = [
        clip
        for clip in found
        if clip.speaker not in source.exclude_speakers
        and (not source.kinds or clip.kind in source.kinds)
    ]
    if not kept:
        raise ValueError(
            f"nothing is left of {source.audio} with kinds {[*source.kinds]} and without the "
            f"speakers {[*source.exclude_speakers]}"
        )
    return kept


def is_held_out(clip: Clip, share: float) -> bool:
    """Tell whether a clip is for validation: all clips of a speaker are, or none.

    A clip without a speaker is one of its own. The choice depends on the name alone, so that it is
    the same whatever else is in the set.
    """
    name = clip.speaker or clip.name
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


class Corpus:
    """Sources as one stream of crops.

    Clips are read when they are first drawn and kept in memory as 16 bit samples up to
    `memory_mib`; what goes beyond is read again.

    Args:
        sources: each with at least one clip.
        seconds: of a crop.
        augmentation: of the crops.
        held_out: share of the speakers whose clips are left for validation.
        memory_mib: of clips in memory.

    Attributes:
        held_out: the clips for validation, none of whose speakers is in a crop.
        seconds: of audio to draw from.

    Raises:
        ValueError: if a source is empty, or has no clip as long as a tenth of a crop.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        seconds: float,
        augmentation: Augmentation,
        held_out: float,
        memory_mib: int = 2048,
    ) -> None:
        self.length = round(seconds * SAMPLE_RATE)
        self._augmentation = augmentation
        self._free = memory_mib * 2**20
        self._kept: dict[Path, np.ndarray] = {}
        self.held_out: list[Clip] = []
        self._clips: list[list[Clip]] = []
        self._chances: list[np.ndarray] = []
        weights, lengths = [], []
        for source in sources:
            found = find(source)
            self.held_out += [clip for clip in found if is_held_out(clip, held_out)]
            rest = [clip for clip in found if not is_held_out(clip, held_out)]
            each = np.array([clip.duration for clip in rest])
            if not (each >= seconds / 10).any():
                raise ValueError(f"{source.audio} has no clip of {seconds / 10:g} s to train on")
            each[each < seconds / 10] = 0
            self._clips.append(rest)
            self._chances.append(np.cumsum(each) / each.sum())
            lengths.append(each.sum())
            weights.append(source.weight)
        self.seconds = float(sum(lengths))
        shares = np.array([w if w > 0 else n for w, n in zip(weights, lengths, strict=True)])
        self._shares = np.cumsum(shares) / shares.sum()

    def _read(self, clip: Clip) -> np.ndarray:
        if clip.path in self._kept:
            return self._kept[clip.path]
        wav = clip.read(SAMPLE_RATE)
        samples: np.ndarray = (wav[0].numpy() * 32767).round().astype(np.int16)
        if samples.nbytes <= self._free:
            self._free -= samples.nbytes
            self._kept[clip.path] = samples
        return samples

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a crop `[length]` float32 that is not silent; a shorter clip is padded."""
        for _ in range(_RETRIES):
            source = int(np.searchsorted(self._shares, rng.random(), side="right"))
            place = int(np.searchsorted(self._chances[source], rng.random(), side="right"))
            samples = self._read(self._clips[source][place])
            spare = len(samples) - self.length
            start = int(rng.integers(0, spare + 1)) if spare > 0 else 0
            crop = samples[start : start + self.length].astype(np.float32) / 32768
            if np.abs(crop).max() >= _SILENT:
                break
        if spare < 0:
            before = int(rng.integers(0, -spare + 1))
            crop = np.pad(crop, (before, -spare - before))
        return crop

    def _changed(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        options = self._augmentation
        if rng.random() < options.mix:
            other = self._crop(rng)
            below = 10 ** (-rng.uniform(5, 25) / 20)
            scale = np.sqrt(np.square(crop).mean() / max(np.square(other).mean(), 1e-8))
            crop = crop + other * np.float32(min(scale, 100.0) * below)
        if rng.random() < options.filter:
            crop = _equalize(crop, rng)
        peak = max(float(np.abs(crop).max()), 1e-5)
        if rng.random() >= options.keep_level or peak > 1:
            low, high = (math.log(value) for value in options.peak)
            crop = crop * np.float32(math.exp(rng.uniform(low, high)) / peak)
        return crop.astype(np.float32)

    def batch(self, size: int, *key: int) -> Tensor:
        """Draw `size` crops, `[size, length]` float32; the same for the same `key` of numbers."""
        rng = np.random.default_rng(key)
        crops = [self._changed(self._crop(rng), rng) for _ in range(size)]
        return torch.from_numpy(np.stack(crops))


def _equalize(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change the spectrum gently: a random curve through six points, each within 6 dB."""
    spectrum = np.fft.rfft(crop)
    place = np.linspace(0, 1, len(spectrum)) ** 0.5
    gain = np.interp(place, np.linspace(0, 1, 6), rng.uniform(-6, 6, 6))
    return np.fft.irfft(spectrum * 10 ** (gain / 20), n=len(crop))
