"""Audio in and out: read, write, resample, mix down, cut to length, chunk and overlap-add.

Everywhere a wav is a float32 tensor in [-1, 1] whose last axis is time: `[C, T]` for one clip,
`[B, C, T]` for a batch.
"""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

EXTENSIONS = frozenset(
    ".aac .ac3 .aif .aiff .amr .au .caf .flac .g722 .m4a .mka .mp2 .mp3 .mp4 .oga .ogg .opus .snd"
    " .w64 .wav .webm .wma .wv".split()
)
"""File names that count as audio when a folder is searched, in lower case."""

_PCM_BITS = {"PCM_16": 16, "PCM_24": 24}

KINDS = ("speech", "music", "sound", "unknown")
"""What a clip may hold. Metrics made for speech run on "speech" alone."""

_MAX_RATE = 1_000_000  # Hz; a header that claims more is broken, and resampling would blow up


def _read_soundfile(path: Path) -> tuple[np.ndarray, int]:
    samples, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples.T), int(sample_rate)


def _read_av(path: Path) -> tuple[np.ndarray, int]:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise ValueError("it has no audio stream")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")
        blocks = [
            block.to_ndarray()
            for frame in container.decode(stream)
            for block in resampler.resample(frame)
        ]
        if not blocks:
            raise ValueError("its audio stream is empty")
        return np.concatenate(blocks, axis=1).astype(np.float32), int(stream.rate)


