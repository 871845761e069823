"""SHA-256 of files: against the published one, and against the one seen at the first download.

Of some published files no checksum is known, or only its first digits. Then the first download is
trusted: what it had is written beside the file, as NAME.sha256 in the form of `sha256sum`, and
every later read is held against that too.
"""

import functools
import hashlib
import re
from pathlib import Path

FULL = 64
"""Hex digits of a whole SHA-256."""


@functools.cache
def _hash(path: str, size: int, changed_ns: int) -> str:
    """Hash a file once in a process, for as long as its size and time of change stay."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path) -> str:
    """Give the SHA-256 of the file at `path` as 64 hex digits."""
    stat = path.stat()
    return _hash(str(path.absolute()), stat.st_size, stat.st_mtime_ns)


def shown(known: str | None) -> str:
    """Write what is known of a checksum for a reader: leading digits end in dots."""
    if known is None:
        return "unknown"
    return known if len(known) == FULL else f"{known}..."


def note_of(path: Path) -> Path:
    """Say where the checksum seen at the first download of `path` is kept."""
    return path.with_name(f"{path.name}.sha256")


def write_note(path: Path, sha256: str) -> None:
    """Keep `sha256` as that of `path`."""
    note_of(path).write_text(f"{sha256}  {path.name}\n", encoding="utf-8")


def read_note(path: Path) -> str | None:
    """Give the checksum kept for `path`, or None.

    Raises:
        ValueError: if there is a note that holds none.
    """
    note = note_of(path)
    if not note.is_file():
        return None
    found = re.match(r"[0-9a-f]{64}\b", note.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise ValueError(f"{note} holds no sha256; remove it")
    return found[0]


def check(path: Path, published: str | None, cure: str) -> bool:
    """Hold the file at `path` against what is known of its checksum.

    Args:
        path: the file.
        published: hex digits that its SHA-256 begins with; None where none are known.
        cure: what mends a wrong file, as the end of a sentence.

    Returns:
        Whether anything was known to hold it against; if not, the file was not read.

    Raises:
        ValueError: if it differs; names the file, both checksums and the cure.
    """
    noted = None if published and len(published) == FULL else read_note(path)
    for known in filter(None, (published, noted)):
        if not digest(path).startswith(known):
            raise ValueError(
                f"{path} is not the published file: its sha256 is {digest(path)}, expected "
                f"{shown(known)}; {cure}"
            )
    return bool(published or noted)
