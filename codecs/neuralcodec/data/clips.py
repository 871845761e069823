"""Sets of clips: a folder, a manifest, or the starter set, listed without opening the audio."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from neuralcodec.core import audio
from neuralcodec.core.audio import KINDS
from neuralcodec.core.files import expanded
from neuralcodec.core.names import printable, unknown
from neuralcodec.data.clip import Clip
from neuralcodec.data.manifest import read_manifest
from neuralcodec.data.starter_set import SPLITS, STARTER

MANIFEST = "manifest.csv"
"""A folder that holds a file of this name is read through it."""


def _kind_of(parts: tuple[str, ...]) -> str:
    """Return the kind that the names of the folders around a file give, the nearest first."""
    return next((part.lower() for part in reversed(parts) if part.lower() in KINDS), "unknown")


def _fail(error: OSError) -> None:
    raise OSError(error.errno, f"cannot list {error.filename}: {error.strerror}") from error


def _audio_below(folder: Path) -> Iterator[Path]:
    """Yield the audio files of a folder and its sub-folders, relative to it, without hidden ones.

    Raises:
        FileNotFoundError: if one is a link to nothing.
        OSError: if a folder cannot be listed; the message names it.
    """
    for place, folders, files in os.walk(folder, onerror=_fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in audio.EXTENSIONS:
                continue
            if path.is_file():
                yield path.relative_to(folder)
            elif path.is_symlink():
                raise FileNotFoundError(f"{path} is a link to a file that does not exist")


def _from_folder(folder: Path) -> list[Clip]:
    """Return the clips of a folder and its sub-folders, sorted by name."""
    around = folder.absolute().name
    found = [
        Clip(printable(path.as_posix()), folder / path, _kind_of((around, *path.parts[:-1])))
        for path in _audio_below(folder)
    ]
    for name, count in Counter(clip.name for clip in found).items():
        if count > 1:  # a name with an escape, and a file that is named like it
            raise ValueError(f"{folder} has two files that are written {name!r}; rename one")
    return sorted(found, key=lambda clip: clip.name)


def clips(source: str | Path, *, kind: str | None = None) -> list[Clip]:
    """Return the clips of a set without opening them; a file that is not audio fails on reading.

    Args:
        source: one of

            - "starter", or one split of it, "starter:fit" or "starter:test" (a folder of that name
              is "./starter");
            - a manifest: a CSV file with the column `file`, relative to the manifest, and
              optionally `kind`, `transcript`, `speaker`; other columns are ignored, and so are
              blanks around values and the case of the header;
            - a folder. If it holds a manifest.csv, its clips are those of the manifest. Otherwise
              they are the files with one of `audio.EXTENSIONS`, sub-folders included, but not
              links to folders; files and folders whose name begins with "." are left out. The kind
              is the name of the nearest folder around the file, up to `source` itself, that is one
              of `KINDS`.

            A leading `~` is the home folder.
        kind: kind that replaces "unknown".

    Returns:
        At least one clip, with unique names: in the manifest's order, or sorted by name.

    Raises:
        FileNotFoundError: if there is no such file or folder, a file in the manifest is missing, or
            an audio file in the folder is a link to nothing.
        OSError: if a folder cannot be listed.
        ValueError: if `source` is empty; if there is no clip; if the manifest has no column `file`,
            two columns of one name, a row with too many or too few fields, an unknown kind or the
            same file twice; or if `kind` or the split is unknown.

    >>> len(clips("starter:test")), clips("starter:test")[-1].kind
    (12, 'speech')
    """
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if isinstance(source, str) and not source.strip():
        raise ValueError(f"audio must be a folder, a manifest or 'starter', got {source!r}")
    path = expanded(source)
    if isinstance(source, str) and (source == "starter" or source.startswith("starter:")):
        split = source.partition(":")[2] if ":" in source else None
        if split is not None and split not in SPLITS:
            raise unknown("starter split", split, SPLITS)
        found = read_manifest(STARTER / MANIFEST, split=split)
    elif path.is_dir():
        manifest = path / MANIFEST
        has_manifest = manifest.is_file() or manifest.is_symlink()  # a link to nothing is an error
        found = read_manifest(manifest) if has_manifest else _from_folder(path)
    elif path.is_file() and path.suffix.lower() == ".csv":
        found = read_manifest(path)
    elif path.is_file():
        raise ValueError(f"{path} is no folder and no .csv manifest; name the folder it is in")
    else:
        raise FileNotFoundError(
            f"no folder or manifest at {path}; 'starter' is the set of the package"
        )
    if not found:
        endings = " ".join(sorted(audio.EXTENSIONS))
        raise ValueError(
            f"no clips in {path}; files that count end in one of {endings} and are not hidden"
        )
    if kind is None:
        return found
    return [replace(clip, kind=kind) if clip.kind == "unknown" else clip for clip in found]
