"""Multi-resolution STFT distance: spectral convergence and log magnitude at three resolutions.

Yamamoto, Song, Kim 2020, Parallel WaveGAN (arXiv:1910.11480), equations 4 to 7, at the resolutions
of the paper, which uses it as a training loss.
"""

import torch
from torch import Tensor

from neuralcodec.metrics.signals import Signal, Undefined, check_pair

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""FFT size, hop and length of the Hann window in samples, for each resolution."""

_FLOOR = 1e-7  # floor of the power in the logarithm; the paper specifies none


def _magnitudes(signals: Tensor, size: int, hop: int, window: int) -> Tensor:
    """Return STFT magnitudes `[2, bins, frames]` of `signals [2, T]`, zero-padded at the ends."""
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
    """Return the multi-resolution STFT distance.

    It is the spectral convergence plus the mean absolute difference of natural log magnitudes,
    averaged over three resolutions. The signals are not resampled and the windows are fixed in
    samples, so values are comparable at one sample rate only. Powers are floored at 1e-7 in the
    logarithm. The distance is sensitive to the level. Signals shorter than a window are
    zero-padded.

    Args:
        reference: `[T]`, float in [-1, 1].
        estimate: `[T]`, float, of the same length.
        sample_rate: Hz; it does not affect the result.

    Returns:
        The distance, in [0, inf); lower is better, 0 for a perfect estimate.

    Raises:
        Undefined: if all samples of the reference are 0: the spectral convergence divides by its
            energy.
        ValueError: if a signal is invalid (see `check_pair`) or the lengths differ.

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
