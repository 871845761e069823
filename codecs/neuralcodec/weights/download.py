"""One file over HTTP: whole or not at all, resumed after a break, and quick to see it's offline.

The bytes come through pooch's downloader. What is added: a part that an earlier call left is
continued (HTTP Range), the file appears only once its checksum is right, two processes don't fetch
the same file at once, and a host that can't be reached is known within `CONNECT_SECONDS`, then for
the life of the process.
"""

import os
import queue
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import pooch
from filelock import FileLock

from neuralcodec.weights import checksums
from neuralcodec.weights.checkpoints import HUB

CONNECT_SECONDS = 1.5
"""To find a host's address and connect to it, in all."""
_SILENCE_SECONDS = 30.0  # between two pieces of a transfer
_CHUNK_BYTES = 2**16  # what a break may lose

_unreachable: dict[tuple[str, int], str] = {}  # (host, port) -> reason


class Unavailable(OSError):
    """A file can't be fetched now; the message is the reason, without the file's name."""


def hub_url() -> str:
    """Say where the Hugging Face hub is: HF_ENDPOINT, else huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


def _probe(host: str, port: int, answer: "queue.SimpleQueue[str]") -> None:
    """Put "" into `answer` at the first connection, or the reason once every address failed."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        answer.put(f"{host} has no address: {error.strerror}")
        return

    def connect(address: Any) -> str:
        try:
            with socket.socket(*address[:3]) as probe:
                probe.settimeout(CONNECT_SECONDS)
                probe.connect(address[4])
        except OSError as error:
            return f"no connection to {host}: {error.strerror or error}"
        answer.put("")
        return ""

    # all at once: where IPv6 leads nowhere, IPv4 answers in time
    with ThreadPoolExecutor(len(addresses)) as pool:
        reasons = list(pool.map(connect, addresses))
    answer.put(reasons[0])


def why_offline(url: str) -> str | None:
    """Say why nothing can be fetched from `url`, or None if its host answers.

    NEURALCODEC_OFFLINE=1 forbids every download, HF_HUB_OFFLINE=1 those from the Hugging Face hub.
    A connection must come about within `CONNECT_SECONDS`; a host where it did not is not tried
    again by this process. Where a proxy is set it connects for us, and nothing is tried here.

    Raises:
        ValueError: if `url` is no http(s) URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL that begins with http:// or https:// and a host")
    if _is_on("NEURALCODEC_OFFLINE"):
        return "NEURALCODEC_OFFLINE is set"
    if _is_on("HF_HUB_OFFLINE") and parts.netloc == urlsplit(hub_url()).netloc:
        return "HF_HUB_OFFLINE is set"
    host = (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    proxies = getproxies()
    proxied = (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(parts.hostname)
    if host not in _unreachable and not proxied:
        answer: queue.SimpleQueue[str] = queue.SimpleQueue()
        # a thread that may be left behind: nothing else ends the search for an address in time
        threading.Thread(target=_probe, args=(*host, answer), daemon=True).start()
        try:
            reason = answer.get(timeout=CONNECT_SECONDS)
        except queue.Empty:
            reason = f"no connection to {host[0]} within {CONNECT_SECONDS:g} s"
        if reason:
            _unreachable[host] = reason
    return _unreachable.get(host)


def _transfer(url: str, part: Path) -> None:
    """Fetch `url` into `part`, from where it ends on if the server can."""
    with part.open("ab") as file:
        start = file.tell()
        response: Any = None
        length = 0  # that the whole file must have, where the server tells

        def begin(got: Any, *args: object, **kwargs: object) -> None:
            # called with the headers, before pooch writes the content; for redirects too
            nonlocal response, length
            if got.is_redirect:
                return
            response = got
            if got.status_code == 200:  # the whole file, asked for or not
                file.truncate(0)
            if got.status_code in (200, 206) and "Content-Encoding" not in got.headers:
                length = file.seek(0, os.SEEK_END) + int(got.headers.get("Content-Length", 0))

        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        get = pooch.HTTPDownloader(
            progressbar=sys.stderr.isatty(),
            chunk_size=_CHUNK_BYTES,
            timeout=(CONNECT_SECONDS, _SILENCE_SECONDS),
            headers=headers,
            hooks={"response": begin},
        )
        try:
            get(url, file, None)
            broken = file.tell() < length  # not every version of urllib3 minds
        except OSError as error:
            if error.errno is not None:  # the disk's; those of the transfer have no number
                raise
            if response is None:
                said = " ".join(str(error).split())
                raise Unavailable(f"{type(error).__name__}: {said}") from error
            if response.status_code == 416:  # nothing comes after `start`: the part is all there is
                return
            if response.status_code >= 400:
                raise Unavailable(f"{url} answers HTTP {response.status_code}") from error
            broken = True
        finally:
            if response is not None:
                response.close()
        if broken:
            raise Unavailable(f"the transfer broke off after {file.tell()} bytes; run it again")


def fetch(url: str, target: Path, sha256: str | None, *, again: bool = False) -> None:
    """Fetch `url` into the file `target`, if that is not there yet.

    Until it is whole and right it is called NAME.part, and a later call continues it. Without a
    checksum it starts again, as nothing would tell whether two parts belong together.

    Args:
        url: http(s).
        target: the file; its folder is made.
        sha256: hex digits that its SHA-256 must begin with; None if unknown. Unless they are all
            64, what the file has is kept by `checksums.write_note`.
        again: fetch and replace it even if it is there.

    Raises:
        Unavailable: if the host can't be reached or has no such file, or the transfer broke off.
        ValueError: if the content has another checksum; then the part is removed.
        OSError: if it can't be written.
    """

    def is_done() -> bool:
        return target.is_file() and not again

    if is_done():
        return
    reason = why_offline(url)
    if reason:
        raise Unavailable(reason)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with FileLock(target.with_name(f"{target.name}.lock")):
        if is_done():  # another process was quicker
            return
        if sha256 is None:
            part.unlink(missing_ok=True)
        _transfer(url, part)
        got = checksums.digest(part)
        if not got.startswith(sha256 or ""):
            part.unlink()
            raise ValueError(
                f"{url} gave a file whose sha256 is {got}, expected "
                f"{checksums.shown(sha256)}; it was removed, run it again"
            )
        if len(sha256 or "") < checksums.FULL:
            checksums.write_note(target, got)
        os.replace(part, target)
