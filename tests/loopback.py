"""A loopback HTTP server that can misbehave, and a toy checkpoint that it serves."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from neuralcodec import weights
from neuralcodec.weights import CHECKPOINTS, Checkpoint, download

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TOY = "toy/toy.bin"


@dataclass
class Server:
    """A loopback HTTP server and what was asked of it.

    Attributes:
        files: path -> content.
        moved: path -> the path that it redirects to.
        cut: bytes after which the next transfer breaks off; None to serve it whole.
        ranges: whether Range is honoured.
        pause: seconds between two pieces of a body.
        asked: (path, Range header or None) of every GET.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    ranges: bool = True
    pause: float = 0.0
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, wanted = request.path.partition("?")[0], request.headers.get("Range")
        if path in self.moved:
            request.send_response(302)
            request.send_header("Location", self.moved[path])
            request.send_header("Content-Length", "0")
            return request.end_headers()
        if request.command == "GET":
            self.asked.append((path, wanted))
        body = self.files.get(path)
        if body is None:
            return request.send_error(404)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start and start >= len(body):
            return request.send_error(416)
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body) - start))
        if "/resolve/" in path:  # what the client of the hub asks of a file
            request.send_header("X-Repo-Commit", path.split("/")[-2])
            request.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        request.end_headers()
        if request.command == "HEAD":
            return None
        body = body[start:]
        cut, self.cut = self.cut, None
        pieces = [body[at : at + 50_000] for at in range(0, len(body[:cut]), 50_000)]
        for piece in pieces if cut is None else [body[:cut]]:
            request.wfile.write(piece)
            request.wfile.flush()
            time.sleep(self.pause)
        return None


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Serve the toy, until the end of the block."""
    ours = Server(files={f"/{TOY}": CONTENT})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):  # a client that was killed
                ours.answer(self)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ours.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield ours
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def isolate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a test its own cache and a toy in the catalogue, and nothing of the user's settings."""
    for name in ("WEIGHTS", "MIRROR", "OFFLINE"):
        monkeypatch.delenv(f"NEURALCODEC_{name}", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NEURALCODEC_CACHE", str(folder / "cache"))
    download._unreachable.cache_clear()
    toy(monkeypatch, SHA256)


def toy(monkeypatch: pytest.MonkeyPatch, sha256: str | None) -> None:
    """Put the toy in the catalogue, with a URL that never resolves (RFC 6761)."""
    entry = Checkpoint(TOY, f"https://toy.invalid/{TOY}", "MIT", sha256)
    monkeypatch.setitem(CHECKPOINTS, "toy", entry)


def put(folder: Path, content: bytes = CONTENT, path: str = TOY) -> Path:
    """Write a file into a folder of weights."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def cached(path: str = TOY) -> Path:
    """Say where a download goes."""
    return weights.cache() / path
