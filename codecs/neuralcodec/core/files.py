"""Files of our own: where they are kept, how they are written, and what they never replace."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import pooch

Target = str | Path | BinaryIO
"""A file, or a stream of bytes."""


def cache_folder() -> Path:
    """Return the folder of what can be made or fetched again; it may not exist yet.

    The one that `NEURALCODEC_CACHE` names, else the user's cache of neuralcodec:
    `~/.cache/neuralcodec` on Linux, moved by `XDG_CACHE_HOME`.
    """
    folder = os.environ.get("NEURALCODEC_CACHE") or pooch.os_cache("neuralcodec")
    return Path(folder).expanduser()


def _is_special(path: Path) -> bool:
    """Return whether a path leads to a device or a pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _is_same(target: Path, other: str | Path | int) -> bool:
    """Return whether two names, or a name and an open file, are one file."""
    try:
        return os.path.samefile(target, other)
    except OSError:  # one of them does not exist
        return False


def check_output(
    target: str | Path,
    inputs: Iterable[str | Path | int] = (),
    *,
    force: bool = False,
    ours: Callable[[Path], bool] | None = None,
) -> Path:
    """Check that a command may write a file, before it begins to work.

    Args:
        target: the file to write.
        inputs: what the command reads, files or open file descriptors. None of them is ever
            replaced, under whatever name: symbolic or hard link, other case, other spelling.
        force: whether another file may be replaced.
        ours: returns whether an existing file may be replaced without `force`, since the command
            wrote it; default none.

    Returns:
        Where to write: `target`, or the file that it leads to where it is a symbolic link, so that
        the link stays one. Devices and pipes are returned as they are.

    Raises:
        ValueError: if `target` is one of the inputs.
        FileExistsError: if it exists and may not be replaced.
        FileNotFoundError: if its folder does not exist.
        IsADirectoryError: if it is a folder.
    """
    path = Path(target)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file")
    if _is_special(path):
        return path
    for each in inputs:
        if _is_same(path, each):
            name = "standard input" if isinstance(each, int) else each
            raise ValueError(f"{path} is the same file as the input {name}: write to another one")
    real = Path(os.path.realpath(path))
    if not real.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name!r} in")
    if real.exists() and not force and not (ours is not None and ours(real)):
        raise FileExistsError(f"{path} exists already; --force replaces it")
    return real


def expanded(path: str | Path) -> Path:
    """Return a path that a user gave, with a leading `~` replaced by the home folder.

    Unlike `Path.expanduser` it accepts a file whose name begins with `~`.
    """
    return Path(os.path.expanduser(path))


def write_whole(path: Path, contents: bytes) -> None:
    """Write a file so that it is whole, or as it was before.

    A symbolic link stays one: the file that it leads to is written.

    Raises:
        OSError: if it cannot be written; the message names it.
    """
    real = Path(os.path.realpath(path))
    part = real.with_name(f".{real.name}.{os.getpid()}")
    try:
        part.write_bytes(contents)
        os.replace(part, real)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def put(target: Target, contents: bytes) -> None:
    """Write to a stream, a device or a pipe; or to a file as `write_whole` does.

    Raises:
        OSError: if it cannot be written.
    """
    if not isinstance(target, str | Path):
        target.write(contents)
    elif _is_special(Path(target)):
        Path(target).write_bytes(contents)
    else:
        write_whole(Path(target), contents)
