"""Log-mel spectrogram distance, after the multi-scale mel loss of DAC.

Kumar, Seetharaman, Luebs, Kumar, Kumar 2023, High-Fidelity Audio Compression with Improved RVQGAN
(arXiv:2306.06546) define a training loss: mel spectrograms of magnitudes (power 1) at seven window
lengths, with a hop of a quarter of the window and log10 with a floor of 1e-5; the mean absolute
difference is summed over the window lengths.

This metric differs from it in two ways. Mel bands without any STFT bin, which occur from 48 kHz on,
are left out; otherwise both sides of such a band equal the floor, and the mean decreases. The ends
are zero-padded. Values are comparable at one sample rate only, and not with published ones.
"""

import warnings
from functools import lru_cache

import torch
from torch import Tensor

from neuralcodec.core import torchaudio_guard
from neuralcodec.metrics.signals import Signal, check_pair

WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)
"""Window lengths in samples."""

MELS = (5, 10, 20, 40, 80, 160, 320)
"""Requested number of mel bands per window length; `mel_filters` drops bands without a bin."""

_FLOOR = 1e-5


@lru_cache(maxsize=64)
def mel_filters(window: int, mels: int, sample_rate: int) -> Tensor:
    """Return triangular mel filters from 0 Hz to the Nyquist frequency, on Slaney's scale.

    Each filter is normalised to unit area.

    Args:
        window: length of the STFT in samples.
        mels: requested number of bands.
        sample_rate: Hz.

    Returns:
        `[bands, window // 2 + 1]` float32; bands <= mels, those that contain an STFT bin.

    >>> [[len(mel_filters(*size, rate)) for size in zip(WINDOWS, MELS)] for rate in (8000, 48000)]
    [[5, 10, 20, 40, 80, 160, 320], [4, 9, 20, 40, 80, 160, 320]]
    """
    functional = torchaudio_guard.load().functional
    with warnings.catch_warnings():
        # it warns about the empty bands, which are removed below
        warnings.filterwarnings("ignore", "At least one mel filterbank", UserWarning)
        filters: Tensor = functional.melscale_fbanks(
            window // 2 + 1, 0.0, sample_rate / 2, mels, sample_rate, "slaney", "slaney"
        )
    return filters.T[filters.amax(dim=0) > 0]


def _log_mel(signals: Tensor, window: int, mels: int, sample_rate: int) -> Tensor:
    """Return log10 of the floored mel magnitudes of `signals [2, T]`, `[2, bands, frames]`."""
    spectrum = torch.stft(
        signals,
        window,
        hop_length=window // 4,
        window=torch.hann_window(window),
        pad_mode="constant",
        return_complex=True,
    )
    return (mel_filters(window, mels, sample_rate) @ spectrum.abs()).clamp(min=_FLOOR).log10()


def log_mel_distance(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Return the log-mel spectrogram distance, summed over seven window lengths.

    The module docstring gives the definition. The signals are not resampled. The distance is
    sensitive to the level: an attenuation of 20 dB adds 7 if all bands stay above the floor.
    Signals shorter than a window are zero-padded.

    Args:
        reference: `[T]`, float in [-1, 1].
        estimate: `[T]`, float, of the same length.
        sample_rate: Hz.

    Returns:
        Sum over the windows of the mean absolute difference of log10 magnitudes, in [0, inf); lower
        is better, 0 for a perfect estimate. Digital silence is defined: all its bands are at the
        floor.

    Raises:
        ValueError: if a signal is invalid (see `check_pair`) or the lengths differ.

    >>> log_mel_distance(torch.ones(100), torch.ones(100), 16000)
    0.0
    """
    reference, estimate, sample_rate = check_pair(reference, estimate, sample_rate)
    pair = torch.stack([reference, estimate]).float()  # [2, T]
    total = 0.0
    for window, mels in zip(WINDOWS, MELS, strict=True):
        ours, theirs = _log_mel(pair, window, mels, sample_rate)
        total += float((ours - theirs).abs().mean())
    return total
