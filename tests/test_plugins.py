"""Codecs and metrics of other distributions: installed by pip, swept, checked, written to files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from torch import Tensor

from neuralcodec.core import plugins
from neuralcodec.core.loading import load
from neuralcodec.metrics import CustomMetric, find, score

PLUGIN = Path(__file__).parent / "plugin"

SWEEP = """
name = "foreign"

[base]
audio = "audio"
metrics = ["si_sdr", "example_level", "neuralcodec_example:LevelError"]
sample_rate = 8000

[grid.example_ulaw]
bits = [4, 8]

[grid."neuralcodec_example:MuLaw"]
bits = 6

[grid."example_mdct+rvq"]
codebook_size = 4
num_codebooks = [1, 2]

[grid.example_broken]
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the distribution installed."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    pip += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*pip, str(PLUGIN)], check=True)
    paths = [str(target), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run(
    installed: dict[str, str], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "neuralcodec", *arguments],
        env=installed,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def swept(installed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "audio").mkdir()
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        tone = np.sin(np.arange(8000) * 0.2) * 0.4 + 0.01 * rng.standard_normal(8000)
        soundfile.write(folder / "audio" / f"{name}.wav", tone, 8000)
    (folder / "sweep.toml").write_text(SWEEP)
    done = run(installed, folder, "sweep", "sweep.toml", "--out", "out", "--workers", "2")
    assert done.returncode == 1, done.stderr  # of the codec that is broken
    return folder


def test_both_are_listed_with_the_package(installed: dict[str, str], tmp_path: Path) -> None:
    listed = run(installed, tmp_path, "list", "--csv")
    rows = {line.split(",")[0]: line for line in listed.stdout.splitlines()}
    assert "of neuralcodec-example" in rows["example_ulaw"]
    assert "neuralcodec-example" in rows["example_broken"].split("can't be imported")[0]
    code = "from neuralcodec import metrics; print(metrics.table())"
    table = subprocess.run(
        [sys.executable, "-c", code], env=installed, capture_output=True, text=True, check=True
    )
    assert "example_level" in table.stdout


def test_they_are_swept_by_worker_processes(swept: Path) -> None:
    rows = pd.read_csv(swept / "out" / "results.csv")
    good = rows[rows["status"] == "ok"]
    assert len(good) == 2 * (2 + 1 + 2)
    assert set(good["codec"]) == {"example_ulaw", "neuralcodec_example:MuLaw", "example_mdct+rvq"}
    own, by_path = good["example_level"], good["neuralcodec_example:LevelError"]
    assert np.isfinite(own).all()
    assert (own == by_path).all()
    ulaw = good[good["codec"] == "example_ulaw"].groupby("codebook_size")["si_sdr"].mean()
    assert ulaw[256] > ulaw[16] + 15
    assert set(good.loc[good["codebook_size"] == 256, "bitrate_kbps"]) == {64.0}


def test_a_broken_one_costs_its_own_rows_and_names_its_package(swept: Path) -> None:
    rows = pd.read_csv(swept / "out" / "results.csv")
    broken = rows[rows["codec"] == "example_broken"]
    assert set(broken["status"]) == {"failed"}
    assert broken["reason"].str.contains("'example_broken' of package 'neuralcodec-example'").all()


def test_the_metric_is_drawn(swept: Path) -> None:
    drawn = {path.name for path in (swept / "out" / "plots").iterdir()}
    assert any(name.endswith(".png") for name in drawn)


def test_the_check_knows_them(installed: dict[str, str], tmp_path: Path) -> None:
    done = run(installed, tmp_path, "check", "example_ulaw")
    assert done.returncode == 0, done.stdout
    assert "0 fail" in done.stdout


def test_files_of_tokens_hold_them(installed: dict[str, str], swept: Path) -> None:
    wav = swept / "audio" / "one.wav"
    coded = run(installed, swept, "encode", str(wav), "one.nct", "--codec", "example_ulaw")
    assert coded.returncode == 0, coded.stderr
    assert "example_ulaw" in run(installed, swept, "info", "one.nct").stdout
    assert run(installed, swept, "decode", "one.nct", "one_back.wav").returncode == 0
    original, _ = soundfile.read(wav)
    decoded, rate = soundfile.read(swept / "one_back.wav")
    assert rate == 8000
    assert np.abs(original - decoded).max() < 0.02


def test_a_path_is_enough_without_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN))
    codec = load("neuralcodec_example:MuLaw", bits=4)
    assert codec.codebook_sizes == (16,)
    metric = find("neuralcodec_example:LevelError")
    assert (metric.unit, metric.higher_is_better) == ("dB", False)
    tone = np.sin(np.arange(4000) * 0.1)
    scores = score(tone, tone / 2, 8000, [metric.name], kind="music")
    assert scores[metric.name] == pytest.approx(20 * np.log10(2), abs=1e-9)
    silent = score(tone, 0 * tone, 8000, [metric.name, "si_sdr"], kind="music")
    assert "no level" in silent.reasons[metric.name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Thing", "No module named 'no_such_module'"),
        ("neuralcodec_example:Nothing", "no attribute 'Nothing'"),
        ("neuralcodec_example:LevelError", "must be a subclass of neuralcodec.Codec"),
    ],
)
def test_a_path_that_leads_nowhere_says_so(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN))
    with pytest.raises(ImportError, match=message):
        load(name)


def test_what_a_foreign_metric_raises_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN))
    name = "neuralcodec_example:LevelError"

    def fail(*_: object) -> float:
        raise RuntimeError("out of order")

    monkeypatch.setattr("neuralcodec_example.LevelError.score", fail)
    tone = np.sin(np.arange(4000) * 0.1)
    scores = score(tone, tone, 8000, [name, "si_sdr"], kind="music")
    assert "failed: RuntimeError: out of order" in scores.reasons[name]
    assert scores["si_sdr"] == np.inf


@pytest.mark.parametrize("own", [None, 8000, 16000])
def test_a_metric_is_given_signals_at_the_rate_that_it_states(own: int | None) -> None:
    heard: list[tuple[int, int, int]] = []

    class Heard(CustomMetric):
        rate = own

        def score(self, reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
            heard.append((len(reference), len(estimate), sample_rate))
            return 0.0

    tone = np.sin(np.arange(4800) * 0.1)
    for rate in (8000, 16000, 48000):
        Heard()(tone, tone, rate)
        asked = own or rate
        assert heard.pop() == (4800 * asked // rate, 4800 * asked // rate, asked)


def test_a_package_cannot_take_a_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"pcm": plugins.Plugin("pcm", "os", "system", "rogue")}
    monkeypatch.setattr(plugins, "installed", lambda group: taken)
    assert type(load("pcm")).__module__.startswith("neuralcodec.")
