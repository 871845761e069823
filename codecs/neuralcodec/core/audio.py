"""Audio in and out: read, write, resample, mix down, cut to a length, and check.

A wav is a float32 tensor in [-1, 1] whose last axis is time: `[C, T]` for one clip, `[B, C, T]` for
a batch.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from numbers import Real
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from neuralcodec.core import audio_file
from neuralcodec.core.audio_file import AudioInfo
from neuralcodec.core.files import expanded

EXTENSIONS = frozenset(
    ".aac .ac3 .aif .aiff .amr .au .caf .flac .g722 .m4a .mka .mp2 .mp3 .mp4 .oga .ogg .opus .snd"
    " .w64 .wav .webm .wma .wv".split()
)
"""File names that count as audio when a folder is searched, in lower case."""

KINDS = ("speech", "music", "sound", "unknown")
"""What a clip may hold. Metrics made for speech run on "speech" alone."""

MAX_PEAK = 16.0
"""Largest peak of a wav, 24 dB above full scale. Lossy files and resampling exceed 1 by a few dB;
16 bit samples that were not divided by 32768 exceed it by far."""

MAX_MIX_LOSS_DB = 20.0
"""How far the mean of several channels may lie below them; more means that they cancel."""

_SILENCE = 1e-8  # mean power, -80 dBFS, below which channels need not be kept apart

_PCM_BITS = {"PCM_16": 16, "PCM_24": 24}

_MAX_RATE = 1_000_000  # Hz; a header that claims more is broken, and resampling would blow up


class AudioWarning(UserWarning):
    """Audio was read, but some of it was missing or was averaged away."""


_said: set[tuple[Path, str]] = set()
_notes: ContextVar[list[str] | None] = ContextVar("audio_notes", default=None)


def note(path: Path, text: str) -> None:
    """Warn of what was done to the audio of a file, once per process, or add it to `noted`."""
    notes = _notes.get()
    if notes is not None:
        notes.append(text)
    elif (path, text) not in _said:
        warnings.warn(f"{path}: {text}", AudioWarning, stacklevel=3)
        _said.add((path, text))


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collect in a list what reading audio would warn of, without the names of the files.

    Unlike a warning, which comes once per file and process, each read adds its notes.
    """
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def _existing(path: str | Path) -> Path:
    path = expanded(path)
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"{path} is a link to a file that does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not an audio file")
    if not path.is_file():
        raise FileNotFoundError(f"no audio file at {path}")
    with path.open("rb"):  # an OSError of Python's own names the file and the reason
        return path


def read(path: str | Path) -> tuple[Tensor, int]:
    """Read an audio file whole, in any format that libsndfile or FFmpeg reads.

    Values are as stored: lossy and float files may go beyond +-1. A stream whose header does not
    say how long it is, is read to its end. If a file ends before its header says, what is there is
    returned with an `AudioWarning` that gives both lengths.

    Args:
        path: the file; a leading `~` is the home folder.

    Returns:
        wav `[C, T]` float32, and its sample rate in Hz.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it may not be read.
        ValueError: if the file is no audio, is empty, is damaged before its end, or holds NaN or
            infinite samples.
        MemoryError: if it does not fit into memory.
    """
    path = _existing(path)
    decoded = audio_file.decode(path)
    samples, sample_rate = decoded.samples, decoded.sample_rate
    if samples.shape[1] == 0:
        raise ValueError(f"{path} holds no samples")
    if not 0 < sample_rate <= _MAX_RATE:
        raise ValueError(f"{path} claims a sample rate of {sample_rate} Hz")
    if not np.isfinite(samples).all():
        bad = int(np.argmin(np.isfinite(samples).all(axis=0)))
        raise ValueError(f"{path} holds NaN or infinite samples, the first at sample {bad}")
    if decoded.note:
        note(path, decoded.note)
    return torch.from_numpy(samples), sample_rate


def info(path: str | Path) -> AudioInfo:
    """Read the header of an audio file: sample rate, channels, and length if it has one.

    Args:
        path: the file; a leading `~` is the home folder.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it may not be read.
        ValueError: if the file is no audio.
    """
    return audio_file.header(_existing(path))


