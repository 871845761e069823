"""The outcome of one check: what was measured, and the bound that it must keep."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "fail", "n.a."]


@dataclass(frozen=True)
class Result:
    """The result of one check.

    Attributes:
        name: name of the check, a key of `neuralcodec.check.LINES`.
        status: "pass", "fail", or "n.a." where the check does not apply to the codec.
        measured: the measured value with its unit; empty for "n.a.".
        bound: what is required, or "reported" where nothing is; empty for "n.a.".
        explanation: what the measurement means; for "n.a." the reason.
    """

    name: str
    status: Status
    measured: str
    bound: str
    explanation: str


@dataclass(frozen=True)
class Finding:
    """What a check returns: whether its law holds, and the texts of a `Result`."""

    holds: bool
    measured: str
    bound: str
    explanation: str = ""


class NotApplicable(Exception):
    """Raised by a check that does not apply to a codec; the message gives the reason."""
