"""One audio file of a set: its header, its samples and the metadata of its content."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from neuralcodec.core import audio

_log = logging.getLogger(__name__)


def _mixed(wav: Tensor, path: Path, *, asked: bool) -> Tensor:
    """Mix `[C, T]` down to `[1, T]`, with a note if it was not `asked` for and channels differ."""
    try:
        mix = audio.mix_down(wav)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not (asked or torch.equal(wav, wav[:1].expand_as(wav))):
        loss = audio.mix_loss_db(wav)
        audio.note(path, f"{wav.shape[0]} channels averaged to one, {loss:.1f} dB below them")
    return mix


def _with_channels(wav: Tensor, path: Path, channels: int | Literal["keep"] | None) -> Tensor:
    have = wav.shape[0]
    if channels is None or channels == 1:
        return _mixed(wav, path, asked=channels == 1)
    if channels in ("keep", have):
        return wav
    if have == 1:
        return wav.repeat(int(channels), 1)
    raise ValueError(
        f"{path} has {have} channels, which cannot become {channels}; read it with channels=1, "
        f"{have} or 'keep'"
    )


@dataclass(frozen=True)
class Clip:
    """One audio file of a set.

    Attributes:
        name: unique in its set: the path relative to the set's folder, with forward slashes. A byte
            of a file name that is not UTF-8 is escaped, see `neuralcodec.core.names.printable`.
        path: the file.
        kind: one of `KINDS`.
        transcript: the words that are spoken, "" if not known.
        speaker: the speaker, "" if not known.
    """

    name: str
    path: Path
    kind: str = "unknown"
    transcript: str = ""
    speaker: str = ""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the file in Hz, read from its header."""
        return audio.info(self.path).sample_rate

    @property
    def channels(self) -> int:
        """Number of channels of the file, read from its header."""
        return audio.info(self.path).channels

    @property
    def duration(self) -> float:
        """Length in seconds, read from the header; a file whose header has none is decoded."""
        header = audio.info(self.path)
        if header.num_samples is not None:
            return header.num_samples / header.sample_rate
        wav, sample_rate = audio.read(self.path)
        return wav.shape[-1] / sample_rate

    def read(
        self, sample_rate: int | None = None, *, channels: int | Literal["keep"] | None = None
    ) -> Tensor:
        """Read the clip, by default as mono.

        Several channels are averaged, with an `AudioWarning` once per clip and process unless the
        channels are equal or `channels` asks for it. Channels that cancel are an error.

        Lossy files, float files and resampling may give peaks beyond ±1, which codecs and
        converters would clip. Such a clip is scaled down to a peak of 1, which this module logs at
        level INFO. No other clip is scaled.

        Args:
            sample_rate: Hz to resample to; None for the rate of the file.
            channels: how many are wanted: None or 1 for the average of all, "keep" for those of the
                file, or a number: a mono clip is repeated to it, any other must have it.

        Returns:
            wav `[channels, T]` float32 in [-1, 1].

        Raises:
            FileNotFoundError: if the file does not exist.
            OSError: if the file may not be read.
            ValueError: if the file is not audio, is empty, is damaged, or holds NaN or infinite
                samples; if its channels cancel, or cannot become as many as wanted; or if
                `sample_rate` or `channels` is out of range.
        """
        if channels not in (None, "keep") and (type(channels) is not int or channels < 1):
            raise ValueError(f"channels must be None, 'keep' or at least 1, got {channels!r}")
        wav, stored_rate = audio.read(self.path)
        wav = _with_channels(wav, self.path, channels)
        rate = stored_rate if sample_rate is None else sample_rate
        wav = audio.resample(wav, stored_rate, rate)
        peak = float(wav.abs().max())
        if peak > 1:
            _log.info("%s scaled down by its peak of %.4f at %d Hz", self.path, peak, rate)
            wav = wav / peak
        return wav

    def digest(self) -> str:
        """Return the first 16 hex digits of the SHA-256 of the file's bytes."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
