"""Perceptual evaluation of speech quality: ITU-T P.862 and its mappings, by the package `pesq`.

The package runs the ITU's reference code. That code keeps 50 utterances in arrays and checks no
bound: a reference with more overwrites its neighbours, and the figure or the process is lost. What
it counts as an utterance takes 97 frames of 4 ms at the least (46 of speech and 51 of pause: the
code drops runs below 50 frames, after growing each by 4, and joins runs over pauses up to 50). The
limit of 18.5 s, with the 0.6 s that the code adds, is 4775 frames: not enough for the 51st.
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
"""Shortest clip that the reference code takes."""

MAX_SECONDS = 18.5
"""Longest clip that can never hold more utterances than the reference code has room for."""


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
    """PESQ, wideband: ITU-T P.862.2, mapped to MOS-LQO. Speech only.

    Both signals are resampled to 16 kHz and scaled alike, then by the standard to one level each.
    The standard aligns them in time itself.

    Args:
        reference: speech, `[T]`, float, 0.25..18.5 s.
        estimate: `[T]`, float, as long.
        sample_rate: Hz, 16000 or more.

    Returns:
        MOS-LQO, higher is better: 4.64 for a perfect estimate, 1.04 for a raw score of -0.5; very
        bad ones go slightly below.

    Raises:
        Undefined: below 16 kHz, where a signal is silent, too short or too long (the module says
            why), or where the standard finds no utterance in the reference.
        ValueError: if the signals are bad or differ in length.
    """
    why = "half of the band it rates is missing; pesq_nb takes 8000 Hz"
    return _measure("pesq_wb", reference, estimate, sample_rate, 16000, why)


def pesq_nb(reference: Signal, estimate: Signal, sample_rate: int) -> float:
    """PESQ, telephone band: ITU-T P.862 at 8 kHz, mapped to MOS-LQO by P.862.1. Speech only.

    Both signals are resampled to 8 kHz, whatever their rate: the package's narrowband mode at
    16 kHz gives other figures.

    Args:
        reference: speech, `[T]`, float, 0.25..18.5 s.
        estimate: `[T]`, float, as long.
        sample_rate: Hz, 8000 or more.

    Returns:
        MOS-LQO, higher is better: 4.55 for a perfect estimate, 1.02 for a raw score of -0.5; very
        bad ones go slightly below.

    Raises:
        Undefined: below 8 kHz, and else as `pesq_wb`.
        ValueError: if the signals are bad or differ in length.
    """
    why = "part of the band it rates is missing"
    return _measure("pesq_nb", reference, estimate, sample_rate, 8000, why)