def check_tensor(value: object, what: str, shape: str = "") -> None:
    """Raise ValueError unless `value` is a tensor; an array is told how to become one."""
    if isinstance(value, Tensor):
        return
    is_array = isinstance(value, np.ndarray)
    kind = f"a numpy array: torch.from_numpy({what})" if is_array else type(value).__name__
    raise ValueError(f"{what} must be a torch tensor{shape and f' {shape}'}, got {kind}")


def _check_floats(wav: Tensor) -> None:
    """Raise ValueError unless `wav` is a tensor of floats."""
    check_tensor(wav, "wav")
    if not wav.is_floating_point():
        raise ValueError(
            f"wav must be float in [-1, 1], got {wav.dtype}: integer samples are divided by their "
            f"full scale, int16 by 32768"
        )


def _whole_rate(rate: object) -> int:
    """Return a sample rate as an int; 16000.0 is one, 16000.5 is not."""
    is_number = isinstance(rate, Real) and not isinstance(rate, bool | np.bool_)
    value = float(rate) if is_number else 0.0  # type: ignore[arg-type]
    if not (value > 0 and value.is_integer()):  # infinity is no integer, NaN is not above 0
        raise ValueError(f"sample rates must be positive whole numbers of Hz, got {rate!r}")
    return int(value)


def _to_pcm(samples: Tensor, bits: int) -> np.ndarray:
    """Round to the nearest of 2 ** bits steps, in the upper bits of int32.

    libsndfile would round floats down in WAV files, half a step of constant offset. +1 is one step
    more than there is and becomes the largest.
    """
    full = 2 ** (bits - 1)
    steps = (samples.double() * full).round().clamp(max=full - 1)
    pcm: np.ndarray = (steps * 2 ** (32 - bits)).int().numpy()
    return pcm


def write(path: str | Path, wav: Tensor, sample_rate: float, *, subtype: str = "PCM_16") -> None:
    """Write `wav` as FLAC or WAV, as the file's ending says.

    Integer formats take each sample to the nearest step.

    Args:
        path: the file, ending in .flac or .wav; a leading `~` is the home folder.
        wav: `[C, T]` or `[T]`, float.
        sample_rate: Hz, a whole number.
        subtype: "PCM_16" or "PCM_24", or "FLOAT" for a WAV that may go beyond +-1.

    Raises:
        ValueError: if the ending, the subtype, the sample rate or the shape is another, `wav` is no
            float tensor, a sample is not finite, or one goes beyond +-1 in an integer format, where
            it would be clipped.
        OSError: if the file cannot be written.
    """
    path, sample_rate = expanded(path), _whole_rate(sample_rate)
    _check_floats(wav)
    if path.suffix.lower() not in {".flac", ".wav"}:
        raise ValueError(f"can write .flac and .wav, not {path.name!r}")
    if subtype not in _PCM_BITS and (subtype != "FLOAT" or path.suffix.lower() != ".wav"):
        allowed = ", ".join([*_PCM_BITS, "and FLOAT in .wav"])
        raise ValueError(f"cannot write {path.name!r} as {subtype!r}; there are {allowed}")
    if wav.ndim not in (1, 2) or wav.numel() == 0:
        raise ValueError(f"wav must be [T] or [C, T] and not empty, got {list(wav.shape)}")
    samples = wav.detach().cpu().float().reshape(-1, wav.shape[-1])
    peak = float(samples.abs().max())
    if not math.isfinite(peak):
        raise ValueError(f"{path} not written: the audio holds NaN or infinite samples")
    if subtype != "FLOAT" and peak > 1:
        raise ValueError(
            f"{path} not written: the peak {peak:.4f} would be clipped; scale the audio, "
            f"or write a .wav with subtype='FLOAT'"
        )
    rows = samples.numpy() if subtype == "FLOAT" else _to_pcm(samples, _PCM_BITS[subtype])
    try:
        soundfile.write(audio_file.native(path), rows.T, sample_rate, subtype=subtype)
    except soundfile.LibsndfileError as error:
        raise OSError(f"cannot write {path}: {error.error_string}") from error


