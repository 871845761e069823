"""Decode audio files with libsndfile, and with FFmpeg (PyAV) those that libsndfile cannot read.

libsndfile is exact and fast for WAV and FLAC. FFmpeg knows AAC, MP4 and WebM, and it reads streams
whose header was written before their length was known: a FLAC whose STREAMINFO says 0 samples, a
WAV whose data chunk has size 0.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import av
import numpy as np
import soundfile
from av.container import InputContainer

_UNKNOWN = 2**40
"""Samples from which a count means "not known"; libsndfile then reports the largest number."""

_SHORTER = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)")
"""A line of libsndfile's log: a header promises so many bytes, and so many are in the file.

libsndfile returns no other sign that a WAV, RF64, W64, AIFF or AU file was cut off.
"""

_PLACEHOLDERS = (range(0x7EFFF000, 0x80001000), range(0xFFFFF000, 2**32), range(2**62, 2**64))
"""Sizes in bytes that streaming programs write because they do not know the length yet."""

_EXACT = {"aiff", "au", "caf", "flac", "w64", "wav", "wv"}
"""FFmpeg's names of formats whose header counts the samples."""

_ROUNDED = {"asf", "matroska", "mov", "webm"}
"""Those whose header has a duration. Of others, such as ADTS, FFmpeg estimates the duration."""

_NUMBERED = {"flac", "wv"}
"""Those that number their frames by sample and have checksums."""

_ROUNDING = 1e-7
"""Seconds, far less than a sample."""

_LOSSY = {"MP3", "OGG"}
"""libsndfile's names of formats that may count the encoder's delay and padding."""

_OPEN_END = "Last page lacks an end-of-stream bit"
"""A line of libsndfile's log for an Ogg file, whose header does not say how long it is."""

_MALFORMED = 3
"""libsndfile's code for a file of a known format whose parts do not fit together."""


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    Attributes:
        sample_rate: Hz.
        channels: how many.
        num_samples: per channel; None if the header does not say, as in a stream.
    """

    sample_rate: int
    channels: int
    num_samples: int | None


@dataclass(frozen=True)
class Decoded:
    """The samples of a file.

    Attributes:
        samples: `[C, T]` float32, as stored.
        sample_rate: Hz.
        note: why the samples may not be all there were, "" for a whole file.
    """

    samples: np.ndarray
    sample_rate: int
    note: str


def _ends_early(frames: int, promised: float | None, sample_rate: int, slack: float) -> str:
    """Return a note if a file lacks more than `slack` seconds of what its header promises."""
    if promised is None or promised - frames <= slack * sample_rate:
        return ""
    return (
        f"ends before its header says: {promised / sample_rate:.3f} s promised, "
        f"{frames / sample_rate:.3f} s found"
    )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in every error of the readers."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"not enough memory to read {path}: {error}") from error
    except (soundfile.SoundFileError, av.FFmpegError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read {path} as audio: {reason}") from error


def native(path: Path) -> str | bytes:
    """Return a path as libsndfile takes it, which need not be UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _open_soundfile(path: Path) -> soundfile.SoundFile:
    return soundfile.SoundFile(native(path))


def _open_av(path: Path) -> InputContainer:
    # Absolute, for FFmpeg takes "a:b.wav" as the protocol "a". Tags may be in any encoding.
    return av.open(str(path.absolute()), metadata_errors="replace")


def _is_wav_without_samples(file: IO[bytes]) -> bool:
    """Return whether a WAV whose data chunk says 0 is empty: chunks follow up to its very end.

    In a stream the samples follow instead.
    """
    end = file.seek(0, os.SEEK_END)
    place = 12  # after "RIFF", size, "WAVE"
    while place + 8 <= end:
        file.seek(place)
        name, size = file.read(4), int.from_bytes(file.read(4), "little")
        if not (name.isascii() and name.decode().isprintable()):
            return False
        size = 0 if name == b"data" else size
        place += 8 + size + size % 2
    return place in (end, end + 1)  # a last chunk of odd size may lack its padding


def _is_counted(file: soundfile.SoundFile, path: Path) -> bool:
    """Return whether libsndfile knows how many samples there are; if not, FFmpeg may."""
    if file.frames == 0 and file.format in {"WAV", "WAVEX"}:
        with path.open("rb") as raw:
            return _is_wav_without_samples(raw)
    return bool(0 < file.frames < _UNKNOWN)


def _promised_by_soundfile(file: soundfile.SoundFile) -> float | None:
    """Return how many samples the header promises, of which libsndfile counts those in the file."""
    if not 0 < file.frames < _UNKNOWN:
        return None
    frames = float(file.frames)
    for line in file.extra_info.splitlines():
        found = _SHORTER.match(line)
        if found:
            promised, there = map(int, found.groups())
            if there and promised > there and not any(promised in sizes for sizes in _PLACEHOLDERS):
                frames = file.frames * promised / there
    return frames


