"""Short-time objective intelligibility, plain and extended, by the package `pystoi`.

Both are defined at 10 kHz, on 15 third-octave bands of which the highest reaches 4277 Hz, and on
segments of 30 frames (384 ms) from which the frames 40 dB below the loudest of the reference are
taken out. Signals of another rate are resampled by the package, as its authors' code does. Audio
below 10 kHz could be upsampled, but 8 kHz audio has only part of the highest band: it is refused.
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
_FRAME = 256  # samples at that rate; shorter audio makes the package fail
_TOO_SHORT = (
    "fewer than 30 frames (about 0.4 s) of the reference are left without its silent frames"
)
_LOCK = threading.Lock()


@contextmanager
def _fixed_noise() -> Iterator[None]:
    """Fix what numpy's global generator gives within, and leave it as it was.

    The package adds noise of 1e-16 from it before it normalises. Where the estimate has digital
    silence that noise is all there is, and the figure changes in the third digit from call to call.
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
        # with the warning the package returns 1e-5, which is no measurement
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            value = pystoi.stoi(reference.numpy(), estimate.numpy(), sample_rate, extended)
        except RuntimeWarning as warning:
            raise Undefined(f"{metric}: {_TOO_SHORT}") from warning
    return float(value)


def stoi(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Short-time objective intelligibility. Speech only.

    Taal, Hendriks, Heusdens, Jensen 2011, An Algorithm for Intelligibility Prediction of
    Time-Frequency Weighted Noisy Speech (IEEE TASLP 19(7)). The signals must be aligned in time.

    Args:
        reference: speech, `[T]`, float, with 0.4 s or more that is not silent.
        estimate: `[T]`, float, as long.
        sample_rate: Hz, 10000 or more.

    Returns:
        A correlation, -1..1, in practice 0..1; higher is better, 1 for a perfect estimate.

    Raises:
        Undefined: below 10 kHz, where a signal is silent, or too little speech is left.
        ValueError: if the signals are bad or differ in length.
    """
    return _measure("stoi", reference, estimate, sample_rate, extended=False)


def estoi(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Extended short-time objective intelligibility, for noise that fluctuates. Speech only.

    Jensen and Taal 2016, An Algorithm for Predicting the Intelligibility of Speech Masked by
    Modulated Noise Maskers (IEEE/ACM TASLP 24(11)). The noise that the package adds is fixed, so
    that equal signals give equal figures.

    Args:
        reference: speech, `[T]`, float, with 0.4 s or more that is not silent.
        estimate: `[T]`, float, as long.
        sample_rate: Hz, 10000 or more.

    Returns:
        A correlation, -1..1, in practice 0..1; higher is better, 1 for a perfect estimate.

    Raises:
        Undefined: below 10 kHz, where a signal is silent, or too little speech is left.
        ValueError: if the signals are bad or differ in length.
    """
    return _measure("estoi", reference, estimate, sample_rate, extended=True)
