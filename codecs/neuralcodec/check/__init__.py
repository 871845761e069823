"""Does a codec keep what its kind promises? A line a promise: pass, fail, or not applicable.

The lines measure on a second of recorded speech what the codec classes of `neuralcodec.core`
say in words. They say nothing on how good a codec sounds.
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
"""Every line by name."""


def _result(name: str, line: Callable[[Subject], Finding], subject: Subject) -> Result:
    try:
        found = line(subject)
    except NotApplicable as reason:
        return Result(name, "n.a.", "", "", str(reason))
    except Exception as error:  # a codec may break in any way, and the other lines still count
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        return Result(name, "fail", said, "no error", line.__doc__ or "")
    status: Status = "pass" if found.holds else "fail"
    return Result(name, status, found.measured, found.bound, found.explanation)


def run(codec: Any, *, trained: bool = True) -> list[Result]:
    """Try a codec on every line.

    Args:
        codec: any `Codec`, `LatentCodec`s included.
        trained: False for random weights, which reproduce no waveform.

    Returns:
        One result a line, in the order of `LINES`. An error that a codec raises is a failure of
        the line, and no error here.

    Raises:
        ValueError: if `codec` is no `Codec`.

    >>> from neuralcodec import load
    >>> [result.status for result in run(load("pcm")) if result.name == "length"]
    ['pass']
    """
    subject = Subject(codec, trained=trained)
    return [_result(name, line, subject) for name, line in LINES.items()]
