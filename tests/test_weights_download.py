import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loopback import CONTENT, SHA256, TOY, Server, cached, put, toy
from neuralcodec import weights
from neuralcodec.weights import CHECKPOINTS, Checkpoint, WeightsMissing, download
from neuralcodec.weights.download import CONNECT_SECONDS

pytestmark = pytest.mark.usefixtures("own_weights")


def leftovers() -> set[str]:
    return {path.name for path in cached().parent.iterdir()} - {"toy.bin.lock"}


# Download


def test_download_leaves_nothing_else(mirror: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert weights.locate("toy").read_bytes() == CONTENT
    assert leftovers() == {"toy.bin"}
    assert capsys.readouterr() == ("", "")  # no progress bar where there is no terminal


def test_interrupted_download_leaves_nothing(mirror: Server) -> None:
    mirror.cut = 200_000
    with pytest.raises(WeightsMissing, match=r"^toy is not here .*\(\w+: .*200000") as error:
        weights.locate("toy")
    assert "\n" not in str(error.value)
    assert weights.find("toy") is None
    assert leftovers() == set()
    assert weights.locate("toy").read_bytes() == CONTENT
    assert leftovers() == {"toy.bin"}


@pytest.mark.parametrize("digits", [0, 8, 64])
def test_interrupted_replacement_keeps_the_file(
    digits: int, mirror: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, SHA256[:digits] or None)
    weights.locate("toy")
    before = leftovers()
    mirror.cut = 200_000
    with pytest.raises(WeightsMissing):
        weights.fetch("toy", again=True)
    assert leftovers() == before
    assert weights.locate("toy").read_bytes() == CONTENT
    assert len(mirror.asked) == 2


def test_redirects_are_followed(mirror: Server) -> None:
    mirror.moved[f"/{TOY}"] = "/elsewhere"  # as the hub and GitHub do
    mirror.files["/elsewhere"] = CONTENT
    assert weights.locate("toy").read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [CONTENT[::-1], CONTENT[:1000], b""])
def test_wrong_content_is_refused_and_removed(wrong: bytes, mirror: Server) -> None:
    mirror.files[f"/{TOY}"] = wrong
    got = hashlib.sha256(wrong).hexdigest()
    message = (
        f"^{mirror.url}/{TOY} is not the published file: its sha256 is {got}, expected {SHA256}; "
        f"it was removed, so try again or put the right file at {cached()}$"
    )
    with pytest.raises(ValueError, match=message):
        weights.locate("toy")
    assert leftovers() == set()
    mirror.files[f"/{TOY}"] = CONTENT
    assert weights.locate("toy").read_bytes() == CONTENT


def test_missing_on_the_server(mirror: Server) -> None:
    mirror.files.clear()
    with pytest.raises(WeightsMissing, match=r"404 .*toy\.bin\): get "):
        weights.locate("toy")


def _start(url: str) -> "subprocess.Popen[str]":
    """Locate the toy in another process."""
    entry = Checkpoint(TOY, "https://toy.invalid", "MIT", SHA256)
    code = (
        "from neuralcodec import weights\n"
        f"weights.CHECKPOINTS['toy'] = weights.{entry!r}\n"
        "print(weights.locate('toy'))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NEURALCODEC_MIRROR": url},
    )


def test_two_processes_download_once(server: Server) -> None:
    server.pause = 0.15
    pair = [_start(server.url), _start(server.url)]
    for process in pair:
        out, err = process.communicate(timeout=30)
        assert (out.strip(), err) == (str(cached()), "")
    assert cached().read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_killed_process_leaves_no_file_and_no_lock(mirror: Server) -> None:
    mirror.pause = 0.3
    process = _start(mirror.url)
    incoming = cached(f"{TOY}.incoming")
    deadline = time.monotonic() + 20

    def has_begun() -> bool:
        return any(path.is_file() and path.stat().st_size for path in incoming.rglob("*"))

    while not has_begun() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert has_begun()
    assert weights.find("toy") is None
    mirror.pause = 0.0
    assert weights.locate("toy").read_bytes() == CONTENT
    assert leftovers() == {"toy.bin"}


# Offline


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:  # bound but not listening: refuses
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Listen with a full queue: Linux drops what comes then, as a firewall would."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


def timed(call: Callable[[], Any]) -> float:
    start = time.monotonic()
    with pytest.raises(WeightsMissing) as error:
        call()
    assert "\n" not in str(error.value)
    return time.monotonic() - start


@pytest.mark.parametrize("port", [closed_port, silent_port])
def test_unreachable_host_is_known_at_once_and_remembered(
    port: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if port is silent_port and sys.platform != "linux":
        pytest.skip("other systems treat a full queue otherwise")
    with port() as number:
        monkeypatch.setenv("NEURALCODEC_MIRROR", f"http://127.0.0.1:{number}")
        assert timed(lambda: weights.locate("toy")) < CONNECT_SECONDS + 1
        assert timed(lambda: weights.locate("toy")) < CONNECT_SECONDS / 2
    assert not cached().parent.exists()


def test_name_without_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed(lambda: weights.locate("toy")) < 2


def test_name_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def wait(*args: object, **kwargs: object) -> None:
        end.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    assert timed(lambda: weights.locate("toy")) < CONNECT_SECONDS + 1
    assert timed(lambda: weights.locate("toy")) < CONNECT_SECONDS / 2
    end.set()


def test_one_dead_address_does_not_hide_a_live_one(
    mirror: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closed_port() as dead:
        live = int(mirror.url.rpartition(":")[2])
        both = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
            for port in (dead, live)
        ]
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: both)
            assert download.why_offline("http://two.invalid") is None


