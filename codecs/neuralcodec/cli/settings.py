"""Settings of a codec on the command line: one option `--set KEY=VALUE` per setting."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralcodec.core.codec import Codec


def scalar(text: str) -> Any:
    """Return the value of a text: a finite number, a boolean, None or, failing these, the text.

    true, false and null are recognised in any case.

    >>> [scalar(text) for text in ("12", "1.5", "False", "starter:fit", "nan", "")]
    [12, 1.5, False, 'starter:fit', 'nan', '']
    """
    plain = text.lower() if text.lower() in ("true", "false", "null") else text
    try:
        value = json.loads(plain)
    except (ValueError, RecursionError):  # very deep brackets count as text
        return text
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if finite and not isinstance(value, list | dict | str) else text


def text_of(value: object) -> str:
    """Return a value as a text that `scalar` converts back."""
    return value if isinstance(value, str) else json.dumps(value)


def codec_names(incomplete: str) -> list[str]:
    """Return the names of codecs that begin so, for shell completion."""
    from neuralcodec.core.registry import names

    return [name for name in names() if name.startswith(incomplete)]


def parse(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Return the settings that were given with `--set`, by name.

    Args:
        pairs: texts such as "bits=12"; a value may be empty, a key may not.

    Raises:
        ValueError: if one is not a pair, or a key is given twice.

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
    # A folder of weights may have a number as its name, such as a step of training.
    return {k: v if k.endswith("weights") else scalar(v) for k, v in found.items()}


def build(codec: str, settings: Mapping[str, Any]) -> "Codec":
    """Build a codec with settings from the command line.

    Raises:
        ValueError, ImportError, OSError: as `neuralcodec.load`; ValueError also if a value has a
            type that the codec does not accept, such as a word for a number.
    """
    from neuralcodec.core.loading import load

    try:
        return load(codec, **settings)
    except (TypeError, RuntimeError) as error:
        if not settings:  # they cannot be the cause
            raise
        shown = " ".join(f"{key}={text_of(value)}" for key, value in settings.items())
        said = str(error).partition("\n")[0]
        raise ValueError(f"codec {codec!r} can't be built with {shown}: {said}") from error
