"""Fixtures that several tests share."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from loopback import Server, isolate, serving
from neuralcodec.__main__ import main
from neuralcodec.core import audio, torchaudio_guard
from neuralcodec.data import Clip, clips

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache and weights out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURALCODEC_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("NEURALCODEC_WEIGHTS", raising=False)
        yield


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(1234)


@pytest.fixture
def shared() -> Path:
    """The folder of reference material beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference material at {SHARED.name}/ beside the checkout")
    return SHARED


@pytest.fixture
def own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and a toy in the catalogue: see `loopback`."""
    isolate(tmp_path, monkeypatch)


@pytest.fixture
def server() -> Iterator[Server]:
    """A loopback server that has the toy."""
    with serving() as ours:
        yield ours


@pytest.fixture
def mirror(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, as the mirror of all weights."""
    monkeypatch.setenv("NEURALCODEC_MIRROR", server.url)
    return server


@pytest.fixture(scope="module")
def slim_encodec() -> Iterator[Mapping[str, Any]]:
    """Let the package `encodec` build networks of an eighth of the width; gives its own parts."""
    torchaudio_guard.load()
    modules = importlib.import_module("encodec.modules")
    parts = {name: getattr(modules, name) for name in ("SEANetEncoder", "SEANetDecoder")}
    with pytest.MonkeyPatch.context() as patch:
        for name, part in parts.items():
            patch.setattr(modules, name, partial(part, n_filters=4))
        yield parts


@pytest.fixture
def published_encodec(slim_encodec: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it build networks of the published width again, for a test."""
    for name, part in slim_encodec.items():
        monkeypatch.setattr(f"encodec.modules.{name}", part)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of speech and one of music, 1.5 s each."""
    folder = tmp_path_factory.mktemp("clips")
    _cut(clips("starter:test"), {"speech": 2, "music": 1}, 1.5, folder)
    return folder


@pytest.fixture(scope="session")
def fit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of speech to fit on, 3 s each."""
    folder = tmp_path_factory.mktemp("fit")
    _cut(clips("starter:fit"), {"speech": 2}, 3.0, folder)
    return folder


def _cut(found: list[Clip], counts: dict[str, int], seconds: float, folder: Path) -> None:
    for kind, count in counts.items():
        (folder / kind).mkdir()
        for clip in [clip for clip in found if clip.kind == kind][:count]:
            wav, rate = clip.read(16000), 16000
            start = rate // 2  # the first clips begin with silence
            cut = wav[:, start : start + int(seconds * rate)]
            audio.write(folder / kind / f"{clip.path.stem}.flac", cut, rate)


WriteSweep = Callable[..., Path]


@pytest.fixture
def write_sweep(tmp_path: Path, clip_folder: Path, fit_folder: Path) -> WriteSweep:
    """Write a sweep file of a cheap kind: `write_sweep(grid, **base)`."""

    def write(grid: str, *, name: str = "tiny", **base: object) -> Path:
        settings = {
            "audio": str(clip_folder),
            "fit_audio": str(fit_folder),
            "metrics": ["si_sdr", "log_mel_distance"],
        } | base
        lines = [f'name = "{name}"', "[base]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join([*lines, grid]), encoding="utf-8")
        return path

    return write


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the jobs of sweeps in a thread of this process: workers take seconds to start."""
    module = importlib.import_module("neuralcodec.sweep.run")
    monkeypatch.setattr(module, "local_workers", lambda count: ThreadPoolExecutor(1))


class Said(NamedTuple):
    """What a command of the command line left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process: `cli("list")`."""

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["neuralcodec", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Said(int(end.value.code or 0), *capsys.readouterr())

    return call
