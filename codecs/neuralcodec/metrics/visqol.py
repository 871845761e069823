"""ViSQOL v3 in audio and speech mode, by the package `visqol` (visqol-python, a port to Python).

Chinen, Lim, Skoglund, Gureev, O'Gorman, Hines 2020, ViSQOL v3: An Open Source Production Ready
Objective Speech and Audio Metric (arXiv:2004.09584). The first call in a new installation compiles
code for up to a minute; the result is cached.

Speech mode has two mappings from similarity to opinion score. This module always uses the
exponential mapping, a formula without further dependencies, in which a perfect estimate scores 5.0.
Google's program uses a lattice network by default, which needs a TFLite runtime and whose scores
are on another scale. With a fixed mapping a score does not depend on what else is installed.
"""

from functools import lru_cache

import torch
import visqol as package

from neuralcodec.core.audio import resample
from neuralcodec.metrics.signals import (
    Signal,
    Undefined,
    check_pair,
    require_duration,
    require_rate,
    require_sound,
)

_MIN_SECONDS = {"audio": 0.96, "speech": 0.64}
"""Duration of one patch: 45 and 29 frames of 80 ms with a hop of 20 ms."""


@lru_cache(maxsize=2)
def _api(mode: str) -> package.VisqolApi:
    api = package.VisqolApi()
    api.create(mode=mode, use_lattice_model=False)
    return api


def _measure(
    metric: str, mode: str, reference: Signal, estimate: Signal, sample_rate: int, rate: int
) -> float:
    reference, estimate, sample_rate = check_pair(reference, estimate, sample_rate)
    if mode == "speech":
        require_rate(metric, sample_rate, rate, "part of the band it rates is missing")
    require_sound(reference, estimate)
    require_duration(metric, reference, sample_rate, _MIN_SECONDS[mode])
    pair = resample(torch.stack([reference, estimate]), sample_rate, rate).double().numpy()
    try:
        value = float(_api(mode).measure_from_arrays(pair[0], pair[1], rate).moslqo)
    except ValueError as error:  # the estimate, aligned, is too short for any patch
        raise Undefined(f"{metric}: {error}") from error
    if value != value:
        raise Undefined(f"{metric}: the package returned NaN")
    return value


def visqol(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Return the ViSQOL score in audio mode, at 48 kHz, for any kind of audio.

    Both signals are resampled to 48 kHz. If their rate is lower, both are empty above its Nyquist
    frequency and agree there, so such scores are comparable among themselves only. The method
    itself matches levels and compensates delays.

    Args:
        reference: `[T]`, float, at least 0.96 s.
        estimate: `[T]`, float, of the same length.
        sample_rate: Hz.

    Returns:
        MOS-LQO in [1, 5]; higher is better, about 4.73 for a perfect estimate.

    Raises:
        Undefined: if a signal is silent or too short, or the two cannot be aligned.
        ValueError: if a signal is invalid (see `check_pair`) or the lengths differ.
    """
    return _measure("visqol", "audio", reference, estimate, sample_rate, 48000)


def visqol_speech(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Return the ViSQOL score in speech mode with the exponential mapping, at 16 kHz. Speech only.

    Both signals are resampled to 16 kHz. The method evaluates frequencies up to 8 kHz, in patches
    where the reference contains speech. It matches levels and compensates delays itself.

    Args:
        reference: speech, `[T]`, float, at least 0.64 s.
        estimate: `[T]`, float, of the same length.
        sample_rate: Hz, at least 16000.

    Returns:
        MOS-LQO in [1, 5]; higher is better, 5 for a perfect estimate.

    Raises:
        Undefined: if the sample rate is below 16 kHz, a signal is silent or too short, or the two
            cannot be aligned.
        ValueError: if a signal is invalid (see `check_pair`) or the lengths differ.
    """
    return _measure("visqol_speech", "speech", reference, estimate, sample_rate, 16000)
