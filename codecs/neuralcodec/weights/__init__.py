"""Where checkpoints come from: a folder, the cache, or a download with its checksum.

A checkpoint is looked for, in this order,

1. in the folders that NEURALCODEC_WEIGHTS names (several as in PATH), at `Checkpoint.path`;
2. in the cache: `weights/` in the folder that NEURALCODEC_CACHE names, else in the user's cache of
   neuralcodec (`~/.cache/neuralcodec` on Linux, moved by XDG_CACHE_HOME);
3. where it is published, or under NEURALCODEC_MIRROR, a URL to which `Checkpoint.path` is added;
   that fills the cache. HF_ENDPOINT moves the Hugging Face hub.

Files of all three are held against their checksum, once a process. One in the cache that turns out
wrong stays until `neuralcodec weights fetch NAME --force`: a damaged disk or a file that changed
where it is published is for the user to know.
"""

import os
import sys
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from neuralcodec.core.files import cache_folder
from neuralcodec.core.names import unknown
from neuralcodec.weights import checksums, download
from neuralcodec.weights.checkpoints import CHECKPOINTS, HUB, Checkpoint

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "WeightsMissing",
    "cache",
    "check",
    "fetch",
    "find",
    "hub_folder",
    "locate",
]


class WeightsMissing(FileNotFoundError):
    """A checkpoint is nowhere to be found; the message says in one line which, and the cure."""


def _entry(name: str) -> Checkpoint:
    if name not in CHECKPOINTS:
        raise unknown("checkpoint", name, CHECKPOINTS)
    return CHECKPOINTS[name]


def _folders() -> list[Path]:
    """List the folders that NEURALCODEC_WEIGHTS names."""
    named = os.environ.get("NEURALCODEC_WEIGHTS", "").split(os.pathsep)
    folders = [Path(name).expanduser() for name in named if name]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"NEURALCODEC_WEIGHTS names {str(folder)!r}, which is no folder")
    return folders


def cache() -> Path:
    """Say in which folder downloads are kept; it may not be there yet."""
    return cache_folder() / "weights"


def find(name: str) -> Path | None:
    """Say where the checkpoint `name` lies on this machine, or None; reads and downloads nothing.

    Raises:
        ValueError: if there is no such checkpoint, or NEURALCODEC_WEIGHTS names no folder.
    """
    entry = _entry(name)
    places = (folder / entry.path for folder in [*_folders(), cache()])
    return next((path for path in places if path.is_file()), None)


def check(name: str, path: Path) -> bool:
    """Hold the file at `path` against what is known of the checksum of checkpoint `name`.

    Returns:
        Whether anything is known: the published checksum, or one seen at the first download.

    Raises:
        ValueError: if it differs; names the file, both checksums and the cure.
    """
    ours = path == cache() / _entry(name).path
    cure = f"neuralcodec weights fetch {name} --force" if ours else "remove or replace it"
    return checksums.check(path, _entry(name).sha256, cure)


def fetch(name: str, *, again: bool = False) -> Path:
    """Download the checkpoint `name` into the cache, if it is not there yet.

    Args:
        name: a key of `CHECKPOINTS`.
        again: download it even if it is there.

    Raises:
        WeightsMissing: if it can't be downloaded; says where else to put it.
        ValueError: if the checksum of what came is not the published one.
        OSError: if the cache can't be written.
    """
    entry, path = _entry(name), cache() / _entry(name).path
    mirror = os.environ.get("NEURALCODEC_MIRROR", "").rstrip("/")
    url = f"{mirror}/{entry.path}" if mirror else entry.url.replace(HUB, download.hub_url(), 1)
    try:
        download.fetch(url, path, entry.sha256, again=again)
    except download.Unavailable as error:
        raise WeightsMissing(
            f"{name} is not here and can't be downloaded ({error}): get {entry.url} "
            f"(sha256 {checksums.shown(entry.sha256)}) and put it at {path} or set "
            f"NEURALCODEC_WEIGHTS to a folder with {entry.path}"
        ) from error
    return path


def locate(name: str, path: str | Path | None = None) -> Path:
    """Give a file to load: `path` if given, else the checkpoint `name`, downloaded if need be.

    Args:
        name: a key of `CHECKPOINTS`.
        path: the user's own file, which is not held against any checksum; or a folder with a file
            of the checkpoint's name, such as "lyragan.tflite".

    Raises:
        WeightsMissing: if it is not here and can't be downloaded.
        ValueError: if a file's checksum is not the published one, or there is no such checkpoint.
    """
    if path is not None:
        own = Path(path).expanduser()
        if own.is_dir():
            own /= Path(_entry(name).path).name
        if not own.is_file():
            raise WeightsMissing(f"there is no file {own} to load for {name}")
        return own
    here = find(name)
    if here is None:
        return fetch(name)
    check(name, here)
    return here


class _Bar(tqdm):  # type: ignore[type-arg]  # generic in its stubs only
    """The progress bar of huggingface_hub, shown on a terminal only."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings | {"disable": not sys.stderr.isatty()})


def hub_folder(model: str, revision: str | None = None) -> Path:
    """Give a folder with the configuration and the safetensors weights of a Hugging Face model.

    Args:
        model: a folder, which is returned as it is; or the model's name on the hub. One of that
            name in a folder of NEURALCODEC_WEIGHTS comes first; then huggingface_hub's own cache
            and download, which check the content.
        revision: commit, tag or branch on the hub; default its main branch. Commits are what can be
            repeated. A folder of this machine is taken whatever its revision.

    Raises:
        WeightsMissing: if it is not here and can't be downloaded.
        ValueError: if the name is none that the hub could have.
    """
    places = [Path(model).expanduser(), *(folder / model for folder in _folders())]
    found = next((place for place in places if place.is_dir()), None)
    if found is not None:
        return found
    if model.startswith((".", "~", os.sep)):
        raise WeightsMissing(f"there is no folder {model}")

    from huggingface_hub import snapshot_download

    url = f"{download.hub_url()}/{model}"
    reason = download.why_offline(url)
    try:
        folder = snapshot_download(
            model,
            revision=revision,
            allow_patterns=["*.json", "*.safetensors"],
            local_files_only=reason is not None,
            tqdm_class=_Bar,
            endpoint=download.hub_url(),
        )
    except ValueError:
        raise
    except Exception as error:  # its errors are of whichever HTTP library it was built on
        reason = reason or f"{type(error).__name__}: {error}".splitlines()[0]
        raise WeightsMissing(
            f"{model} is not here and can't be downloaded ({reason}): get {url} at revision "
            f"{revision or 'main'}, and give the folder, or set NEURALCODEC_WEIGHTS to a folder "
            f"with {model}/config.json and {model}/*.safetensors"
        ) from error
    return Path(folder)
