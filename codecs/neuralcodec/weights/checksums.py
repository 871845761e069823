"""SHA-256 of files, and a note of the one that the first download had.

If the published checksum is unknown, or only its first digits are known, the first download is
trusted: its checksum is written to NAME.sha256 in the format of `sha256sum`.
"""

import functools
import re
from pathlib import Path

import pooch

FULL = 64
"""Hex digits of a whole SHA-256."""


@functools.cache
def _hash(path: str, size: int, changed_ns: int) -> str:
    """Hash a file once per process, unless its size or time of change differs."""
    return str(pooch.file_hash(path))


def digest(path: Path) -> str:
    """Return the SHA-256 of the file at `path` as 64 hex digits."""
    stat = path.stat()
    return _hash(str(path.absolute()), stat.st_size, stat.st_mtime_ns)


def shown(known: str | None) -> str:
    """Return what is known of a checksum, for a message: a partial one ends in dots."""
    if known is None:
        return "unknown"
    return known if len(known) == FULL else f"{known}..."


def difference(path: Path, known: str) -> str | None:
    """Return how the checksum of `path` differs from the leading digits `known`, or None."""
    if digest(path).startswith(known):
        return None
    return f"its sha256 is {digest(path)}, expected {shown(known)}"


def note_of(path: Path) -> Path:
    """Return the file that holds the checksum of the first download of `path`."""
    return path.with_name(f"{path.name}.sha256")


def read_note(path: Path) -> str | None:
    """Return the checksum of the first download of `path`, or None; ValueError if it is garbled."""
    note = note_of(path)
    if not note.is_file():
        return None
    found = re.match(r"[0-9a-f]{64}\b", note.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise ValueError(f"{note} holds no sha256; remove it")
    return found[0]
