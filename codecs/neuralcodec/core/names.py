"""Names: errors that say which known name was meant, and text that can always be printed."""

import difflib
from collections.abc import Iterable


def unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    """Make the error for an unknown `name`, naming the nearest known ones and all that are allowed.

    Nearest are those that begin with the name, as "encodec_24khz" does with "EnCodec", or else the
    one with the most similar spelling. Upper and lower case count as the same.

    Args:
        what: what the name stands for, in singular: "codec", "metric", "setting".
        name: the name that was asked for.
        known: the names that exist.

    Returns:
        ValueError: for the caller to raise.

    >>> str(unknown("codec", "opsu", ["opus", "mp3"]))
    "unknown codec 'opsu'; did you mean 'opus'? Known: mp3, opus"
    >>> str(unknown("codec", "dac", ["aac", "dac_16khz", "dac_24khz"]))
    "unknown codec 'dac'; did you mean 'dac_16khz' or 'dac_24khz'? Known: aac, dac_16khz, dac_24khz"
    """
    options = sorted(known)
    typed = name.lower().replace("-", "_")
    near = [each for each in options if typed and each.lower().startswith(typed)]
    if not near:  # whatever the case of either
        spelled = {each.lower(): each for each in options}
        near = [
            spelled[each] for each in difflib.get_close_matches(typed, spelled, n=1, cutoff=0.5)
        ]
    hint = f" did you mean {' or '.join(map(repr, near))}?" if near else ""
    return ValueError(f"unknown {what} {name!r};{hint} Known: {', '.join(options) or 'none'}")


def printable(text: object) -> str:
    r"""Return text that can be written as UTF-8; a byte of a file name that cannot is escaped.

    Python keeps such a byte as a lone surrogate, which files, databases and terminals refuse.

    >>> printable("caf\udce9.wav")
    'caf\\udce9.wav'
    """
    return str(text).encode(errors="backslashreplace").decode()
