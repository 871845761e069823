"""Training data: random crops of recordings, reproducible from the seed and the step.

A batch is a function of the seed and the step alone, so that a resumed training run sees the
batches that it would have seen without interruption.
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

_RETRIES = 20  # maximum number of draws to avoid a silent crop
_SILENT = 1e-3  # peak below which a crop counts as silent
_DATASET = "torchaudio:"
_SPEAKER = {  # index of the speaker in the metadata; other datasets do not provide it
    "LIBRISPEECH": 3,
    "SPEECHCOMMANDS": 3,
    "FluentSpeechCommands": 3,
    "VoxCeleb1Identification": 2,
}


@dataclass(frozen=True)
class Source:
    """A set of recordings and its share of the training data.

    Attributes:
        audio: a source that `neuralcodec.data.clips` accepts, or "torchaudio:NAME:ROOT" for a
            dataset of `torchaudio.datasets` in the folder ROOT; NAME is one of LIBRISPEECH,
            SPEECHCOMMANDS, FluentSpeechCommands and VoxCeleb1Identification.
        weight: weight among the sources in the draw of crops; 0 or less: its duration in seconds.
        kinds: kinds of clips to use; empty for all.
        exclude_speakers: speakers to leave out.
        speaker_level: for a folder of audio, the level of the sub-folder whose name is the speaker,
            1 for the outermost, as in VCTK's wav48 or LibriTTS's subsets; 0: none.
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
    """Augmentation of the crops.

    Attributes:
        peak: range of the peak that a crop is scaled to, in 0..1; it is drawn uniformly on a
            logarithmic scale.
        keep_level: probability that a crop keeps its level, unless its peak exceeds 1.
        mix: probability that another crop is added, 5 to 25 dB below.
        filter: probability that a random mild equaliser is applied.

    Raises:
        ValueError: if the peaks are not in 0 < low <= high <= 1, or a probability is not in 0..1.
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
    """Return the recordings of a dataset of torchaudio."""
    name, _, root = source.removeprefix(_DATASET).partition(":")
    if name not in _SPEAKER or not root:
        reason = unknown("NAME", name, _SPEAKER) if name not in _SPEAKER else "ROOT is missing"
        raise ValueError(f"{source!r} must be {_DATASET}NAME:ROOT: {reason}")
    dataset = getattr(torchaudio_guard.load().datasets, name)(expanded(root))
    found = []
    for index in range(len(dataset)):
        metadata = dataset.get_metadata(index)
        # The path is relative to the dataset's `_archive` or `_path`, inside the root.
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
    """Return the recordings of a source.

    Raises:
        FileNotFoundError: if the source does not exist.
        ValueError: if no recording remains, the dataset is not known, or `speaker_level` is not the
            level of a folder.
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
    """Return whether a clip is held out for validation.

    The result is the same for all clips of a speaker. A clip without a speaker counts as a speaker
    of its own. The choice depends on the name alone, so that it is the same whatever else the set
    contains.
    """
    name = clip.speaker or clip.name
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


class Corpus:
    """Several sources as one stream of random crops.

    Clips are read when they are first drawn, and kept in memory as 16-bit samples up to
    `memory_mib` in total; further clips are read each time.

    Args:
        sources: the sources, each with at least one clip.
        seconds: duration of a crop.
        augmentation: augmentation of the crops.
        held_out: fraction of the speakers that are held out for validation.
        memory_mib: memory for clips, MiB.

    Attributes:
        held_out: the clips for validation; none of their speakers occurs in a crop.
        seconds: total duration of the clips to draw from.

    Raises:
        FileNotFoundError: if a source does not exist.
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
        """Draw a crop `[length]` float32, zero-padded if the clip is shorter.

        Silent crops are drawn again, up to 20 times.
        """
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
        """Return `size` crops, `[size, length]` float32, determined by the numbers `key`."""
        rng = np.random.default_rng(key)
        crops = [self._changed(self._crop(rng), rng) for _ in range(size)]
        return torch.from_numpy(np.stack(crops))


def _equalize(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply a random mild equaliser: a gain curve through six points, each within 6 dB."""
    spectrum = np.fft.rfft(crop)
    place = np.linspace(0, 1, len(spectrum)) ** 0.5
    gain = np.interp(place, np.linspace(0, 1, 6), rng.uniform(-6, 6, 6))
    return np.fft.irfft(spectrum * 10 ** (gain / 20), n=len(crop))
