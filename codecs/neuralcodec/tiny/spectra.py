"""Short-time spectra with perfect reconstruction, in the compressed domain that the codec works in.

Frames of 20 ms at 100 Hz, a square-root Hann window on both sides: windows that overlap add up to
one, so what is analysed and synthesised again is what it was.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

HOP = 160
"""Samples from a frame to the next: 10 ms at 16 kHz."""

WINDOW = 2 * HOP
"""Samples of a frame."""

BINS = WINDOW // 2 + 1
"""Frequencies of a frame, 0 to 8 kHz."""

_EXPONENT = 0.3  # magnitudes are compressed by it, about as loudness is
_TINY = 1e-6  # magnitude below which compression is linear, so that its gradient stays finite


def _window(like: Tensor) -> Tensor:
    n = torch.arange(WINDOW, device=like.device, dtype=torch.float32)
    return torch.sin(math.pi / WINDOW * (n + 0.5))


def analyse(wav: Tensor, *, lead: int) -> Tensor:
    """Turn audio into spectra.

    Args:
        wav: `[B, T]`, T a multiple of HOP.
        lead: samples that a frame begins before its own hop, 0..HOP; it ends HOP - lead behind it.

    Returns:
        `[B, T / HOP, BINS]` complex64.
    """
    padded = functional.pad(wav.float(), (lead, HOP - lead))
    frames = padded.unfold(-1, WINDOW, HOP)
    spectra: Tensor = torch.fft.rfft(frames * _window(wav), norm="ortho")
    return spectra


def synthesise(spectra: Tensor, *, lead: int) -> Tensor:
    """Turn spectra back into audio, by overlap and add.

    Args:
        spectra: `[B, N, BINS]` complex.
        lead: as for `analyse`.

    Returns:
        `[B, N * HOP]` float32. Where the first or last frame is alone, its window is divided out;
        that is bounded only for a lead well inside 0..HOP.
    """
    window = _window(spectra)
    frames = torch.fft.irfft(spectra, n=WINDOW, norm="ortho") * window
    first, second = frames[..., :HOP], frames[..., HOP:]
    wav = (functional.pad(first, (0, 0, 0, 1)) + functional.pad(second, (0, 0, 1, 0))).flatten(1)
    gain = torch.ones(wav.shape[-1], device=wav.device)
    gain[:HOP] = window[:HOP].square()
    gain[-HOP:] = window[HOP:].square()
    end = wav.shape[-1] - (HOP - lead)
    return wav[:, lead:end] / gain[lead:end]


def compress(spectra: Tensor) -> Tensor:
    """Compress magnitudes by the power 0.3 and keep the phase; complex to complex."""
    magnitude = spectra.abs().clamp(min=_TINY)
    return spectra * magnitude.pow(_EXPONENT - 1)


def expand(real: Tensor, imaginary: Tensor) -> Tensor:
    """Undo `compress` for real and imaginary parts; gives complex64."""
    power = real.square() + imaginary.square()
    gain = power.clamp(min=1e-12).pow((1 / _EXPONENT - 1) / 2)
    return torch.complex(real * gain, imaginary * gain)
