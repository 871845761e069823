"""Checks that all metrics apply to the two signals before they compute anything."""

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Signal: TypeAlias = Tensor | np.ndarray[Any, Any]
"""A mono signal as a float tensor or array, `[T]`, `[1, T]` or `[1, 1, T]`."""


class Undefined(ValueError):
    """Raised if a metric has no value for the given signals; the message gives the reason."""


def check_signal(name: str, signal: Signal) -> Tensor:
    """Return `signal` as a float64 tensor `[T]` on the CPU.

    Args:
        name: name for error messages: "reference" or "estimate".
        signal: `[T]`, `[1, T]` or `[1, 1, T]`, float, T >= 1.

    Raises:
        ValueError: if it is of another shape or type, is empty, or contains NaN or infinite
            samples.
    """
    if not isinstance(signal, Tensor | np.ndarray):
        raise ValueError(f"{name} must be a tensor or an array, got {type(signal).__name__}")
    shape = list(signal.shape)
    if not 1 <= len(shape) <= 3 or 0 in shape:
        raise ValueError(f"{name} must be [T], [1, T] or [1, 1, T] and not empty, got {shape}")
    if any(size != 1 for size in shape[:-1]):
        raise ValueError(
            f"{name} must be one channel of one clip, got {shape}: "
            f"mix down (neuralcodec.core.audio.mix_down) or score each channel"
        )
    if isinstance(signal, np.ndarray):
        if not np.issubdtype(signal.dtype, np.floating):
            raise ValueError(f"{name} must be float in [-1, 1], got {signal.dtype}")
        samples = torch.from_numpy(np.array(signal, dtype=np.float64))  # a copy: never the caller's
    else:
        if not signal.is_floating_point():
            raise ValueError(f"{name} must be float in [-1, 1], got {signal.dtype}")
        samples = signal.detach().cpu().double()
    samples = samples.reshape(-1)
    if not torch.isfinite(samples).all():
        bad = int(torch.isfinite(samples).logical_not().nonzero()[0])
        raise ValueError(f"{name} holds NaN or infinite samples, the first at sample {bad}")
    return samples


def check_rate(sample_rate: object) -> int:
    """Return `sample_rate` as an int.

    Raises:
        ValueError: if it is not a positive integer number of Hz.
    """
    if isinstance(sample_rate, int | np.integer) and not isinstance(sample_rate, bool):
        rate = int(sample_rate)
        if rate > 0:
            return rate
    raise ValueError(f"sample_rate must be a positive whole number of Hz, got {sample_rate!r}")


def check_pair(reference: Signal, estimate: Signal, sample_rate: int) -> tuple[Tensor, Tensor, int]:
    """Return both signals as float64 `[T]` on the CPU, and the sample rate as an int.

    Raises:
        ValueError: if a signal is invalid (see `check_signal`), the lengths differ, or the sample
            rate is not a positive integer.

    >>> check_pair(torch.zeros(2), torch.zeros(3), 16000)
    Traceback (most recent call last):
    ...
    ValueError: reference and estimate must be of one length, got 2 and 3 samples
    """
    rate = check_rate(sample_rate)
    pair = check_signal("reference", reference), check_signal("estimate", estimate)
    if len(pair[0]) != len(pair[1]):
        raise ValueError(
            f"reference and estimate must be of one length, got {len(pair[0])} and {len(pair[1])} "
            f"samples"
        )
    return *pair, rate


def is_silent(signal: Tensor) -> bool:
    """Return whether `signal [T]` is constant, which includes digital silence."""
    return bool(signal.max() == signal.min())


def require_sound(reference: Tensor, estimate: Tensor) -> None:
    """Raise `Undefined` if either signal is silent (`is_silent`)."""
    for name, signal in (("reference", reference), ("estimate", estimate)):
        if is_silent(signal):
            raise Undefined(f"the {name} is silent")


def require_rate(metric: str, sample_rate: int, needed: int, why: str) -> None:
    """Raise `Undefined` if `sample_rate` is below the `needed` Hz of `metric`."""
    if sample_rate < needed:
        raise Undefined(f"{metric} needs audio at {needed} Hz or more, got {sample_rate} Hz: {why}")


def require_duration(metric: str, signal: Tensor, sample_rate: int, seconds: float) -> None:
    """Raise `Undefined` if `signal [T]` is shorter than the `seconds` that `metric` needs."""
    duration = len(signal) / sample_rate
    if duration < seconds:
        raise Undefined(f"{metric} needs {seconds:g} s of audio or more, got {duration:.3f} s")
