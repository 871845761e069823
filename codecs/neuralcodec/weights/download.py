"""One checkpoint from the web, by pooch, or from the Hugging Face hub, by huggingface_hub."""

import logging
import os
import shutil
import sys
from pathlib import Path

import pooch

from neuralcodec.weights import checksums
from neuralcodec.weights.network import CONNECT_SECONDS
from neuralcodec.weights.registry import Checkpoint, hub_url, published

_SILENCE_SECONDS = 30.0  # between two pieces of a transfer
_CHUNK_BYTES = 2**16


def _transfer(url: str, target: Path) -> None:
    if not url.startswith(f"{hub_url()}/"):
        import requests

        get = pooch.HTTPDownloader(
            progressbar=sys.stderr.isatty(),
            chunk_size=_CHUNK_BYTES,
            timeout=(CONNECT_SECONDS, _SILENCE_SECONDS),
        )
        try:
            get(url, str(target), None)
        except requests.HTTPError as error:
            if error.response is not None:
                error.response.close()  # pooch leaves it open
            raise
        return
    from huggingface_hub import hf_hub_download

    model, _, pinned = url.removeprefix(f"{hub_url()}/").partition("/resolve/")
    revision, _, file = pinned.partition("/")
    folder = target.parent
    came = hf_hub_download(model, file, revision=revision, local_dir=folder, endpoint=hub_url())
    os.replace(came, target)


def download(entry: Checkpoint, target: Path) -> None:
    """Download a checkpoint into the file `target`, which is replaced once the new one is right.

    Raises:
        ValueError: if the checksum is not the published one.
        Exception: of requests, httpx or huggingface_hub, if the transfer fails; OSError with an
            errno if the file cannot be written.
    """

    def get(url: str, file: str, _: pooch.Pooch) -> None:
        _transfer(url, Path(file))
        if different := checksums.difference(Path(file), entry.sha256 or ""):
            raise ValueError(f"{url} is not the published file: {different}; it was removed")

    incoming = target.with_name(f"{target.name}.incoming")
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)  # it would announce the folder of incoming files
    try:
        shutil.rmtree(incoming, ignore_errors=True)  # of a process that was killed
        came = Path(published(incoming).fetch(entry.path, downloader=get))
        if not entry.is_pinned:
            note = f"{checksums.digest(came)}  {target.name}\n"
            checksums.note_of(target).write_text(note, encoding="utf-8")
        os.replace(came, target)
    finally:
        logger.setLevel(level)
        shutil.rmtree(incoming, ignore_errors=True)
