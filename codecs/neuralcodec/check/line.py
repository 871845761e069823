"""A line of the check: what it measures, what it asks for, and what came of it."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "fail", "n.a."]


@dataclass(frozen=True)
class Result:
    """What became of one line.

    Attributes:
        name: of the line.
        status: "pass", "fail", or "n.a." where the codec can't be asked that.
        measured: what was seen, with its unit.
        bound: what was asked for, or "reported" where nothing is.
        explanation: what the measurement means; for "n.a." the reason.
    """

    name: str
    status: Status
    measured: str
    bound: str
    explanation: str


@dataclass(frozen=True)
class Finding:
    """What a line found, with the fields of `Result`."""

    holds: bool
    measured: str
    bound: str
    explanation: str = ""


class NotApplicable(Exception):
    """A codec can't be asked what a line asks; the message says why."""
