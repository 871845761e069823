import errno
import importlib
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from neuralcodec import load, weights
from neuralcodec.core import audio
from neuralcodec.core.digests import digest_of
from neuralcodec.core.registry import REGISTRY, Entry, Facts
from neuralcodec.core.tokens import Tokens
from neuralcodec.data import clips
from neuralcodec.latent import requantized
from neuralcodec.latent.mdct import Mdct
from neuralcodec.metrics import score
from neuralcodec.sweep import Outcome, Plan, make, read, run
from neuralcodec.sweep.store import Store, StoreError
from neuralcodec.sweep.work import _measured, run_fit, run_job
from neuralcodec.wrappers.classical.pcm import Pcm

WriteSweep = Callable[..., Path]
GRID = """
[grid.mdct]
frame_rate = 100
codebook_size = 16
num_codebooks = [1, 2, 3]
[grid.pcm]
bits = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
"""
SMALL = """
[grid.mdct]
frame_rate = 100
codebook_size = 16
num_codebooks = [1, 2]
[grid.pcm]
bits = [4, 8]
"""
TIMES = ["encode_rtf", "decode_rtf"]


def no_times(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=TIMES)


def read_results(folder: Path) -> pd.DataFrame:
    return no_times(pd.read_csv(folder / "results.csv"))


def stored_rows(folder: Path) -> int:
    path = folder / "rows.sqlite"
    if not path.is_file():
        return 0
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        count = connection.execute("SELECT count(*) FROM rows").fetchone()[0]
    except sqlite3.OperationalError:  # not laid out yet
        count = 0
    connection.close()
    return int(count)


