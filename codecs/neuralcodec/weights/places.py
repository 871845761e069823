"""The places of checkpoints: folders of the user, the cache, and downloads with checksums.

A checkpoint is looked for, in this order,

1. in the folders that NEURALCODEC_WEIGHTS names (several as in PATH), at `Checkpoint.path`;
2. in the cache: `weights/` in the folder that NEURALCODEC_CACHE names, or in the user's cache of
   neuralcodec (`~/.cache/neuralcodec` on Linux, moved by XDG_CACHE_HOME);
3. where it is published, or under the URL in NEURALCODEC_MIRROR; the download fills the cache.
   HF_ENDPOINT moves the Hugging Face hub.

All files are compared with their checksum, once per process. A wrong file in the cache is an error
until `neuralcodec weights fetch NAME --force` replaces it, because the user should learn of a
damaged disk or a changed publication.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm.auto import tqdm

from neuralcodec.core.files import cache_folder
from neuralcodec.core.names import unknown
from neuralcodec.weights import registry
from neuralcodec.weights.download import download, why_offline
from neuralcodec.weights.registry import CHECKPOINTS, Checkpoint, hub_url


class WeightsMissing(FileNotFoundError):
    """A checkpoint cannot be found; the message states in one line which one and how to fix it."""


def _entry(name: str) -> Checkpoint:
    if name not in CHECKPOINTS:
        raise unknown("checkpoint", name, CHECKPOINTS)
    return CHECKPOINTS[name]


def _folders() -> list[Path]:
    named = os.environ.get("NEURALCODEC_WEIGHTS", "").split(os.pathsep)
    folders = [Path(name).expanduser() for name in named if name]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"NEURALCODEC_WEIGHTS names {str(folder)!r}, which is no folder")
    return folders


def cache() -> Path:
    """Return the folder of downloads, which may not exist yet."""
    return cache_folder() / "weights"


def find(name: str) -> Path | None:
    """Return where the checkpoint `name` is on this machine, or None; nothing is read.

    Raises:
        ValueError: if there is no such checkpoint, or NEURALCODEC_WEIGHTS names no folder.
    """
    places = (folder / _entry(name).path for folder in [*_folders(), cache()])
    return next((path for path in places if path.is_file()), None)


def check(name: str, path: Path) -> bool:
    """Compare the file at `path` with the known checksum of the checkpoint `name`.

    Returns:
        Whether a checksum is known, be it published or that of the first download.

    Raises:
        ValueError: if it differs; the message has the file, both checksums and how to fix it.
    """
    entry = _entry(name)
    known = [entry.sha256, None if entry.is_pinned else registry.read_note(path)]
    for sha256 in filter(None, known):
        if different := registry.difference(path, sha256):
            ours = path == cache() / entry.path
            cure = f"neuralcodec weights fetch {name} --force" if ours else "remove or replace it"
            raise ValueError(f"{path} is not the published file: {different}; {cure}")
    return any(known)


@contextmanager
def _downloading(what: str, offline: str | None, cure: str) -> Iterator[None]:
    """Turn any network error in this context into `WeightsMissing` with the text `cure`."""
    try:
        yield
    except Exception as error:  # of the HTTP library that pooch or huggingface_hub uses
        if isinstance(error, ValueError) or getattr(error, "errno", None) is not None:
            raise  # a wrong name or checksum, or the disk
        cause = error.__cause__ or error
        reason = offline or " ".join(f"{type(cause).__name__}: {cause}".split())
        message = f"{what} is not here and can't be downloaded ({reason}): {cure}"
        raise WeightsMissing(message) from error


def fetch(name: str, *, again: bool = False) -> Path:
    """Download the checkpoint `name` into the cache unless it is there, and return its path.

    Of several processes that fetch the same file one downloads it and the others wait.

    Args:
        name: a key of `CHECKPOINTS`.
        again: download and replace the file even if it is in the cache.

    Raises:
        WeightsMissing: if it cannot be downloaded; the message has the URL, the checksum and where
            to put the file.
        ValueError: if the checksum of the download is not the published one.
        OSError: if the cache cannot be written.
    """
    entry = _entry(name)
    path = cache() / entry.path
    if path.is_file() and not again:
        return path
    offline = why_offline(registry.published(cache()).get_url(entry.path))
    cure = (
        f"get {entry.url} (sha256 {registry.shown(entry.sha256)}) and put it at {path} or set "
        f"NEURALCODEC_WEIGHTS to a folder with {entry.path}"
    )
    with _downloading(name, offline, cure):
        if offline:
            raise ConnectionError(offline)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if again or not path.is_file():  # another process may have been quicker
                download(entry, path)
    return path


def locate(name: str, path: str | Path | None = None) -> Path:
    """Return a file to load: `path` if given, or the checkpoint `name`, downloaded if necessary.

    Args:
        name: a key of `CHECKPOINTS`.
        path: the user's own file, whose checksum is not compared; or a folder with a file of the
            checkpoint's name, such as "lyragan.tflite".

    Raises:
        WeightsMissing: if there is no file at `path`, or the checkpoint cannot be downloaded.
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
    """The progress bar of huggingface_hub, shown only on a terminal."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings | {"disable": None})


def hub_folder(model: str, revision: str | None = None) -> Path:
    """Return a folder with the configuration and the safetensors weights of a Hugging Face model.

    Args:
        model: a folder, which is returned as it is; or the model's name on the hub. A folder of
            that name in one of NEURALCODEC_WEIGHTS comes first, whatever its revision, then the
            cache of huggingface_hub and a download.
        revision: commit, tag or branch on the hub; default its main branch. Only a commit always
            names the same files.

    Raises:
        WeightsMissing: if it is not on this machine and cannot be downloaded.
        ValueError: if `model` cannot be the name of a model on the hub.
    """
    places = [Path(model).expanduser(), *(folder / model for folder in _folders())]
    found = next((place for place in places if place.is_dir()), None)
    if found is not None:
        return found
    if model.startswith((".", "~", os.sep)):
        raise WeightsMissing(f"there is no folder {model}")

    from huggingface_hub import snapshot_download

    url = f"{hub_url()}/{model}"
    offline = why_offline(url)
    cure = (
        f"get {url} at revision {revision or 'main'}, and give the folder, or set "
        f"NEURALCODEC_WEIGHTS to a folder with {model}/config.json and {model}/*.safetensors"
    )
    with _downloading(model, offline, cure):
        folder = snapshot_download(
            model,
            revision=revision,
            allow_patterns=["*.json", "*.safetensors"],
            local_files_only=offline is not None,
            endpoint=hub_url(),
            tqdm_class=_Bar,
        )
    return Path(folder)
