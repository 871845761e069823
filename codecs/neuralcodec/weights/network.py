"""Whether a host answers, known at once.

Without a network, pooch and huggingface_hub need 20 s and more to say so, in name lookup and in
retries. So a connection is tried first, which must be established within `CONNECT_SECONDS`.
"""

import asyncio
import functools
import os
import queue
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from neuralcodec.weights.registry import hub_url

CONNECT_SECONDS = 1.5
"""Limit for name lookup and connection together."""


async def _connect(host: str, port: int) -> None:
    # addresses are tried side by side: if IPv6 is broken, IPv4 answers in time
    connecting = asyncio.open_connection(host, port, happy_eyeballs_delay=0.1)
    _, writer = await asyncio.wait_for(connecting, CONNECT_SECONDS)
    writer.close()


def _try(host: str, port: int, answer: "queue.SimpleQueue[str]") -> None:
    try:
        # here first, because the exit of the interpreter waits for asyncio's own lookup
        socket.getaddrinfo(host, port)
        asyncio.run(_connect(host, port))
        answer.put("")
    except OSError as error:
        answer.put(f"no connection to {host}: {error.strerror or error}")


@functools.cache
def _unreachable(host: str, port: int) -> str:
    """Return why the host cannot be reached, or ""; tried once per process."""
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
    Each host is tried once per process, and not at all if a proxy is set, which connects for us.

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