# A process keeps ignoring what its parent ignored when it was started, and the shell that runs
# tests in the background (`nohup make test &`) has them ignore SIGINT.
HEARING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def start(file: Path, out: Path, **options: Any) -> subprocess.Popen[str]:
    """Start `neuralcodec sweep` as a terminal does: in its own process group, hearing Ctrl-C."""
    command = ["-m", "neuralcodec", "sweep", str(file), "--out", str(out), "--workers", "1"]
    return subprocess.Popen(
        [sys.executable, "-S", "-c", HEARING, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not happened():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"the sweep ended or hung before it was stopped: {process.communicate()}")
        time.sleep(0.005)


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("this system does not tell the children of a process")
    return [int(child) for child in path.read_text().split()]


def is_worker(pid: int) -> bool:
    """Tell whether a process runs and is a worker, no zombie and not the resource tracker."""
    folder = Path(f"/proc/{pid}")
    try:
        state = folder.joinpath("stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and b"spawn_main" in folder.joinpath("cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def in_the_background() -> Iterator[None]:
    """Ignore SIGINT, as tests do that were started by `nohup make test &`."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute as a worker does, to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sweep_file(
    tmp_path_factory: pytest.TempPathFactory, clip_folder: Path, fit_folder: Path
) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "tiny.toml"
    base = f'audio = "{clip_folder}"\nfit_audio = "{fit_folder}"\n'
    base += 'metrics = ["stoi", "si_sdr", "log_mel_distance"]\n'
    path.write_text(f'name = "tiny"\n[base]\n{base}{GRID}', encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(
    sweep_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Plan, Outcome]:
    """A run in two worker processes that nothing interrupted."""
    out = tmp_path_factory.mktemp("finished")
    plan = make(read(sweep_file))
    return out, plan, run(plan, out, workers=2)


# What a run leaves


def test_finished_run(finished: tuple[Path, Plan, Outcome]) -> None:
    out, plan, outcome = finished
    assert (outcome.new, outcome.kept, outcome.failures) == ((3 + 14) * 3, 0, Counter())
    table = pd.read_csv(out / "results.csv")
    names = "codec num_codebooks codebook_size frame_rate tokens_per_second bitrate_kbps clip kind "
    names += "seconds stoi si_sdr log_mel_distance encode_rtf decode_rtf status reason settings "
    assert [*table.columns] == [*names.split(), "point", "label"]
    assert [*zip(table["point"], table["clip"], strict=True)] == [key[:2] for key in plan.keys]
    assert (table["status"] == "ok").all()
    assert table["reason"].isna().all()
    assert (table[TIMES] > 0).all(axis=None)
    assert (table["seconds"] == 1.5).all()


def test_metrics_of_speech_are_for_speech(finished: tuple[Path, Plan, Outcome]) -> None:
    table = read_results(finished[0])
    assert set(table["kind"]) == {"speech", "music"}
    assert (table["stoi"].notna() == (table["kind"] == "speech")).all()
    assert table[["si_sdr", "log_mel_distance"]].notna().all(axis=None)


def test_rows_of_unknown_kind_say_why_speech_has_no_score(
    write_sweep: WriteSweep, clip_folder: Path, tmp_path: Path
) -> None:
    for path in (clip_folder / "speech").iterdir():
        (tmp_path / "mine").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "mine" / "a.flac")
    experiment = read(write_sweep("[grid.pcm]", metrics=["stoi", "si_sdr"]))
    for kind, reason in (
        (None, "stoi: defined for speech only, the clip's kind is unknown"),
        ("music", ""),  # which its kind says
        ("speech", ""),
    ):
        (job,) = make(experiment, audio=tmp_path / "mine", kind=kind).jobs
        ((_, row),) = run_job(job, tmp_path)
        assert (row["status"], row["reason"]) == ("ok", reason)
        assert math.isfinite(row["stoi"]) == (kind == "speech")


def test_rows_equal_the_library_used_by_hand(
    finished: tuple[Path, Plan, Outcome],
    clip_folder: Path,
    fit_folder: Path,
    one_thread: None,
) -> None:
    table = read_results(finished[0])
    codec = requantized.fit(
        load("mdct", frame_rate=100), clips(fit_folder), num_codebooks=3, codebook_size=16
    )
    for clip in clips(clip_folder):
        wav, rate = clip.read(16000), 16000
        for name, depth, tokens, decoded in (
            ("mdct", 2, t := codec.encode(wav[None], num_codebooks=2), codec.decode(t)),
            ("pcm", 1, t := Pcm(bits=4).encode(wav[None]), Pcm(bits=4).decode(t)),
        ):
            chosen = table[(table["codec"] == name) & (table["num_codebooks"] == depth)]
            chosen = chosen[(chosen["codebook_size"] == 16) & (chosen["clip"] == clip.name)]
            (row,) = chosen.to_dict("records")
            metrics = ["stoi", "si_sdr", "log_mel_distance"]
            scores = score(wav, decoded[0], rate, metrics=metrics, kind=clip.kind)
            got = {metric: row[metric] for metric in metrics}
            assert got == pytest.approx(dict(scores), rel=1e-6, nan_ok=True)
            assert row["bitrate_kbps"] == tokens.bitrate_kbps
            assert row["tokens_per_second"] == tokens.tokens_per_second
            assert row["frame_rate"] == tokens.frame_rates[0]


def test_quality_rises_with_depth(finished: tuple[Path, Plan, Outcome]) -> None:
    table = read_results(finished[0])
    for _, clip in table[table["codec"] == "mdct"].groupby("clip"):
        assert clip["num_codebooks"].tolist() == [1, 2, 3]
        assert clip["si_sdr"].is_monotonic_increasing
        assert clip["log_mel_distance"].is_monotonic_decreasing


def test_record_tells_what_a_run_ran_with(finished: tuple[Path, Plan, Outcome]) -> None:
    connection = sqlite3.connect(finished[0] / "rows.sqlite")
    ((started, text),) = connection.execute("SELECT started, description FROM runs").fetchall()
    connection.close()
    described = json.loads(text)
    assert started.endswith("+00:00")
    assert described["experiment"]["name"] == "tiny"
    assert described["versions"]["torch"] == version("torch")
    assert {"commit", "python", "machine", "device"} <= described.keys()


def test_machine_without_git(monkeypatch: pytest.MonkeyPatch, finished: Any) -> None:
    module = importlib.import_module("neuralcodec.sweep.run")
    monkeypatch.setenv("PATH", "")
    assert module.describe(finished[1])["commit"] == "unknown"


def test_run_again_makes_nothing(finished: tuple[Path, Plan, Outcome]) -> None:
    out, plan, first = finished
    (cached,) = (out / "cache").iterdir()
    before = cached.stat().st_mtime_ns
    again = run(plan, out, workers=2)
    assert (again.new, again.kept) == (0, first.new)
    assert cached.stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(again.results, first.results)


def test_new_axis_value_makes_only_its_rows(
    write_sweep: WriteSweep, in_process: None, tmp_path: Path
) -> None:
    first = run(make(read(write_sweep(SMALL))), tmp_path / "out")
    more = SMALL.replace("[1, 2]", "[1, 2, 3]").replace("[4, 8]", "[4, 8, 12]")
    second = run(make(read(write_sweep(more))), tmp_path / "out")
    assert (first.new, second.new, second.kept) == (12, 6, 12)
    kept = second.results.merge(first.results[["point", "clip"]])
    pd.testing.assert_frame_equal(kept, first.results)
    third = run(make(read(write_sweep(SMALL))), tmp_path / "out")  # rows of other plans stay out
    assert third.new == 0
    pd.testing.assert_frame_equal(third.results, first.results)


def test_no_worker_is_refused(finished: tuple[Path, Plan, Outcome]) -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run(finished[1], finished[0], workers=0)


# What is shared


def test_one_encode_serves_all_depths(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    encode = requantized.Requantized.encode

    def counted(codec: Any, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        asked.append(num_codebooks)
        return encode(codec, wav, num_codebooks)

    monkeypatch.setattr(requantized.Requantized, "encode", counted)
    (job, *_) = make(read(write_sweep(GRID))).jobs
    assert job.setup.fit is not None
    run_fit(job.setup.fit, tmp_path)
    rows = [row for _, row in run_job(job, tmp_path)]
    assert asked == [3]
    assert [row["num_codebooks"] for row in rows] == [1, 2, 3]
    assert [row["tokens_per_second"] for row in rows] == [100, 200, 300]


def test_codes_found_with_a_beam_are_encoded_for_each_depth(
    write_sweep: WriteSweep, tmp_path: Path, one_thread: None
) -> None:
    grid = "[grid.tiny_50hz]\nbeam_width = 4\nnum_codebooks = [2, 8, 9]\n"
    (job, *_) = make(read(write_sweep(grid))).jobs
    rows = [row for _, row in run_job(job, tmp_path)]
    codec = load("tiny_50hz", beam_width=4)
    wav, rate = job.clip.read(16000), 16000
    estimate = codec.decode(codec.encode(wav[None], 2))[0]
    scores = score(wav, estimate, rate, metrics=["log_mel_distance"], kind=job.clip.kind)
    assert rows[0]["log_mel_distance"] == pytest.approx(scores["log_mel_distance"], rel=1e-6)
    assert [row["status"] for row in rows] == ["ok", "ok", "failed"]
    assert "9" in rows[2]["reason"]


def test_one_fit_serves_all_depths_and_clips(
    write_sweep: WriteSweep, in_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    fit = requantized.fit

    def counted(codec: Any, audio: Any, **sizes: Any) -> requantized.Requantized:
        asked.append((sizes["codebook_size"], sizes["num_codebooks"]))
        return fit(codec, audio, **sizes)

    monkeypatch.setattr(requantized, "fit", counted)
    sizes = SMALL.replace("codebook_size = 16", "codebook_size = [8, 16]")
    assert run(make(read(write_sweep(sizes))), tmp_path / "out").new == (4 + 2) * 3
    assert sorted(asked) == [(8, 2), (16, 2)]


class Loaded(Mdct):
    """A latent codec whose weights, a single factor, lie in a file."""

    name = "loaded"

    def __init__(self, weights: str) -> None:
        super().__init__(100)
        self.network = torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
        self.network.weight.fill_(float(Path(weights).read_text()))

        self.digest = digest_of(self.network.state_dict())

    def _analyse(self, wav: Tensor) -> Tensor:
        return super()._analyse(wav) * self.network.weight


def test_other_weights_take_another_fit(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTRY, "loaded", Entry("test_sweep_run", "Loaded", None, "of a file"))
    weights, fits = tmp_path / "gain.txt", tmp_path / "cache"
    fits.mkdir()
    grid = f'[grid.loaded]\nweights = "{weights}"\ncodebook_size = 16\nnum_codebooks = 2'
    (job, *_) = make(read(write_sweep(grid))).jobs
    fit = job.setup.fit
    assert fit is not None
    found: list[set[Path]] = []
    for gain in ("4", "1", "1", "4", "1"):
        weights.write_text(gain)
        assert run_fit(fit, fits) is None
        found.append({*fits.iterdir()})
    assert [len(files) for files in found] == [1, 2, 2, 2, 2]
    (loud,), (plain,) = found[0], found[1] - found[0]
    books = [load_file(path)["codebooks"] for path in (loud, plain)]
    assert torch.allclose(books[0], 4 * books[1], rtol=1e-4, atol=1e-6)
    loud.unlink()  # so that it can't be the one that a job takes
    ((_, row),) = run_job(job, fits)
    assert row["status"] == "ok"


@pytest.mark.parametrize(
    ("base", "grid"),
    [
        ({"seed": 1}, SMALL),
        ({}, SMALL.replace("codebook_size = 16", "codebook_size = 8")),
        ({}, SMALL.replace("[1, 2]", "3")),
        ({}, SMALL.replace("frame_rate = 100", "frame_rate = 100\nstack = 2")),
    ],
    ids=["seed", "size", "depth", "timing"],
)
def test_a_folder_that_holds_another_fit_changes_no_score(
    base: dict[str, Any], grid: str, write_sweep: WriteSweep, in_process: None, tmp_path: Path
) -> None:
    run(make(read(write_sweep(SMALL))), tmp_path / "both")
    plan = make(read(write_sweep(grid, **base)))
    alone, after = (run(plan, tmp_path / folder).results for folder in ("alone", "both"))
    assert len(list((tmp_path / "both" / "cache").iterdir())) == 2
    pd.testing.assert_frame_equal(no_times(after), no_times(alone))


def test_a_second_seed_gives_other_scores(
    write_sweep: WriteSweep, in_process: None, tmp_path: Path
) -> None:
    first, second = (
        run(make(read(write_sweep(SMALL, seed=seed))), tmp_path / "out").results for seed in (0, 1)
    )
    fitted = first["codec"] == "mdct"
    assert (first["si_sdr"] != second["si_sdr"])[fitted].all()
    assert (first["si_sdr"] == second["si_sdr"])[~fitted].all()  # nothing of pcm is fitted
    assert (first["point"] != second["point"])[fitted].all()


def test_each_real_time_factor_is_that_of_its_own_half(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]

    def slow(method: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            now[0] += seconds
            return method(*arguments)

        return call

    monkeypatch.setattr("neuralcodec.sweep.work.time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(Pcm, "encode", slow(Pcm.encode, 3.0))
    monkeypatch.setattr(Pcm, "decode", slow(Pcm.decode, 0.75))
    (job, *_) = make(read(write_sweep("[grid.pcm]"))).jobs
    ((_, row),) = run_job(job, tmp_path)
    assert row["seconds"] == 1.5
    assert (row["encode_rtf"], row["decode_rtf"]) == (2.0, 0.5)


# Points that fail


def test_failed_points_are_rows_and_the_rest_goes_on(
    write_sweep: WriteSweep, in_process: None, tmp_path: Path, clip_folder: Path
) -> None:
    grid = """
    [grid.pcm]
    bits = [4, 99]
    num_codebooks = [1, 2]
    [grid.mdct]
    frame_rate = [100, 33]
    codebook_size = [16, 100000]
    num_codebooks = 1
    """
    folder = tmp_path / "clips" / "speech"
    folder.mkdir(parents=True)
    good = next(clip_folder.rglob("*.flac")).read_bytes()
    (folder / "good.flac").write_bytes(good)
    (folder / "corrupt.flac").write_bytes(good[:100])
    plan = make(read(write_sweep(grid)), audio=folder.parent)
    outcome = run(plan, tmp_path / "out")
    table = outcome.results
    assert len(table) == (2 * 2 + 2 * 2) * 2
    failed = table[table["status"] == "failed"]
    assert len(table) - len(failed) == 2  # pcm of 4 bits and mdct, on the good clip
    assert outcome.failures.total() == len(failed)
    assert failed[["si_sdr", "encode_rtf", "seconds"]].isna().all(axis=None)
    assert not failed["reason"].str.contains("\n").any()

    def reason(codec: str, clip: str, **values: Any) -> str:
        chosen = failed[(failed["codec"] == codec) & (failed["clip"] == f"speech/{clip}.flac")]
        for name, value in values.items():
            chosen = chosen[chosen[name] == value]
        (only,) = set(chosen["reason"])
        return str(only)

    four = json.dumps({"bits": 4})
    assert "must be 1, got 2" in reason("pcm", "good", num_codebooks=2, settings=four)
    assert reason("pcm", "good", settings=json.dumps({"bits": 99})) == "bits must be 1..16, got 99"
    needs = "codebook_size 100000 needs at least as many latents to fit on, got "
    assert reason("mdct", "good", frame_rate=100).startswith(needs)
    assert "frame_rate 33 Hz does not divide" in reason("mdct", "good", frame_rate=33)
    assert "corrupt.flac" in reason("pcm", "corrupt", settings=four)

    again = run(plan, tmp_path / "out")
    assert (again.new, again.kept, again.failures) == (0, len(table), outcome.failures)
    retried = run(plan, tmp_path / "out", retry=True)
    assert (retried.new, retried.kept) == (len(failed), 2)
    pd.testing.assert_frame_equal(retried.results, table)


def test_retry_mends_what_can_be_mended(
    write_sweep: WriteSweep, in_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make(read(write_sweep(SMALL)))

    def broken(self: Pcm, tokens: Tokens) -> Tensor:
        raise OSError("the moon is full")

    with monkeypatch.context() as patch:
        patch.setattr(Pcm, "decode", broken)
        first = run(plan, tmp_path / "out")
    assert first.failures == Counter({"OSError: the moon is full": 6})
    assert run(plan, tmp_path / "out").failures == first.failures
    mended = run(plan, tmp_path / "out", retry=True)
    assert (mended.new, mended.kept, mended.failures) == (6, 6, Counter())


def test_decoder_of_another_length_fails(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Pcm.decode
    monkeypatch.setattr(Pcm, "decode", lambda codec, tokens: decode(codec, tokens)[..., 1:])
    (job, *_) = make(read(write_sweep("[grid.pcm]"))).jobs
    ((_, row),) = run_job(job, tmp_path)
    assert (row["status"], row["reason"]) == ("failed", "decoded 23999 samples of 24000")


def test_decoder_that_gives_nan_fails(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Pcm.decode
    monkeypatch.setattr(Pcm, "decode", lambda codec, tokens: decode(codec, tokens) * torch.nan)
    (job, *_) = make(read(write_sweep("[grid.pcm]"))).jobs
    ((_, row),) = run_job(job, tmp_path)
    assert row["status"] == "failed"
    assert "estimate holds NaN" in row["reason"]


# A full disk


def test_full_disk_under_the_record(
    write_sweep: WriteSweep, in_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make(read(write_sweep(GRID)))
    begin = Store.begin

    def small(store: Store, *values: Any) -> None:
        begin(store, *values)
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "begin", small)
        with pytest.raises(StoreError, match=r"cannot write to .*rows\.sqlite: .*full") as caught:
            run(plan, tmp_path / "out")
    assert "\n" not in str(caught.value)
    kept = stored_rows(tmp_path / "out")
    assert 0 < kept < len(plan.keys)
    outcome = run(plan, tmp_path / "out")
    assert (outcome.new, outcome.kept) == (len(plan.keys) - kept, kept)
    assert not outcome.failures


@pytest.mark.parametrize("part", ["results.csv", "safetensors"])
def test_full_disk_under_other_files(
    write_sweep: WriteSweep,
    in_process: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    plan, out = make(read(write_sweep(SMALL))), tmp_path / "out"
    out.mkdir()
    (out / "results.csv").write_text("old")
    write_bytes = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if part in path.name:
            write_bytes(path, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=rf"cannot write .*{part}: No space left on device"):
            run(plan, out)
    assert (out / "results.csv").read_text() == "old"
    left = {path.name for path in out.rglob("*") if path.is_file()}
    assert not {name for name in left if name.startswith(".")}  # no half a file
    kept = stored_rows(out)
    assert kept == (len(plan.keys) if part == "results.csv" else kept)
    outcome = run(plan, out)
    assert (outcome.new, outcome.kept) == (len(plan.keys) - kept, kept)
    assert not outcome.failures


def test_full_disk_on_the_command_line(write_sweep: WriteSweep, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits of processes are POSIX")
    limit = 16_384  # bytes a file; the codebooks have 20,480

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(write_sweep(SMALL), tmp_path / "out", preexec_fn=limited)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert err.startswith("neuralcodec: ")
    assert "cannot write" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("contents", [b"no database, no database", None])
def test_record_that_cannot_be_opened(
    write_sweep: WriteSweep, tmp_path: Path, contents: bytes | None
) -> None:
    record = tmp_path / "out" / "rows.sqlite"
    record.parent.mkdir()
    record.mkdir() if contents is None else record.write_bytes(contents)
    with pytest.raises(StoreError, match=r"cannot (open|use) .*rows\.sqlite: "):
        run(make(read(write_sweep(SMALL))), record.parent)


# A run that is stopped


def test_kill_and_the_same_command_again(
    sweep_file: Path, finished: tuple[Path, Plan, Outcome], tmp_path: Path
) -> None:
    process = start(sweep_file, tmp_path)
    wait_for(lambda: stored_rows(tmp_path) > 3, process)
    workers = [child for child in children_of(process.pid) if is_worker(child)]
    process.kill()
    process.wait(10)
    assert workers
    end = time.monotonic() + 5
    while any(map(is_worker, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    survivors = [worker for worker in workers if is_worker(worker)]
    for worker in survivors:
        os.kill(worker, signal.SIGKILL)
    assert not survivors
    process.communicate()  # would wait for survivors, who hold its pipes
    kept = stored_rows(tmp_path)
    assert 0 < kept < finished[2].new
    assert not (tmp_path / "results.csv").exists()

    process = start(sweep_file, tmp_path)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert f"{finished[2].new - kept} rows made, {kept} kept from before" in out
    # One worker here, two there: so their number changes nothing either.
    pd.testing.assert_frame_equal(read_results(tmp_path), read_results(finished[0]))


def test_ctrl_c_keeps_rows(
    sweep_file: Path,
    finished: tuple[Path, Plan, Outcome],
    tmp_path: Path,
    in_process: None,
    in_the_background: None,
) -> None:
    process = start(sweep_file, tmp_path)
    wait_for(lambda: stored_rows(tmp_path) > 0, process)
    workers = [child for child in children_of(process.pid) if is_worker(child)]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: parent and workers
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "neuralcodec: stopped; finished rows are kept, run it again to go on\n"
    assert not any(map(is_worker, workers))
    kept = stored_rows(tmp_path)
    assert 0 < kept < finished[2].new
    assert run(finished[1], tmp_path).kept == kept
    assert len(read_results(tmp_path)) == finished[2].new


def test_ctrl_c_while_workers_start(sweep_file: Path, tmp_path: Path) -> None:
    process = start(sweep_file, tmp_path)
    wait_for(lambda: any(map(is_worker, children_of(process.pid))), process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "neuralcodec: stopped; finished rows are kept, run it again to go on\n"


def test_worker_that_dies_ends_the_run_in_one_line(
    sweep_file: Path, finished: tuple[Path, Plan, Outcome], tmp_path: Path
) -> None:
    process = start(sweep_file, tmp_path)
    wait_for(lambda: stored_rows(tmp_path) > 0, process)
    (worker,) = [child for child in children_of(process.pid) if is_worker(child)]
    os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err == "neuralcodec: a worker process died; out of memory? Finished rows are kept\n"
    assert 0 < stored_rows(tmp_path) < finished[2].new


def test_rows_that_were_done_are_stored_before_an_error_ends_the_run(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("neuralcodec.sweep.run")
    plan = make(read(write_sweep("[grid.pcm]\nbits = [4, 8]")))

    def killed(job: Any, folder: Path) -> Any:
        if dict(job.setup.settings)["bits"] == 4:
            raise OSError("this worker is gone")
        return run_job(job, folder)

    monkeypatch.setattr(module, "local_workers", lambda count: ThreadPoolExecutor(1))
    monkeypatch.setattr(module, "run_job", killed)
    monkeypatch.setattr(  # all are done at once
        module, "wait", lambda tasks, return_when: ([*map(_done, tasks)], None)
    )
    with pytest.raises(OSError, match="this worker is gone"):
        run(plan, tmp_path)
    assert stored_rows(tmp_path) == 3


def _done(task: Any) -> Any:
    task.exception()
    return task


def test_audio_of_other_rates(
    write_sweep: WriteSweep, tmp_path: Path, rng: torch.Generator
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    audio.write(folder / "a.wav", 0.9 * torch.rand(1, 11026, generator=rng), 11025)
    (job,) = make(read(write_sweep("[grid.pcm]", sample_rate=44100)), audio=folder).jobs
    ((_, row),) = run_job(job, tmp_path)
    assert row["status"] == "ok"
    assert row["seconds"] == pytest.approx(11026 / 11025, abs=1e-4)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_estimate_and_clip_are_compared_at_the_rate_of_the_sweep(
    rate: int, write_sweep: WriteSweep, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    tone = 0.5 * torch.sin(torch.arange(48000) * (2 * torch.pi * 1000 / 32000))
    fade = torch.hann_window(48000)  # so that no filter sees an edge
    audio.write(folder / "tone.flac", (tone * fade)[None], 32000, subtype="PCM_24")
    grid = "[grid.pcm]\nbits = 16\nsample_rate = 24000"
    (job,) = make(read(write_sweep(grid, sample_rate=rate)), audio=folder).jobs
    ((_, row),) = run_job(job, tmp_path)
    assert row["si_sdr"] > 60


def test_row_of_codebooks_of_several_sizes_and_rates_tells_the_largest() -> None:
    codes = torch.zeros(1, 10, dtype=torch.int64), torch.zeros(1, 20, dtype=torch.int64)
    row = _measured(Tokens(codes, (50.0, 100.0), (64, 16), 16000, 3200))
    assert (row["num_codebooks"], row["codebook_size"], row["frame_rate"]) == (2, 64, 100.0)
    assert (row["tokens_per_second"], row["seconds"]) == (150.0, 0.2)


def test_codec_that_lacks_something_costs_no_worker(
    write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, path: str | Path | None = None) -> Path:
        raise weights.WeightsMissing(f"no {name} here: neuralcodec weights fetch {name}")

    monkeypatch.setattr(weights, "locate", missing)
    module = importlib.import_module("neuralcodec.sweep.run")
    monkeypatch.setattr(module, "local_workers", None)  # so that it can't be called
    entry = Entry(
        "no_such_module",
        "Some",
        "codecs",
        "lacks weights",
        checkpoints=("big",),
        facts=Facts(16000, 1, (50.0,), (16,), True),
    )
    monkeypatch.setitem(REGISTRY, "some", entry)
    plan = make(read(write_sweep("[grid.some]")))
    outcome = run(plan, tmp_path / "out")
    assert outcome.failures == {"no big here: neuralcodec weights fetch big": len(plan.keys)}
