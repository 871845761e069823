"""Short-time spectra with perfect reconstruction, and power-law compression of their magnitudes.

Frames of 20 ms at 100 Hz have a square-root Hann window in analysis and synthesis. The squared
windows of overlapping frames sum to one, so that synthesis inverts analysis.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

HOP = 160
"""Hop between frames in samples: 10 ms at 16 kHz."""

WINDOW = 2 * HOP
"""Length of a frame in samples."""

BINS = WINDOW // 2 + 1
"""Number of frequency bins of a frame, from 0 to 8 kHz."""

_EXPONENT = 0.3  # exponent of the magnitude compression, close to that of loudness
_TINY = 1e-6  # magnitude below which compression is linear, so that its gradient stays finite


def _window(like: Tensor) -> Tensor:
    n = torch.arange(WINDOW, device=like.device, dtype=torch.float32)
    return torch.sin(math.pi / WINDOW * (n + 0.5))


def analyse(wav: Tensor, *, lead: int) -> Tensor:
    """Return the short-time spectra of audio.

    Args:
        wav: `[B, T]`, T a multiple of HOP.
        lead: samples by which a frame starts before its hop, 0..HOP; it ends HOP - lead after it.

    Returns:
        `[B, T / HOP, BINS]` complex64.
    """
    padded = functional.pad(wav.float(), (lead, HOP - lead))
    frames = padded.unfold(-1, WINDOW, HOP)
    spectra: Tensor = torch.fft.rfft(frames * _window(wav), norm="ortho")
    return spectra


def synthesise(spectra: Tensor, *, lead: int) -> Tensor:
    """Return the audio of short-time spectra, by overlap-add.

    Args:
        spectra: `[B, N, BINS]`, complex.
        lead: as for `analyse`.

    Returns:
        `[B, N * HOP]` float32. Where the first or last frame has no overlap, the signal is divided
        by its squared window, which is bounded away from zero only for a lead well inside 0..HOP.
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
    """Raise the magnitudes of complex spectra to the power 0.3, with unchanged phase."""
    magnitude = spectra.abs().clamp(min=_TINY)
    return spectra * magnitude.pow(_EXPONENT - 1)


def expand(real: Tensor, imaginary: Tensor) -> Tensor:
    """Invert `compress` for real and imaginary parts; return complex64."""
    power = real.square() + imaginary.square()
    gain = power.clamp(min=1e-12).pow((1 / _EXPONENT - 1) / 2)
    return torch.complex(real * gain, imaginary * gain)
