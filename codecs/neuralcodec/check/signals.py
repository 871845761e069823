"""Checks on the waveform: its length, its delay, and the codes of shifted audio."""

import math
from itertools import count

import torch
from torch import Tensor

from neuralcodec.check.compare import FLIPPED, ROUNDING, codes_apart, is_finite, relative_error, rms
from neuralcodec.check.line import Finding, NotApplicable
from neuralcodec.check.subject import Subject, arrays
from neuralcodec.metrics.si_sdr import best_lag

_DELAY_MS = 0.1
_ALIKE = 0.7  # least correlation at which a waveform counts as reproduced: SI-SDR of 0 dB
_SHIFT = 3  # frames
_SETTLED = 8  # frames that are skipped if the receptive field is unbounded or unknown


def _next_prime(start: int) -> int:
    return next(n for n in count(start) if all(n % d for d in range(2, math.isqrt(n) + 1)))


def _lengths(subject: Subject) -> list[int]:
    """Return lengths around one frame, and two primes: some frames and a tenth of a second."""
    hop = subject.hop
    primes = {_next_prime(7 * hop // 2 + 2), _next_prime(subject.sample_rate // 10)}
    return sorted({1, hop - 1, hop, hop + 1, 2 * hop + hop // 2, *primes} - {0})


def length(subject: Subject) -> Finding:
    """Audio of any length decodes to the same length."""
    wrong = []
    for samples in _lengths(subject):
        wav = subject.pass_through(subject.wav[..., :samples])
        if wav.shape != (1, subject.channels, samples):
            wrong.append(f"{samples} samples became {list(wav.shape)}")
        elif not is_finite(wav):
            wrong.append(f"{samples} samples became NaN or infinite")
    asked = ", ".join(map(str, _lengths(subject)))
    return Finding(not wrong, "; ".join(wrong) or "all kept", "kept", f"lengths {asked}")


def _correlation(reference: Tensor, estimate: Tensor, lag: int) -> float:
    """Return the absolute correlation of the overlap if `estimate [T]` is `lag` samples late."""
    size = len(reference)
    one = reference[max(-lag, 0) : size - max(lag, 0)]
    other = estimate[max(lag, 0) : size + min(lag, 0)]
    return abs(float(torch.corrcoef(torch.stack([one, other]).double())[0, 1]))


def delay(subject: Subject) -> Finding:
    """Decoded audio is aligned in time with the input."""
    if not subject.trained:
        raise NotApplicable("random weights reproduce no waveform")
    reference, estimate = subject.wav[0, 0], subject.decoded[0, 0]
    if estimate.shape != reference.shape or not is_finite(estimate) or rms(estimate) == 0:
        raise NotApplicable("nothing comes back that could be laid over the input")
    lag = best_lag(reference, estimate, len(reference) // 4)
    alike = _correlation(reference, estimate, lag)
    if alike < _ALIKE:
        raise NotApplicable(
            f"the waveform isn't reproduced, its phase is lost (correlation {alike:.2f} at best)"
        )
    bound = max(1, round(_DELAY_MS / 1000 * subject.sample_rate))
    return Finding(
        abs(lag) <= bound,
        f"{lag} samples late",
        f"-{bound}..{bound}, {_DELAY_MS} ms",
        f"lag of the highest correlation, {alike:.3f}",
    )


def _moved(subject: Subject, wav: Tensor, samples: int, skipped: int) -> float:
    """Return how much cutting off the first `samples` changes, from `skipped` frames after the cut.

    That is the fraction of codes that differ, or the relative error of the latents.
    """
    units = [subject.per_hop(rate) for rate in subject.frame_rates]
    whole, cut = arrays(subject.encode(wav)), arrays(subject.encode(wav[..., samples:]))
    start = skipped + samples // subject.hop
    one, other = [], []
    for unit, before, after in zip(units, whole, cut, strict=True):
        before, after = before[..., start * unit :], after[..., skipped * unit :]
        size = min(before.shape[-1], after.shape[-1])  # the cut clip may lack the last frame
        one.append(before[..., :size])
        other.append(after[..., :size])
    if not subject.has_codes:
        return relative_error(other[0], one[0])
    apart, total = codes_apart(other, one)
    return apart / total


def shift(subject: Subject) -> Finding:
    """Audio that begins some whole frames later has the same codes, shifted by as many frames."""
    subject.needs_frames()
    skipped = (subject.codec.encode_context or 0) if subject.is_limited else _SETTLED
    frames = skipped + _SHIFT + max(16, subject.length // subject.hop)
    wav = subject.speech(frames * subject.hop - subject.hop // 3)
    by_frames = _moved(subject, wav, _SHIFT * subject.hop, skipped)
    what = "codes differ" if subject.has_codes else "error of the latents"
    parts = [f"{by_frames:.2%} {what} at {_SHIFT} frames"]
    if subject.hop > 1:
        parts.append(f"{_moved(subject, wav, subject.hop // 2, skipped):.0%} at half a frame")
    measured = ", ".join(parts)
    bound = FLIPPED if subject.has_codes else ROUNDING
    if subject.is_limited:
        return Finding(
            by_frames <= bound,
            measured,
            f"{bound:.2%} at whole frames",
            f"away from the ends, {skipped} frames of context; half a frame is only reported",
        )
    return Finding(
        True, measured, "reported", f"after {_SETTLED} frames; no limit to its sight is stated"
    )
