"""Short-time objective intelligibility (STOI) and its extended version, by the package `pystoi`.

Both are defined at 10 kHz, on 15 third-octave bands of which the highest reaches 4277 Hz, and on
segments of 30 frames (384 ms), after removal of the frames 40 dB below the loudest frame of the
reference. The package resamples signals of other rates in the same way as the authors' code.
Sample rates below 10 kHz are rejected: audio at 8 kHz lacks a part of the highest band.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pystoi

from neuralcodec.metrics.signals import (
    Signal,
    Undefined,
    check_pair,
    require_rate,
    require_sound,
)

_RATE = 10000  # Hz
_FRAME = 256  # samples at that rate; the package fails on shorter audio
_TOO_SHORT = (
    "fewer than 30 frames (about 0.4 s) of the reference are left without its silent frames"
)
_LOCK = threading.Lock()


@contextmanager
def _fixed_noise() -> Iterator[None]:
    """Seed numpy's global random generator within the context, and restore its state afterwards.

    The package draws noise of 1e-16 from it and adds it before normalisation. Where the estimate is
    digital silence, this noise is the whole signal, and unseeded scores would vary from call to
    call.
    """
    with _LOCK:
        state = np.random.get_state()  # noqa: NPY002  # the package uses this generator
        np.random.seed(0)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def _measure(
    metric: str, reference: Signal, estimate: Signal, sample_rate: int, extended: bool
) -> float:
    reference, estimate, sample_rate = check_pair(reference, estimate, sample_rate)
    require_rate(metric, sample_rate, _RATE, "its highest band reaches 4277 Hz")
    require_sound(reference, estimate)
    if len(reference) * _RATE <= _FRAME * sample_rate:
        raise Undefined(f"{metric}: {_TOO_SHORT}")
    with _fixed_noise(), warnings.catch_warnings():
        # along with this warning the package returns 1e-5, which is not a measurement
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            value = pystoi.stoi(reference.numpy(), estimate.numpy(), sample_rate, extended)
        except RuntimeWarning as warning:
            raise Undefined(f"{metric}: {_TOO_SHORT}") from warning
    return float(value)


def stoi(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Return the short-time objective intelligibility. Speech only.

    Taal, Hendriks, Heusdens, Jensen 2011, An Algorithm for Intelligibility Prediction of
    Time-Frequency Weighted Noisy Speech (IEEE TASLP 19(7)). The signals must be aligned in time.

    Args:
        reference: speech, `[T]`, float, with at least 0.4 s that is not silent.
        estimate: `[T]`, float, of the same length.
        sample_rate: Hz, at least 10000.

    Returns:
        A correlation in [-1, 1], in practice in [0, 1]; higher is better, 1 for a perfect estimate.

    Raises:
        Undefined: if the sample rate is below 10 kHz, a signal is silent, or too little speech
            remains after removal of silent frames.
        ValueError: if a signal is invalid (see `check_pair`) or the lengths differ.
    """
    return _measure("stoi", reference, estimate, sample_rate, extended=False)


def estoi(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Return the extended short-time objective intelligibility, for modulated noise. Speech only.

    Jensen and Taal 2016, An Algorithm for Predicting the Intelligibility of Speech Masked by
    Modulated Noise Maskers (IEEE/ACM TASLP 24(11)). The noise that the package adds is seeded, so
    that equal signals have equal scores. The signals must be aligned in time.

    Args:
        reference: speech, `[T]`, float, with at least 0.4 s that is not silent.
        estimate: `[T]`, float, of the same length.
        sample_rate: Hz, at least 10000.

    Returns:
        A correlation in [-1, 1], in practice in [0, 1]; higher is better, 1 for a perfect estimate.

    Raises:
        Undefined: if the sample rate is below 10 kHz, a signal is silent, or too little speech
            remains after removal of silent frames.
        ValueError: if a signal is invalid (see `check_pair`) or the lengths differ.
    """
    return _measure("estoi", reference, estimate, sample_rate, extended=True)