def _promised_by_av(container: InputContainer) -> tuple[float | None, float]:
    """Return how many seconds the header promises, and by how many it may be wrong."""
    names, stream = set(container.format.name.split(",")), container.streams.audio[0]
    slack = 0.01 if names & _EXACT else 0.1
    if not names & (_EXACT | _ROUNDED):
        return None, slack
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base), slack
    if container.duration is not None and len(container.streams) == 1:  # else it may be a video's
        return container.duration / av.time_base, slack
    return None, slack


def _check_av(container: InputContainer) -> None:
    if not container.streams.audio:
        raise ValueError("it has no audio stream")


def _decode_frames(container: InputContainer) -> tuple[list[av.AudioFrame], bool]:
    """Decode what can be decoded, and return whether the start or the end is damaged.

    FFmpeg reports some damaged packets and drops others. Of formats whose frames are numbered by
    sample, checksums are checked, and a gap in the numbers shows what was dropped.

    Raises:
        ValueError: if something between is damaged.
    """
    stream = container.streams.audio[0]
    numbered = container.format.name in _NUMBERED
    if numbered:
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    resampler = av.AudioResampler(format="fltp")
    found: list[av.AudioFrame] = []
    start, seconds, late, damage = 0.0, 0.0, 0.0, None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError as error:
            damage = damage or error
            continue
        for frame in frames:
            if numbered and frame.time is not None:
                start = start if found else frame.time
                late = frame.time - start - seconds
            if damage is not None or late > _ROUNDING:
                raise ValueError(f"it is damaged after {seconds:.3f} s") from damage
            seconds += frame.samples / frame.sample_rate
            found += resampler.resample(frame)
    if abs(late) > _ROUNDING:
        raise ValueError(f"it is damaged: some of its first {seconds:.3f} s are missing")
    return found, damage is not None or start > 0


def _decode_av(path: Path, promised: float | None, *, malformed: bool) -> Decoded:
    with _open_av(path) as container:
        _check_av(container)
        frames, damaged = _decode_frames(container)
        if not frames:
            raise ValueError("its audio stream is empty")
        sample_rate = int(frames[0].sample_rate)
        samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
        seconds, slack = _promised_by_av(container)
    if promised is None and seconds is not None:
        promised = seconds * sample_rate
    count = samples.shape[1]
    note = _ends_early(count, promised, sample_rate, slack)
    if not note and (damaged or malformed):
        note = f"is damaged, malformed or cut off: {count / sample_rate:.3f} s could be read"
    return Decoded(samples.astype(np.float32, copy=False), sample_rate, note)


def _decode_soundfile(file: soundfile.SoundFile, promised: float | None) -> Decoded:
    samples = np.ascontiguousarray(file.read(dtype="float32", always_2d=True).T)
    sample_rate = int(file.samplerate)
    slack = 0.1 if file.format in _LOSSY else 0.01
    note = _ends_early(samples.shape[1], promised, sample_rate, slack)
    if not note and _OPEN_END in file.extra_info:
        note = (
            f"has no last page, so it may be cut off: {len(samples[0]) / sample_rate:.3f} s found"
        )
    return Decoded(samples, sample_rate, note)


def decode(path: Path) -> Decoded:
    """Decode a file whole.

    A file that was cut off gives the samples that are there, and a note. It counts as cut off if it
    lacks more than 10 ms of what its header promises, or 100 ms where the header may count the
    delay and the padding of a lossy encoder.

    Raises:
        ValueError: if it is no audio, or is damaged before its end; the message names the file.
        MemoryError: if it does not fit into memory; likewise.
    """
    promised, malformed = None, False
    with _named(path):
        try:
            with _open_soundfile(path) as file:
                promised = _promised_by_soundfile(file)
                if _is_counted(file, path):
                    return _decode_soundfile(file, promised)
        except soundfile.LibsndfileError as error:
            malformed = error.code == _MALFORMED
        except TypeError:  # a .raw has no header
            pass
        return _decode_av(path, promised, malformed=malformed)


def header(path: Path) -> AudioInfo:
    """Read the header of a file, and no samples.

    Raises:
        ValueError: if it is no audio; the message names the file.
    """
    with _named(path):
        try:
            with _open_soundfile(path) as file:
                if _is_counted(file, path):
                    return AudioInfo(int(file.samplerate), file.channels, file.frames)
        except (soundfile.LibsndfileError, TypeError):
            pass
        with _open_av(path) as container:
            _check_av(container)
            stream = container.streams.audio[0]
            seconds, _ = _promised_by_av(container)
            count = None if seconds is None else round(seconds * stream.rate)
            return AudioInfo(int(stream.rate), int(stream.channels), count)
