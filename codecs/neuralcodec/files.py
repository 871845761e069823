"""Files of our own: where they are kept, and how they are written."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Give the folder of what can be made or fetched again.

    `NEURALCODEC_CACHE` if that is set, else "neuralcodec" in `XDG_CACHE_HOME` or in ~/.cache.
    """
    own = os.environ.get("NEURALCODEC_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "neuralcodec"


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
