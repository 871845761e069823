"""Perceptual evaluation of speech quality (PESQ), ITU-T P.862 and its mappings.

The scores are computed by the package `pesq`, which wraps the ITU's reference code. That code
stores up to 50 utterances in fixed arrays without a bounds check: a reference with more of them
overwrites memory, which corrupts the score or ends the process. An utterance takes at least 97
frames of 4 ms: 46 of speech and 51 of pause, since the code drops runs below 50 frames after
extending each by 4, and joins runs across pauses of up to 50 frames. The limit of 18.5 s, with the
0.6 s that the code adds, is 4775 frames, which is too short for a 51st utterance.
"""

import pesq
import torch
from torch import Tensor

from neuralcodec.core.audio import resample
from neuralcodec.metrics.signals import (
    Signal,
    Undefined,
    check_pair,
    require_duration,
    require_rate,
    require_sound,
)

MIN_SECONDS = 0.25
"""Duration of the shortest clip that the reference code accepts."""

MAX_SECONDS = 18.5
"""Duration up to which a clip cannot exceed the reference code's limit of 50 utterances."""


def _measure(
    metric: str, reference: Signal, estimate: Signal, sample_rate: int, rate: int, why: str
) -> float:
    reference, estimate, sample_rate = check_pair(reference, estimate, sample_rate)
    require_rate(metric, sample_rate, rate, why)
    require_sound(reference, estimate)
    require_duration(metric, reference, sample_rate, MIN_SECONDS)
    duration = len(reference) / sample_rate
    if duration > MAX_SECONDS:
        raise Undefined(
            f"{metric} takes {MAX_SECONDS:g} s of audio or less, got {duration:.1f} s: the ITU's "
            f"code overruns its memory when a clip holds many utterances; cut the clip"
        )
    pair: Tensor = resample(torch.stack([reference, estimate]), sample_rate, rate)
    try:
        value = float(pesq.pesq(rate, *pair.numpy(), "wb" if rate == 16000 else "nb"))
    except pesq.PesqError as error:
        text = error.args[0] if error.args else type(error).__name__
        message = text.decode() if isinstance(text, bytes) else str(text)
        raise Undefined(f"{metric}: {message[:1].lower()}{message[1:]}") from error
    if value != value:
        raise Undefined(f"{metric}: the ITU's code returned NaN")
    return value


def pesq_wb(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Return wideband PESQ: ITU-T P.862.2, mapped to MOS-LQO. Speech only.

    Both signals are resampled to 16 kHz and scaled by a common factor. The standard itself then
    normalises the level of each signal and aligns them in time.

    Args:
        reference: speech, `[T]`, float, 0.25 to 18.5 s.
        estimate: `[T]`, float, of the same length.
        sample_rate: Hz, at least 16000.

    Returns:
        MOS-LQO; higher is better, 4.64 for a perfect estimate and 1.04 for a raw score of -0.5.
        Very poor estimates score slightly below.

    Raises:
        Undefined: if the sample rate is below 16 kHz, a signal is silent, too short or too long
            (see the module docstring), or the standard detects no utterance in the reference.
        ValueError: if a signal is invalid (see `check_pair`) or the lengths differ.
    """
    why = "half of the band it rates is missing; pesq_nb takes 8000 Hz"
    return _measure("pesq_wb", reference, estimate, sample_rate, 16000, why)


def pesq_nb(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """Return narrowband PESQ: ITU-T P.862 at 8 kHz, mapped to MOS-LQO by P.862.1. Speech only.

    Both signals are resampled to 8 kHz whatever their sample rate, since the narrowband mode of the
    package at 16 kHz returns different scores.

    Args:
        reference: speech, `[T]`, float, 0.25 to 18.5 s.
        estimate: `[T]`, float, of the same length.
        sample_rate: Hz, at least 8000.

    Returns:
        MOS-LQO; higher is better, 4.55 for a perfect estimate and 1.02 for a raw score of -0.5.
        Very poor estimates score slightly below.

    Raises:
        Undefined: if the sample rate is below 8 kHz, and otherwise as `pesq_wb`.
        ValueError: if a signal is invalid (see `check_pair`) or the lengths differ.
    """
    why = "part of the band it rates is missing"
    return _measure("pesq_nb", reference, estimate, sample_rate, 8000, why)
