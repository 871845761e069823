"""Scale-invariant signal-to-distortion ratio (SI-SDR), with optional time alignment.

Le Roux, Wisdom, Erdogan, Hershey 2019, SDR - half-baked or well done? (arXiv:1811.02508). SI-SDR
compares waveforms sample by sample, so that an inaudible delay of a few samples lowers it
drastically.
"""

from math import inf, log10

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from neuralcodec.metrics.signals import (
    Signal,
    check_pair,
    require_duration,
    require_sound,
)

MAX_LAG_MS = 25.0
"""Largest delay in ms, in either direction, that `si_sdr_aligned` compensates.

It covers one frame at 50 Hz.
"""

_TIE = 1e-12  # squared correlations closer than this are tied; FFT rounding is far smaller


def _ratio_db(reference: Tensor, estimate: Tensor) -> float:
    require_sound(reference, estimate)
    reference = reference - reference.mean()
    estimate = estimate - estimate.mean()
    scale = torch.dot(estimate, reference) / torch.dot(reference, reference)
    target = scale * reference
    error = estimate - target
    signal, noise = float(torch.dot(target, target)), float(torch.dot(error, error))
    if noise == 0:
        return inf
    return 10 * log10(signal / noise) if signal > 0 else -inf


def _overlap_moments(signal: Tensor, lags: Tensor) -> tuple[Tensor, Tensor]:
    """Return sum and sum of squares of the overlapping part of `signal [T]`, for each lag.

    A positive lag drops the first samples, a negative one the last.
    """
    start = signal.new_zeros(1)
    sums = torch.cat([start, signal.cumsum(0)])
    squares = torch.cat([start, signal.square().cumsum(0)])
    first = lags.clamp(min=0)
    last = len(signal) + lags.clamp(max=0)
    return sums[last] - sums[first], squares[last] - squares[first]


def _squared_correlations(reference: Tensor, estimate: Tensor, lags: Tensor) -> Tensor:
    """Return the squared correlation coefficient of the overlap at each lag.

    It is 0 where one of the two sides is constant.
    """
    size = len(reference)
    reference = reference - reference.mean()  # same coefficients, less rounding in the sums
    estimate = estimate - estimate.mean()
    padded = next_fast_len(size + int(lags.abs().max()), real=True)  # no lag wraps around
    spectrum = torch.fft.rfft(estimate, padded) * torch.fft.rfft(reference, padded).conj()
    products = torch.fft.irfft(spectrum, padded)[lags % padded]
    count = size - lags.abs()
    sum_estimate, square_estimate = _overlap_moments(estimate, lags)
    sum_reference, square_reference = _overlap_moments(reference, -lags)
    covariance = products - sum_reference * sum_estimate / count
    variance_reference = square_reference - sum_reference.square() / count
    variance_estimate = square_estimate - sum_estimate.square() / count
    floor = 1e-12 * reference.square().sum(), 1e-12 * estimate.square().sum()
    sound = (variance_reference > floor[0]) & (variance_estimate > floor[1])
    variances = torch.where(sound, variance_reference * variance_estimate, 1.0)
    return torch.where(sound, covariance.square() / variances, 0.0)


def best_lag(reference: Signal, estimate: Signal, max_lag: int) -> int:
    """Return the delay of `estimate` relative to `reference`, in samples.

    It is the lag with the largest absolute correlation coefficient of the overlap, and therefore
    with the largest SI-SDR. Ties are broken towards the smallest absolute delay, then towards the
    positive one.

    Args:
        reference: `[T]`, float.
        estimate: `[T]`, float, of the same length.
        max_lag: largest absolute delay in samples, 0..T / 2.

    Returns:
        The lag in -max_lag..max_lag. It is positive if the estimate is delayed, so that
        `estimate[lag:]` is aligned with `reference[:T - lag]`.

    Raises:
        Undefined: if a signal is silent.
        ValueError: if a signal is invalid (see `check_pair`), the lengths differ, or `max_lag` is
            out of range.

    >>> noise = torch.randn(1000)
    >>> best_lag(noise, noise.roll(8), max_lag=100)
    8
    """
    reference, estimate, _ = check_pair(reference, estimate, 1)
    require_sound(reference, estimate)
    if not 0 <= 2 * max_lag <= len(reference):
        raise ValueError(
            f"max_lag must be 0..{len(reference) // 2}, half the signal, got {max_lag}"
        )
    near_first = sorted(range(-max_lag, max_lag + 1), key=lambda lag: (abs(lag), -lag))
    lags = torch.tensor(near_first)
    match = _squared_correlations(reference, estimate, lags)
    return near_first[int((match >= match.max() - _TIE).nonzero()[0])]


def si_sdr(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Return the scale-invariant signal-to-distortion ratio in dB.

    SI-SDR as defined by Le Roux et al. 2019 (arXiv:1811.02508), in float64, with the means of both
    signals removed. It is invariant to the scale and the sign of the estimate.

    Args:
        reference: `[T]`, float.
        estimate: `[T]`, float, of the same length.
        sample_rate: Hz; it does not affect the result.

    Returns:
        dB; higher is better. It is inf if the estimate is an exact multiple of the reference and
        -inf if the two are orthogonal.

    Raises:
        Undefined: if either signal is silent or constant.
        ValueError: if a signal is invalid (see `check_pair`) or the lengths differ.

    >>> signal, noise = torch.tensor([1.0, -1, 1, -1]), torch.tensor([0.1, 0.1, -0.1, -0.1])
    >>> round(si_sdr(signal, signal + noise, 16000), 4)
    20.0
    """
    reference, estimate, _ = check_pair(reference, estimate, sample_rate)
    return _ratio_db(reference, estimate)


def si_sdr_aligned(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Return the SI-SDR in dB of the overlap, after compensation of a delay.

    The delay is a whole number of samples within +-`MAX_LAG_MS`, chosen by `best_lag` for the
    largest SI-SDR. For periodic signals, such as a tone, the value can be too optimistic.

    Args:
        reference: `[T]`, float, at least 50 ms, so that the overlap is at least half of it.
        estimate: `[T]`, float, of the same length.
        sample_rate: Hz.

    Returns:
        dB; higher is better, inf and -inf as for `si_sdr`.

    Raises:
        Undefined: if either signal is silent, silent in the overlap, or too short.
        ValueError: if a signal is invalid (see `check_pair`) or the lengths differ.

    >>> noise = torch.randn(16000)
    >>> si_sdr_aligned(noise, noise.roll(8), 16000)
    inf
    """
    reference, estimate, sample_rate = check_pair(reference, estimate, sample_rate)
    require_duration("si_sdr_aligned", reference, sample_rate, 2 * MAX_LAG_MS / 1000)
    max_lag = int(MAX_LAG_MS * sample_rate / 1000)
    lag = best_lag(reference, estimate, max_lag)
    size = len(reference)
    return _ratio_db(
        reference[max(-lag, 0) : size - max(lag, 0)], estimate[max(lag, 0) : size + min(lag, 0)]
    )
