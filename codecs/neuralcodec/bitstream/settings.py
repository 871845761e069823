"""The settings of a codec that a file may hold, so that a foreign file can do no harm.

A setting may name a file or a model to load, and a file that somebody sent must not decide what is
loaded. So no file holds such settings, only the fact that there was one, and whoever decodes gives
it again.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from neuralcodec.bitstream.fields import BitstreamError, check_range

Setting = bool | int | float | str
"""Type of a setting in a file."""

NAMES_FILES: Mapping[str, frozenset[str]] = {
    "audio": frozenset({"starter", "starter:fit", "starter:test"}),
    "encodec_weights": frozenset({"random"}),
    "model": frozenset(),
    "revision": frozenset(),
    "weights": frozenset({"random"}),
}
"""Settings that name a file, a folder or a model, each with the words that name none."""

LOCAL = frozenset({"beam_width", "device", "num_threads"})
"""Settings of the machine or of encoding alone, which decoding does not need."""

LIMIT = 4096
"""Bytes of all settings, as JSON."""

_COUNT = 64
_LARGEST = 2**53  # JSON integers are exact up to it
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,63}", re.ASCII)  # no path but a bare name


def _fault(name: str, value: object) -> str | None:
    """Return why no file may hold a setting; None if one may."""
    if name in LOCAL:
        return "belongs to the machine that encodes or decodes"
    if name in NAMES_FILES and not (isinstance(value, str) and value in NAMES_FILES[name]):
        return "names something to load"
    if isinstance(value, str):
        return None if _WORD.fullmatch(value) else "is not a plain word of 1..64 characters"
    if isinstance(value, float):
        return None if math.isfinite(value) else "is not finite"
    if isinstance(value, int):  # bool too
        return None if abs(value) <= _LARGEST else f"is beyond ±{_LARGEST}"
    return "must be a number, true, false or a word"


def carried(
    settings: Mapping[str, Any], names_files: Sequence[str] = ()
) -> tuple[dict[str, Setting], tuple[str, ...]]:
    """Split a codec's settings into those that a file holds and the names of those it needs.

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
    """Raise BitstreamError unless a file may hold these settings and names of needed ones."""
    names = [*settings, *needs]
    for name in names:
        if not _NAME.fullmatch(name):
            raise BitstreamError(
                f"the name of a setting must be 1..64 letters, digits and _, got {name[:80]!r}"
            )
    for name, value in settings.items():
        fault = _fault(name, value)
        if fault:
            raise BitstreamError(f"no file may hold {name}={str(value)[:80]!r}: it {fault}")
    if len(set(names)) < len(names):
        raise BitstreamError(f"a setting is given twice: {sorted(names)}")
    check_range("the number of settings", len(names), 0, _COUNT)


def to_json(settings: Mapping[str, Setting], needs: Sequence[str]) -> str:
    """Return settings as compact JSON, those needed as null; "" if there are none.

    >>> to_json({"vbr": False, "bitrate_kbps": 12}, ["weights"])
    '{"bitrate_kbps":12,"vbr":false,"weights":null}'
    """
    if not settings and not needs:
        return ""
    found = json.dumps({**settings, **dict.fromkeys(needs)}, sort_keys=True, separators=(",", ":"))
    check_range("the bytes of the settings", len(found), 0, LIMIT)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise BitstreamError(f"a setting is given twice: {sorted(name for name, _ in pairs)}")
    return dict(pairs)


def from_json(found: str) -> tuple[dict[str, Setting], tuple[str, ...]]:
    """Return settings and the names of those needed; the inverse of `to_json`.

    Raises:
        BitstreamError: if it is not a JSON object. `check` judges what is in it.
    """
    try:
        values = json.loads(found or "{}", object_pairs_hook=_unique)
    except BitstreamError:
        raise
    except (ValueError, RecursionError) as error:  # nested too deep, or a number too long
        raise BitstreamError(f"the settings are not JSON: {found[:80]!r}") from error
    if not isinstance(values, dict):
        raise BitstreamError(f"the settings must be a JSON object, got {found[:80]!r}")
    needs = tuple(name for name, value in values.items() if value is None)
    return {name: value for name, value in values.items() if value is not None}, needs
