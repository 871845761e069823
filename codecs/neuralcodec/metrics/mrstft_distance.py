"""Multi-resolution STFT distance: spectral convergence and log magnitude at three resolutions.

Yamamoto, Song, Kim 2020, Parallel WaveGAN (arXiv:1910.11480), eq. 4-7, at the paper's resolutions:
a training loss there, a figure here.
"""

import torch
from torch import Tensor

from neuralcodec.metrics.signals import Signal, Undefined, check_pair

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""FFT size, hop and Hann window, samples, one triple a resolution."""

_FLOOR = 1e-7  # of the power: the paper gives none, and the logarithm needs one


def _magnitudes(signals: Tensor, size: int, hop: int, window: int) -> Tensor:
    """STFT magnitudes `[2, bins, frames]` of `signals [2, T]`, zeros beyond the ends."""
    spectrum = torch.stft(
        signals,
        size,
        hop_length=hop,
        win_length=window,
        window=torch.hann_window(window, dtype=signals.dtype),
        pad_mode="constant",
        return_complex=True,
    )
    return spectrum.abs()


def mrstft_distance(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Spectral convergence plus L1 of log magnitudes (natural), mean over three resolutions.

    It works at the signals' own rate, with windows in samples: compare figures at one sample rate
    only. Powers are floored at 1e-7 in the logarithm. It sees the level. Audio shorter than a
    window is padded with zeros.

    Args:
        reference: `[T]`, float in [-1, 1].
        estimate: `[T]`, float, as long.
        sample_rate: Hz; it changes nothing.

    Returns:
        The distance, 0 and up; lower is better, 0 for a perfect estimate.

    Raises:
        Undefined: if the reference is digital silence: the convergence divides by its energy.
        ValueError: if the signals are bad or differ in length.

    >>> mrstft_distance(torch.ones(100), torch.ones(100), 16000)
    0.0
    """
    reference, estimate, _ = check_pair(reference, estimate, sample_rate)
    if not reference.any():
        raise Undefined("the reference is silent")
    pair = torch.stack([reference, estimate])  # [2, T]
    total = 0.0
    for size, hop, window in RESOLUTIONS:
        ours, theirs = _magnitudes(pair, size, hop, window)
        convergence = (ours - theirs).norm() / ours.norm()
        logs = [side.square().clamp(min=_FLOOR).log() / 2 for side in (ours, theirs)]
        total += float(convergence + (logs[0] - logs[1]).abs().mean())
    return total / len(RESOLUTIONS)
