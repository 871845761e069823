"""Check that a codec keeps the contracts of its class: pass, fail or not applicable per contract.

The checks measure on about a second of recorded speech what the codec classes of
`neuralcodec.core` state in their docstrings. They do not measure how good a codec sounds.
"""

from collections.abc import Callable
from typing import Any

from neuralcodec.check import facts, laws, portability, robustness, signals
from neuralcodec.check.line import Finding, NotApplicable, Result, Status
from neuralcodec.check.subject import Subject

__all__ = ["LINES", "Result", "run"]

LINES: dict[str, Callable[[Subject], Finding]] = {
    "rates": facts.rates,
    "latents": facts.latents,
    "length": signals.length,
    "determinism": laws.determinism,
    "batch = single": laws.batch,
    "lengths": laws.lengths,
    "chunks = whole": laws.chunk,
    "stream = offline": laws.stream,
    "causality": laws.causality,
    "prefix": laws.prefix,
    "delay": signals.delay,
    "shift": signals.shift,
    "re-encoding": robustness.reencoding,
    "silence": robustness.silence,
    "levels": robustness.levels,
    "bad input": robustness.bad_input,
    "foreign tokens": robustness.foreign_tokens,
    "side effects": facts.side_effects,
    "autocast": portability.autocast,
    "copies": portability.copies,
}
"""All checks by name, in the order in which they run."""


def _result(name: str, line: Callable[[Subject], Finding], subject: Subject) -> Result:
    try:
        found = line(subject)
    except NotApplicable as reason:
        return Result(name, "n.a.", "", "", str(reason))
    except Exception as error:  # a codec may fail in any way; the other checks still run
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        return Result(name, "fail", said, "no error", line.__doc__ or "")
    status: Status = "pass" if found.holds else "fail"
    return Result(name, status, found.measured, found.bound, found.explanation)


def run(codec: Any, *, trained: bool = True) -> list[Result]:
    """Run every check on a codec.

    Args:
        codec: any `Codec`, including `LatentCodec`s.
        trained: whether the weights are trained; random weights reproduce no waveform.

    Returns:
        One result per check, in the order of `LINES`. A check during which the codec raises an
        error has failed; the error is not raised here.

    Raises:
        ValueError: if `codec` is not a `Codec`.

    >>> from neuralcodec import load
    >>> [result.status for result in run(load("pcm")) if result.name == "length"]
    ['pass']
    """
    subject = Subject(codec, trained=trained)
    return [_result(name, line, subject) for name, line in LINES.items()]
