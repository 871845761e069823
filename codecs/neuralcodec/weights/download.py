"""Download of one checkpoint from the web or the Hugging Face hub, with fast failure offline.

pooch downloads from the web, huggingface_hub from the hub. Without a network both take 20 s and
more to fail, for name lookup and retries. So a connection is tried first, which must be established
within `CONNECT_SECONDS`.
"""

import asyncio
import functools
import logging
import os
import queue
import shutil
import socket
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import pooch

from neuralcodec.weights import registry
from neuralcodec.weights.registry import Checkpoint, hub_url

CONNECT_SECONDS = 1.5
"""Time limit in seconds for name lookup and connection together."""
_SILENCE_SECONDS = 30.0  # time limit between two pieces of a transfer
_CHUNK_BYTES = 2**16


async def _connect(host: str, port: int) -> None:
    # addresses are tried in parallel: if IPv6 does not work, IPv4 answers in time
    connecting = asyncio.open_connection(host, port, happy_eyeballs_delay=0.1)
    _, writer = await asyncio.wait_for(connecting, CONNECT_SECONDS)
    writer.close()


def _try(host: str, port: int, answer: "queue.SimpleQueue[str]") -> None:
    try:
        # looked up here first, because the interpreter's exit waits for lookups of asyncio
        socket.getaddrinfo(host, port)
        asyncio.run(_connect(host, port))
        answer.put("")
    except OSError as error:
        answer.put(f"no connection to {host}: {error.strerror or error}")


@functools.cache
def _unreachable(host: str, port: int) -> str:
    """Return why the host cannot be reached, or ""; each host is tried once per process."""
    answer: queue.SimpleQueue[str] = queue.SimpleQueue()
    # a thread that may outlive the call, because a name lookup cannot be interrupted
    threading.Thread(target=_try, args=(host, port, answer), daemon=True).start()
    try:
        return answer.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        return f"no connection to {host} within {CONNECT_SECONDS:g} s"


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


def why_offline(url: str) -> str | None:
    """Return why nothing can be downloaded from `url`, or None if its host answers.

    NEURALCODEC_OFFLINE=1 forbids all downloads, HF_HUB_OFFLINE=1 those from the Hugging Face hub.
    Each host is tried once per process, and not at all if a proxy is set for it.

    Raises:
        ValueError: if `url` is not an http(s) URL.
    """
    parts = urlsplit(url)
    host, scheme = parts.hostname, parts.scheme
    if scheme not in ("http", "https") or not host:
        raise ValueError(f"{url!r} is no URL that begins with http:// or https:// and a host")
    if _is_on("NEURALCODEC_OFFLINE"):
        return "NEURALCODEC_OFFLINE is set"
    if _is_on("HF_HUB_OFFLINE") and parts.netloc == urlsplit(hub_url()).netloc:
        return "HF_HUB_OFFLINE is set"
    if {scheme, "all"} & getproxies().keys() and not proxy_bypass(host):
        return None
    return _unreachable(host, parts.port or (443 if scheme == "https" else 80)) or None


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
    """Download a checkpoint to `target`, which is replaced only once the new file is verified.

    Raises:
        ValueError: if the checksum is not the published one.
        Exception: an error of requests, httpx or huggingface_hub if the transfer fails; OSError
            with an errno if the file cannot be written.
    """

    def get(url: str, file: str, _: pooch.Pooch) -> None:
        _transfer(url, Path(file))
        if different := registry.difference(Path(file), entry.sha256 or ""):
            raise ValueError(
                f"{url} is not the published file: {different}; it was removed, so try again or "
                f"put the right file at {target}"
            )

    incoming = target.with_name(f"{target.name}.incoming")
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)  # it would log the folder of incoming files
    try:
        shutil.rmtree(incoming, ignore_errors=True)  # left by a process that was killed
        came = Path(registry.published(incoming).fetch(entry.path, downloader=get))
        if not entry.is_pinned:
            note = f"{registry.digest(came)}  {target.name}\n"
            registry.note_of(target).write_text(note, encoding="utf-8")
        os.replace(came, target)
    finally:
        logger.setLevel(level)
        shutil.rmtree(incoming, ignore_errors=True)