def read(path: str | Path) -> tuple[Tensor, int]:
    """Read an audio file whole, in any format that soundfile or PyAV (FFmpeg) reads.

    Values are as stored: lossy and float files may go beyond +-1.

    Args:
        path: the file.

    Returns:
        wav `[C, T]` float32, and its sample rate in Hz.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no audio, is empty, or holds NaN or infinite samples.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no audio file at {path}")
    try:
        samples, sample_rate = _read_soundfile(path)
    except soundfile.LibsndfileError:
        try:
            samples, sample_rate = _read_av(path)
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(f"cannot read {path} as audio: {error}") from error
    if samples.shape[1] == 0:
        raise ValueError(f"{path} holds no samples")
    if not 0 < sample_rate <= _MAX_RATE:
        raise ValueError(f"{path} claims a sample rate of {sample_rate} Hz")
    if not np.isfinite(samples).all():
        bad = int(np.argmin(np.isfinite(samples).all(axis=0)))
        raise ValueError(f"{path} holds NaN or infinite samples, the first at sample {bad}")
    return torch.from_numpy(samples), sample_rate


def _to_pcm(samples: Tensor, bits: int) -> np.ndarray:
    """Round to the nearest of 2 ** bits steps, in the upper bits of int32.

    libsndfile would round floats down in WAV files, half a step of constant offset. +1 is one step
    more than there is and becomes the largest.
    """
    full = 2 ** (bits - 1)
    steps = (samples.double() * full).round().clamp(max=full - 1)
    pcm: np.ndarray = (steps * 2 ** (32 - bits)).int().numpy()
    return pcm


def write(path: str | Path, wav: Tensor, sample_rate: int, *, subtype: str = "PCM_16") -> None:
    """Write `wav` as FLAC or WAV, as the file's ending says.

    Integer formats take each sample to the nearest step.

    Args:
        path: the file, ending in .flac or .wav.
        wav: `[C, T]` or `[T]`, float.
        sample_rate: Hz.
        subtype: "PCM_16" or "PCM_24", or "FLOAT" for a WAV that may go beyond +-1.

    Raises:
        ValueError: if the ending, the subtype or the shape is another, a sample is not finite, or
            one goes beyond +-1 in an integer format, where it would be clipped.
    """
    path = Path(path)
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
    soundfile.write(path, rows.T, sample_rate, subtype=subtype)


def resample(wav: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample with a band-limited, linear-phase filter (soxr, very high quality).

    Args:
        wav: `[..., T]`, float.
        from_rate: Hz of `wav`.
        to_rate: Hz wanted.

    Returns:
        `[..., ceil(T * to_rate / from_rate)]` float32, aligned with the input in time.

    Raises:
        ValueError: if a rate is not positive.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"sample rates must be positive, got {from_rate} and {to_rate} Hz")
    if from_rate == to_rate:
        return wav
    length = math.ceil(Fraction(wav.shape[-1] * to_rate, from_rate))
    rows = wav.detach().cpu().float().reshape(-1, wav.shape[-1])
    out = soxr.resample(rows.T.numpy(), from_rate, to_rate, quality="VHQ")  # [T', rows]
    result = torch.from_numpy(np.ascontiguousarray(out.T))
    return fit_length(result, length).reshape(*wav.shape[:-1], length)


def mix_down(wav: Tensor) -> Tensor:
    """Average the channels: `[..., C, T]` becomes `[..., 1, T]`."""
    return wav if wav.shape[-2] == 1 else wav.mean(dim=-2, keepdim=True)


def fit_length(wav: Tensor, length: int) -> Tensor:
    """Cut `[..., T]` at the end, or pad it with zeros there, to `length` samples."""
    if wav.shape[-1] >= length:
        return wav[..., :length]
    return torch.nn.functional.pad(wav, (0, length - wav.shape[-1]))


def chunk(wav: Tensor, size: int, overlap: int = 0) -> list[Tensor]:
    """Cut `[..., T]` into pieces of `size` samples of which neighbours share `overlap`.

    The last piece is as short as what is left. `overlap_add` puts the pieces together again.

    Raises:
        ValueError: if not 0 <= overlap <= size / 2, or `size` is not positive.

    >>> [piece.tolist() for piece in chunk(torch.arange(7), size=4, overlap=1)]
    [[0, 1, 2, 3], [3, 4, 5, 6]]
    """
    if size < 1 or not 0 <= 2 * overlap <= size:
        raise ValueError(f"need size >= 1 and 0 <= overlap <= size / 2, got {size} and {overlap}")
    step = size - overlap
    starts = range(0, max(wav.shape[-1] - overlap, 1), step)
    return [wav[..., start : start + size] for start in starts]


def overlap_add(pieces: list[Tensor], overlap: int = 0) -> Tensor:
    """Join pieces that `chunk` cut, with a linear cross-fade where they overlap.

    Raises:
        ValueError: if there is no piece, or one is shorter than `overlap`.

    >>> x = torch.randn(2, 1000)
    >>> torch.allclose(overlap_add(chunk(x, 64, 16), 16), x, atol=1e-6)
    True
    """
    if not pieces:
        raise ValueError("overlap_add needs at least one piece, got none")
    if overlap and len(pieces) > 1 and min(piece.shape[-1] for piece in pieces) < overlap:
        raise ValueError(f"a piece is shorter than the overlap of {overlap} samples")
    fade = torch.arange(1, overlap + 1, device=pieces[0].device) / (overlap + 1)
    total = sum(piece.shape[-1] - overlap for piece in pieces) + overlap
    out = pieces[0].new_zeros(*pieces[0].shape[:-1], total)
    out[..., : pieces[0].shape[-1]] = pieces[0]
    end = pieces[0].shape[-1]
    for piece in pieces[1:]:
        start = end - overlap
        end = start + piece.shape[-1]
        shared = out[..., start : start + overlap] * (1 - fade) + piece[..., :overlap] * fade
        out[..., start : start + overlap] = shared
        out[..., start + overlap : end] = piece[..., overlap:]
    return out


def check_wav(wav: Tensor, *, channels: int) -> None:
    """Raise ValueError unless `wav` is a batch `[B, channels, T]` of finite floats, T >= 1."""
    if wav.ndim != 3 or wav.shape[1] != channels or 0 in wav.shape:
        raise ValueError(f"wav must be [B, {channels}, T] and not empty, got {list(wav.shape)}")
    if not wav.is_floating_point():
        raise ValueError(f"wav must be float in [-1, 1], got {wav.dtype}")
    # The sum is many times faster to take, and finite where all samples are, but for an overflow.
    if not math.isfinite(float(wav.sum())) and not torch.isfinite(wav).all():
        raise ValueError("wav holds NaN or infinite samples")
