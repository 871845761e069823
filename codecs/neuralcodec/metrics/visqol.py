"""ViSQOL v3, audio and speech mode, by the package `visqol` (visqol-python, a port to Python).

Chinen, Lim, Skoglund, Gureev, O'Gorman, Hines 2020, ViSQOL v3: An Open Source Production Ready
Objective Speech and Audio Metric (arXiv:2004.09584). The first call in a fresh installation
compiles for up to a minute; the result is kept.

Speech mode has two mappings from similarity to opinion score. The exponential one is used here: it
is a formula and needs nothing more, and 5.0 is a perfect estimate. Google's program uses a lattice
network by default, which needs a TFLite runtime; its figures are on another scale. The
choice is fixed, so that a figure never depends on what else is installed.
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
"""What fills one patch: 45 and 29 frames of 80 ms, each 20 ms after the last."""


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
    """ViSQOL in audio mode, at 48 kHz, for any kind of audio.

    Both signals are resampled to 48 kHz. If their rate is lower, both are empty above half of it,
    where they then agree: figures of such references compare with each other only. Levels are
    matched and delays undone by the method itself.

    Args:
        reference: `[T]`, float, 0.96 s or more.
        estimate: `[T]`, float, as long.
        sample_rate: Hz.

    Returns:
        MOS-LQO, 1..5, higher is better; about 4.73 for a perfect estimate.

    Raises:
        Undefined: if a signal is silent or too short, or the two cannot be aligned.
        ValueError: if the signals are bad or differ in length.
    """
    return _measure("visqol", "audio", reference, estimate, sample_rate, 48000)


def visqol_speech(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """ViSQOL in speech mode with the exponential mapping, at 16 kHz. Speech only.

    Both signals are resampled to 16 kHz; the method rates up to 8 kHz, in patches where the
    reference speaks. Levels are matched and delays undone by the method itself.

    Args:
        reference: speech, `[T]`, float, 0.64 s or more.
        estimate: `[T]`, float, as long.
        sample_rate: Hz, 16000 or more.

    Returns:
        MOS-LQO, 1..5, higher is better; 5 for a perfect estimate.

    Raises:
        Undefined: below 16 kHz, if a signal is silent or too short, or the two cannot be aligned.
        ValueError: if the signals are bad or differ in length.
    """
    return _measure("visqol_speech", "speech", reference, estimate, sample_rate, 16000)