def test_message_says_all_in_one_line() -> None:
    with pytest.raises(WeightsMissing) as error:
        weights.locate("toy")
    entry = CHECKPOINTS["toy"]
    for part in ("toy is not here", entry.url, SHA256, str(cached()), "NEURALCODEC_WEIGHTS"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_offline_settings(mirror: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURALCODEC_OFFLINE", "1")
    with pytest.raises(WeightsMissing, match="NEURALCODEC_OFFLINE is set"):
        weights.locate("toy")
    monkeypatch.delenv("NEURALCODEC_OFFLINE")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert download.why_offline("https://huggingface.co/x/y") == "HF_HUB_OFFLINE is set"
    assert weights.locate("toy").read_bytes() == CONTENT  # not from the hub
    assert len(mirror.asked) == 1


def test_proxy_is_left_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as number:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{number}")
        assert download.why_offline("http://toy.invalid/x") is None
        monkeypatch.setenv("NEURALCODEC_MIRROR", "http://toy.invalid")
        with pytest.raises(WeightsMissing, match=r"\(ProxyError: .*toy\.invalid"):
            weights.locate("toy")


def test_mirror_must_be_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURALCODEC_MIRROR", "example.org/weights")
    with pytest.raises(ValueError, match=r"'example\.org/weights/toy/toy\.bin' is no URL"):
        weights.locate("toy")


# Files of the hub


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """The server as the Hugging Face hub, with the toy."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    place = f"/org/toy/resolve/{'c' * 40}/toy.bin"
    server.files[place] = CONTENT
    entry = Checkpoint(TOY, f"https://huggingface.co{place}", "MIT", SHA256)
    monkeypatch.setitem(CHECKPOINTS, "toy", entry)
    return server


def test_file_of_the_hub(hub: Server) -> None:
    assert weights.locate("toy") == cached()
    assert cached().read_bytes() == CONTENT
    assert leftovers() == {"toy.bin"}
    assert weights.locate("toy") == cached()
    assert len(hub.asked) == 1


def test_hub_follows_the_mirror_too(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURALCODEC_MIRROR", f"{hub.url}/copies")
    hub.files[f"/copies/{TOY}"] = CONTENT
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    assert weights.locate("toy").read_bytes() == CONTENT
    assert hub.asked == [(f"/copies/{TOY}", None)]


def test_interrupted_file_of_the_hub_is_tried_again(hub: Server) -> None:
    hub.cut = 200_000
    assert weights.locate("toy").read_bytes() == CONTENT
    assert len(hub.asked) == 2
    assert leftovers() == {"toy.bin"}


def test_wrong_file_of_the_hub_is_refused_and_removed(hub: Server) -> None:
    (place,) = (path for path in hub.files if path.startswith("/org"))
    hub.files[place] = CONTENT[::-1]
    with pytest.raises(ValueError, match=rf"^{hub.url}{place} is not the published file: .*remov"):
        weights.locate("toy")
    assert leftovers() == set()
    hub.files[place] = CONTENT
    assert weights.locate("toy").read_bytes() == CONTENT


def test_file_missing_on_the_hub_is_one_line(hub: Server) -> None:
    (place,) = (path for path in hub.files if path.startswith("/org"))
    del hub.files[place]
    with pytest.raises(WeightsMissing, match=rf"404 .*{place}.*\): get https://huggingf") as error:
        weights.locate("toy")
    assert "\n" not in str(error.value)
    assert leftovers() == set()


# Models of the hub by name


def test_hub_folder_takes_local_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.hub_folder(str(tmp_path)) == tmp_path
    put(tmp_path / "mine", b"{}", "kyutai/mimi/config.json")
    monkeypatch.setenv("NEURALCODEC_WEIGHTS", str(tmp_path / "mine"))
    assert weights.hub_folder("kyutai/mimi", "any") == tmp_path / "mine" / "kyutai" / "mimi"
    with pytest.raises(WeightsMissing, match=r"there is no folder \./nowhere"):
        weights.hub_folder("./nowhere")


def test_hub_folder_downloads_json_and_safetensors(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    commit = "c" * 40
    content = {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"pickle",
    }
    api = "/api/models/org/model"
    server.files[f"{api}/revision/v1"] = json.dumps({"id": "org/model", "sha": commit}).encode()
    server.files[f"{api}/tree/{commit}"] = json.dumps(
        [
            {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
            for name, body in content.items()
        ]
    ).encode()
    for name, body in content.items():
        server.files[f"/org/model/resolve/{commit}/{name}"] = body
    code = (
        "from neuralcodec import weights\n"
        "folder = weights.hub_folder('org/model', 'v1')\n"
        "print(*sorted(path.name for path in folder.iterdir()))\n"
        "try:\n    weights.hub_folder('org/other')\n"
        "except weights.WeightsMissing as error:\n    print(error)"
    )
    done = subprocess.run(  # its settings are read from the environment at import
        [sys.executable, "-c", code],
        env=os.environ | {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    files, missing = done.stdout.splitlines()
    assert files == "config.json model.safetensors"
    assert missing.startswith("org/other is not here and can't be downloaded (")
    assert done.stderr == ""  # no progress bars where there is no terminal


def test_hub_folder_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with closed_port() as number:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{number}")
        assert timed(lambda: weights.hub_folder("org/model")) < CONNECT_SECONDS + 1
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsMissing, match=r"HF_HUB_OFFLINE is set\): get .*/org/model at revis"):
        weights.hub_folder("org/model")
    with pytest.raises(ValueError, match="not/a/name"):
        weights.hub_folder("not/a/name")
