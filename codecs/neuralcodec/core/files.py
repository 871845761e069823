"""Files of our own: where they are kept, and how they are written."""

import os
from pathlib import Path

import pooch


def cache_folder() -> Path:
    """Give the folder of what can be made or fetched again; it may not be there yet.

    The one that `NEURALCODEC_CACHE` names, else the user's cache of neuralcodec:
    `~/.cache/neuralcodec` on Linux, moved by `XDG_CACHE_HOME`.
    """
    folder = os.environ.get("NEURALCODEC_CACHE") or pooch.os_cache("neuralcodec")
    return Path(folder).expanduser()


def expanded(path: str | Path) -> Path:
    """Return a path that a user gave, with a leading `~` replaced by the home folder.

    Unlike `Path.expanduser` it accepts a file whose name begins with `~`.
    """
    return Path(os.path.expanduser(path))


def write_whole(path: Path, contents: bytes) -> None:
    """Write a file so that it is there whole, or as it was before.

    Raises:
        OSError: if it cannot be written; the message names it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(contents)
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
