"""Settings of a codec in a file: which it may carry, so that a foreign file can do no harm.

A setting may name a file or a model to load. One from a file somebody sent must not decide that, so
no file carries such settings: it says only that there was one, and who decodes gives it anew.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from neuralcodec.bitstream.fields import BitstreamError

Setting = bool | int | float | str
"""What a setting in a file may be."""

NAMES_FILES: Mapping[str, frozenset[str]] = {
    "audio": frozenset({"starter", "starter:fit", "starter:test"}),
    "encodec_weights": frozenset({"random"}),
    "model": frozenset(),
    "revision": frozenset(),
    "weights": frozenset({"random"}),
}
"""Settings that name a file, a folder or a model, with the words that name none."""

LOCAL = frozenset({"beam_width", "device", "num_threads"})
"""Settings of the machine or of encoding alone: decoding has its own."""

LIMIT = 4096
"""Bytes of all settings, as JSON."""
_COUNT = 64
_LARGEST = 2**53  # integers of JSON are exact up to it
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,63}", re.ASCII)  # no path but a bare name


def _fault(name: str, value: object) -> str | None:
    """Say why a file may not carry a setting; None where it may."""
    if name in LOCAL:
        return "is the business of the machine that encodes or decodes"
    if name in NAMES_FILES and not (isinstance(value, str) and value in NAMES_FILES[name]):
        return "names something to load"
    if isinstance(value, str):
        return None if _WORD.fullmatch(value) else "is no plain word of 1..64 characters"
    if isinstance(value, float):
        return None if math.isfinite(value) else "is not finite"
    if isinstance(value, int):  # bool too
        return None if abs(value) <= _LARGEST else f"lies beyond +-{_LARGEST}"
    return "must be a number, true, false or a word"


def carried(
    settings: Mapping[str, Any], names_files: Sequence[str] = ()
) -> tuple[dict[str, Setting], tuple[str, ...]]:
    """Part a codec's settings into those that a file carries and the names of those it needs.

    `LOCAL` settings, and those that are None, a codec's own default, are in neither.

    Args:
        settings: as `neuralcodec.load` takes them.
        names_files: further settings of this codec that name something to load.

    >>> carried({"bits": 4, "weights": "my/checkpoint.th", "device": "cuda"})
    ({'bits': 4}, ('weights',))
    """
    given = {k: v for k, v in settings.items() if v is not None and k not in LOCAL}
    kept = {
        name: value
        for name, value in given.items()
        if _fault(name, value) is None and (name in NAMES_FILES or name not in names_files)
    }
    return kept, tuple(sorted(given.keys() - kept.keys()))


def check(settings: Mapping[str, Setting], needs: Sequence[str]) -> None:
    """Raise BitstreamError unless a file may carry these settings and names of needed ones."""
    for name in [*settings, *needs]:
        if not _NAME.fullmatch(name):
            raise BitstreamError(f"setting {name!r} is no name of 1..64 of a-z, 0-9 and _")
    for name, value in settings.items():
        fault = _fault(name, value)
        if fault:
            raise BitstreamError(
                f"a file may not carry the setting {name}={str(value)[:80]!r}: it {fault}"
            )
    both = sorted(settings.keys() & set(needs))
    if both or len(set(needs)) < len(needs):
        raise BitstreamError(f"settings stand there twice: {both or list(needs)}")
    if len(settings) + len(needs) > _COUNT:
        raise BitstreamError(f"there may be {_COUNT} settings, got {len(settings) + len(needs)}")


def to_json(settings: Mapping[str, Setting], needs: Sequence[str]) -> str:
    """Write settings as compact JSON, those needed as null; nothing for none.

    >>> to_json({"vbr": False, "bitrate_kbps": 12}, ["weights"])
    '{"bitrate_kbps":12,"vbr":false,"weights":null}'
    """
    if not settings and not needs:
        return ""
    found = json.dumps({**settings, **dict.fromkeys(needs)}, sort_keys=True, separators=(",", ":"))
    if len(found) > LIMIT:
        raise BitstreamError(f"settings take {len(found)} bytes; there may be {LIMIT}")
    return found


def _reject(word: str) -> Any:
    raise BitstreamError(f"a setting is {word}, which is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise BitstreamError(f"settings stand there twice: {sorted(name for name, _ in pairs)}")
    return dict(pairs)


def from_json(found: str) -> tuple[dict[str, Setting], tuple[str, ...]]:
    """Read settings and the names of those needed; the inverse of `to_json`.

    Raises:
        BitstreamError: if it is no JSON object. `check` judges what is in it.
    """
    if not found:
        return {}, ()
    try:
        values = json.loads(found, parse_constant=_reject, object_pairs_hook=_unique)
    except BitstreamError:
        raise
    except (ValueError, RecursionError) as error:  # nested too deep, or a number too long
        raise BitstreamError(f"the settings are no JSON: {found[:80]!r}") from error
    if not isinstance(values, dict):
        raise BitstreamError(f"the settings must be a JSON object, got {found[:80]!r}")
    needs = tuple(name for name, value in values.items() if value is None)
    return {name: value for name, value in values.items() if value is not None}, needs
