"""Distance of log-mel spectrograms, in the manner of the DAC paper's mel distance.

Kumar, Seetharaman, Luebs, Kumar, Kumar 2023, High-Fidelity Audio Compression with Improved RVQGAN
(arXiv:2306.06546) trains with it: mel spectrograms of magnitudes (power 1) at seven window lengths,
hop a quarter of the window, log10 with a floor of 1e-5, mean absolute difference, summed over the
windows. Ours differs: bands without any STFT bin, which there are from 48 kHz on, are left out,
where they would enter as floor against floor and pull the mean down; the ends are padded with
zeros. Compare figures at one sample rate only, and not with published ones.
"""

import warnings
from functools import lru_cache

import torch
from torch import Tensor

from neuralcodec.core import torchaudio_guard
from neuralcodec.metrics.signals import Signal, check_pair

WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)
"""Window lengths, samples."""

MELS = (5, 10, 20, 40, 80, 160, 320)
"""Mel bands asked for, one a window length; `mel_filters` tells how many hold a bin."""

_FLOOR = 1e-5


@lru_cache(maxsize=64)
def mel_filters(window: int, mels: int, sample_rate: int) -> Tensor:
    """Triangular mel filters from 0 Hz to half the rate, on Slaney's scale, of unit area each.

    Args:
        window: length of the STFT, samples.
        mels: bands asked for.
        sample_rate: Hz.

    Returns:
        `[bands, window // 2 + 1]` float32, bands <= mels: those that hold at least one STFT bin.

    >>> [[len(mel_filters(*size, rate)) for size in zip(WINDOWS, MELS)] for rate in (8000, 48000)]
    [[5, 10, 20, 40, 80, 160, 320], [4, 9, 20, 40, 80, 160, 320]]
    """
    functional = torchaudio_guard.load().functional
    with warnings.catch_warnings():
        # the bands it warns of are those that are left out below
        warnings.filterwarnings("ignore", "At least one mel filterbank", UserWarning)
        filters: Tensor = functional.melscale_fbanks(
            window // 2 + 1, 0.0, sample_rate / 2, mels, sample_rate, "slaney", "slaney"
        )
    return filters.T[filters.amax(dim=0) > 0]


def _log_mel(signals: Tensor, window: int, mels: int, sample_rate: int) -> Tensor:
    """Log10 of the floored mel magnitudes of `signals [2, T]`, `[2, bands, frames]`."""
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
    """Distance of log-mel spectrograms over seven window lengths; what it computes is said above.

    It works at the signals' own rate and sees the level: the same audio 20 dB down is 7 units away
    where all bands stay above the floor. Audio shorter than a window is padded with zeros.

    Args:
        reference: `[T]`, float in [-1, 1].
        estimate: `[T]`, float, as long.
        sample_rate: Hz.

    Returns:
        Sum over the windows of the mean |difference of log10|, 0 and up; lower is better, 0 for a
        perfect estimate. Silence has a value: it is the floor.

    Raises:
        ValueError: if the signals are bad or differ in length.

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
