"""Errors for names that nobody knows: they say which name was meant."""

import difflib
from collections.abc import Iterable


def unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    """Make the error for an unknown `name`, naming the nearest known one and all that are allowed.

    Args:
        what: what the name stands for, in singular: "codec", "metric", "setting".
        name: the name that was asked for.
        known: the names that exist.

    Returns:
        ValueError: for the caller to raise.

    >>> str(unknown("codec", "opsu", ["opus", "mp3"]))
    "unknown codec 'opsu'; did you mean 'opus'? Known: mp3, opus"
    """
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return ValueError(f"unknown {what} {name!r};{hint} Known: {', '.join(options) or 'none'}")
