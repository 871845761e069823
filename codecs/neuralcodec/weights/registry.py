"""The registry of checkpoints: names, URLs, checksums and licences, from `checkpoints.toml`.

If the published checksum is unknown, or only its first digits are known, the first download is
trusted: its checksum is written to NAME.sha256 in the format of `sha256sum`.
"""

import functools
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pooch

_HUB = "https://huggingface.co"
_FULL = 64  # hex digits of a whole SHA-256


@dataclass(frozen=True)
class Checkpoint:
    """A published file.

    Attributes:
        path: path in a folder of weights, such as "lyra/lyragan.tflite".
        url: URL where it is published, at a pinned revision.
        licence: licence of the weights.
        sha256: SHA-256 of its content in hex digits, or its known leading digits; None if unknown.
    """

    path: str
    url: str
    licence: str
    sha256: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether the whole checksum is known."""
        return self.sha256 is not None and len(self.sha256) == _FULL


def _read() -> dict[str, Checkpoint]:
    table = Path(__file__).with_name("checkpoints.toml").read_text(encoding="utf-8")
    return {name: Checkpoint(**row) for name, row in tomllib.loads(table).items()}


CHECKPOINTS: dict[str, Checkpoint] = _read()
"""All published files by name."""


def hub_url() -> str:
    """Return the address of the Hugging Face hub: HF_ENDPOINT, or huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")


def published(folder: Path) -> pooch.Pooch:
    """Return pooch's registry of all checkpoints, which downloads them into `folder`.

    Files come from the URL in NEURALCODEC_MIRROR, to which `Checkpoint.path` is added, or from
    where they are published. pooch has no partial checksums, so those are left out.
    """
    mirror = os.environ.get("NEURALCODEC_MIRROR")
    entries = CHECKPOINTS.values()
    return pooch.create(
        folder,
        base_url=mirror or hub_url(),
        registry={entry.path: entry.sha256 if entry.is_pinned else None for entry in entries},
        urls={} if mirror else {e.path: e.url.replace(_HUB, hub_url(), 1) for e in entries},
    )


@functools.cache
def _hash(path: str, size: int, changed_ns: int) -> str:
    """Hash a file once per process, and again if its size or modification time differs."""
    return str(pooch.file_hash(path))


def digest(path: Path) -> str:
    """Return the SHA-256 of the file at `path` as 64 hex digits."""
    stat = path.stat()
    return _hash(str(path.absolute()), stat.st_size, stat.st_mtime_ns)


def shown(known: str | None) -> str:
    """Return the known digits of a checksum for a message; a partial one ends in dots."""
    if known is None:
        return "unknown"
    return known if len(known) == _FULL else f"{known}..."


def difference(path: Path, known: str) -> str | None:
    """Return how the checksum of `path` differs from the leading digits `known`, or None."""
    if digest(path).startswith(known):
        return None
    return f"its sha256 is {digest(path)}, expected {shown(known)}"


def note_of(path: Path) -> Path:
    """Return the path of the file that holds the checksum of the first download of `path`."""
    return path.with_name(f"{path.name}.sha256")


def read_note(path: Path) -> str | None:
    """Return the checksum of the first download of `path`, or None if there is no such file.

    Raises:
        ValueError: if the file holds no checksum.
    """
    note = note_of(path)
    if not note.is_file():
        return None
    found = re.match(r"[0-9a-f]{64}\b", note.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise ValueError(f"{note} holds no sha256; remove it")
    return found[0]