def resample(wav: Tensor, from_rate: float, to_rate: float) -> Tensor:
    """Resample with a band-limited, linear-phase filter (soxr, very high quality).

    Args:
        wav: `[..., T]`, float.
        from_rate: Hz of `wav`, a whole number.
        to_rate: Hz wanted, a whole number.

    Returns:
        `[..., ceil(T * to_rate / from_rate)]` float32 on the device of `wav`, aligned with it in
        time; `wav` itself if the rates are equal.

    Raises:
        ValueError: if a rate is not a positive whole number, or `wav` is no float tensor.
    """
    from_rate, to_rate = _whole_rate(from_rate), _whole_rate(to_rate)
    _check_floats(wav)
    if from_rate == to_rate:
        return wav
    length = math.ceil(Fraction(wav.shape[-1] * to_rate, from_rate))
    rows = wav.detach().cpu().float().reshape(-1, wav.shape[-1])
    out = soxr.resample(rows.T.numpy(), from_rate, to_rate, quality="VHQ")  # [T', rows]
    result = torch.from_numpy(np.ascontiguousarray(out.T))
    return fit_length(result, length).reshape(*wav.shape[:-1], length).to(wav.device)


def _power(wav: Tensor) -> Tensor:
    """Return the mean power over channels and time, `[..., C, T]` to `[...]`."""
    return wav.detach().float().square().mean(dim=(-2, -1))


def max_mix_loss_db(channels: int) -> float:
    """Return the loss from which on channels count as cancelling.

    `MAX_MIX_LOSS_DB` for two; for more of them higher, as C unrelated channels lose 10 log10(C).
    """
    return MAX_MIX_LOSS_DB + 10 * math.log10(channels / 2)


def mix_loss_db(wav: Tensor) -> float:
    """Return how far the mean of the channels lies below them in power.

    0 for equal channels, 10 log10(C) for unrelated ones, infinite for channels that cancel.

    Args:
        wav: `[C, T]`, float.
    """
    channels, mix = _power(wav), _power(wav.mean(dim=-2, keepdim=True))
    return float(10 * (channels.log10() - mix.log10())) if channels > 0 else 0.0


def mix_down(wav: Tensor) -> Tensor:
    """Average the channels: `[..., C, T]` becomes `[..., 1, T]`.

    Raises:
        ValueError: if `wav` is no float tensor of channels, or if its channels cancel: the mean
            lies more than `max_mix_loss_db` below them, and they are no silence.
    """
    _check_floats(wav)
    if wav.ndim < 2:
        raise ValueError(f"wav must be [..., C, T] to mix its channels, got {list(wav.shape)}")
    if wav.shape[-2] == 1:
        return wav
    mix = wav.mean(dim=-2, keepdim=True)
    if wav.is_meta:
        return mix
    power = _power(wav)
    least = 10 ** (-max_mix_loss_db(wav.shape[-2]) / 10)
    lost = (_power(mix) < power * least) & (power > _SILENCE)
    if lost.any():
        worst = wav.detach()[lost].flatten(0, -3)[0] if wav.ndim > 2 else wav.detach()
        raise ValueError(
            f"the {wav.shape[-2]} channels cancel: their mean is {mix_loss_db(worst):.1f} dB below "
            f"them; choose a channel, or take each on its own"
        )
    return mix


def fit_length(wav: Tensor, length: int) -> Tensor:
    """Cut `[..., T]` at the end, or pad it with zeros there, to `length` samples."""
    check_tensor(wav, "wav")
    if wav.shape[-1] >= length:
        return wav[..., :length]
    return torch.nn.functional.pad(wav, (0, length - wav.shape[-1]))


def check_wav(wav: Tensor, *, channels: int) -> None:
    """Raise ValueError unless `wav` is a batch of audio that a codec can take.

    Args:
        wav: `[B, channels, T]`, float and finite, T >= 1, with a peak of at most `MAX_PEAK`. On the
            meta device, which has no values, only the shape and type are checked. On a GPU the
            check waits for the device once.
        channels: how many there must be.
    """
    check_tensor(wav, "wav")
    if wav.ndim != 3 or wav.shape[1] != channels or 0 in wav.shape:
        raise ValueError(f"wav must be [B, {channels}, T] and not empty, got {list(wav.shape)}")
    _check_floats(wav)
    if wav.is_meta:
        return
    low, high = torch.aminmax(wav.detach())  # both are NaN if a sample is
    peak = float(torch.maximum(-low, high))
    if not math.isfinite(peak):
        raise ValueError("wav holds NaN or infinite samples")
    if peak > MAX_PEAK:
        raise ValueError(
            f"wav must be in [-1, 1], got a peak of {peak:.6g}; 16 bit samples are divided by 32768"
        )
