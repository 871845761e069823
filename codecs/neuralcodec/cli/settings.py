"""Settings of a codec on the command line: `--set KEY=VALUE`, as often as there are settings."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def scalar(text: str) -> Any:
    """Read a value: a finite number, true, false or null in any case, or else the text itself.

    >>> [scalar(text) for text in ("12", "1.5", "False", "starter:fit", "nan", "")]
    [12, 1.5, False, 'starter:fit', 'nan', '']
    """
    plain = text.lower() if text.lower() in ("true", "false", "null") else text
    try:
        value = json.loads(plain)
    except (ValueError, RecursionError):  # brackets without end are a text too
        return text
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if finite and not isinstance(value, list | dict | str) else text


def text_of(value: object) -> str:
    """Write a value as `scalar` reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def parse(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read what was given with `--set`.

    Args:
        pairs: such as "bits=12"; a value may be empty, a key may not.

    Raises:
        ValueError: if one is no pair, or a key is given twice.

    >>> parse(["bitrate_kbps=32", "vbr=False"])
    {'bitrate_kbps': 32, 'vbr': False}
    """
    found: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(f"--set takes KEY=VALUE, got {pair!r}")
        if key in found:
            raise ValueError(f"--set {key} is given twice, as {found[key]!r} and {value!r}")
        found[key] = value
    # A folder of weights may have a number as its name.
    return {k: v if k.endswith("weights") else scalar(v) for k, v in found.items()}


def build(codec: str, settings: Mapping[str, Any]) -> Any:
    """Load a codec with settings that somebody typed.

    Raises:
        ValueError, ImportError, OSError: as `neuralcodec.load`; ValueError too if a value is of a
            kind that the codec can't work with, such as a word for a number.
    """
    from neuralcodec.core.loading import load

    try:
        return load(codec, **settings)
    except (TypeError, RuntimeError) as error:
        if not settings:  # then it is no fault of theirs
            raise
        shown = " ".join(f"{key}={text_of(value)}" for key, value in settings.items())
        said = str(error).partition("\n")[0]
        raise ValueError(f"codec {codec!r} can't be built with {shown}: {said}") from error
