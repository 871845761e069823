import math
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from neuralcodec import metrics
from neuralcodec.metrics import DEFAULT, METRICS, Undefined, score

RATE = 16000


def _noise(seconds: float = 1.0, rate: int = RATE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(int(seconds * rate), generator=generator)


def test_registry_holds_the_agreed_names_in_order() -> None:
    assert DEFAULT == (
        *("pesq_wb", "pesq_nb", "stoi", "estoi", "si_sdr", "si_sdr_aligned"),
        *("log_mel_distance", "mrstft_distance"),
    )
    assert [*METRICS] == [*DEFAULT, "visqol", "visqol_speech"]
    assert all(name == metric.name == metric.function for name, metric in METRICS.items())


def test_every_function_loads_and_the_table_lists_it() -> None:
    lines = metrics.table().splitlines()
    assert len(lines) == 1 + len(METRICS)
    for line, metric in zip(lines[1:], METRICS.values(), strict=True):
        assert line.startswith(metric.name)
        assert callable(metric.load())


def test_import_loads_no_metric_package() -> None:
    code = (
        "import sys, neuralcodec.metrics as m; m.table(); "
        "print([n for n in ('pesq', 'pystoi', 'visqol', 'torchaudio') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["music", "sound", "unknown"])
def test_speech_metrics_are_nan_with_a_reason_elsewhere(kind: str) -> None:
    noise = _noise()
    names = ["pesq_wb", "pesq_nb", "stoi", "estoi", "visqol_speech", "si_sdr"]
    scores = score(noise, noise, RATE, metrics=names, kind=kind)
    what = "clip's kind is unknown" if kind == "unknown" else f"clip is {kind}"
    assert scores.reasons == dict.fromkeys(names[:-1], f"defined for speech only, the {what}")
    assert all(math.isnan(scores[name]) for name in names[:-1])
    assert scores["si_sdr"] == math.inf


def test_shapes_and_types_change_nothing() -> None:
    reference = _noise()
    estimate = reference + 0.1 * _noise(seed=1)
    names = ["si_sdr", "log_mel_distance", "mrstft_distance"]
    want = score(reference, estimate, RATE, metrics=names)
    for shape in ((1, -1), (1, 1, -1)):
        assert score(reference.reshape(shape), estimate.numpy(), RATE, metrics=names) == want
    assert score(reference.double(), estimate.numpy().astype(">f4"), RATE, metrics=names) == want
    assert score(reference, estimate.requires_grad_(), RATE, metrics=names) == want


def test_score_leaves_the_signals_alone() -> None:
    reference, estimate = _noise().numpy(), _noise(seed=1).numpy()
    before = reference.copy(), estimate.copy()
    score(reference, estimate, RATE)
    np.testing.assert_array_equal((reference, estimate), before)


def test_scores_survive_pickling() -> None:
    scores = score(_noise(), _noise(), 8000, metrics=["si_sdr", "stoi"])
    again = pickle.loads(pickle.dumps(scores))
    assert type(again) is metrics.Scores
    assert again.reasons == scores.reasons
    assert "stoi" in again.reasons
    assert again["si_sdr"] == math.inf


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"reference": torch.zeros(2, 100)}, r"\[2, 100\]: mix down .* or score each channel"),
        ({"reference": torch.zeros(2, 1, 100)}, "one channel of one clip"),
        ({"estimate": torch.zeros(99)}, "of one length, got 100 and 99"),
        ({"estimate": torch.zeros(0)}, r"not empty, got \[0\]"),
        ({"estimate": torch.tensor(1.0)}, r"got \[\]"),
        ({"estimate": torch.zeros(100, dtype=torch.int16)}, "must be float .* got torch.int16"),
        ({"estimate": np.zeros(100, dtype=np.int16)}, "must be float .* got int16"),
        ({"estimate": [0.0] * 100}, "a tensor or an array, got list"),
        ({"reference": torch.full((100,), torch.nan)}, "reference holds NaN .* sample 0"),
        ({"estimate": np.array([0.0] * 99 + [np.inf])}, "estimate holds NaN .* sample 99"),
        ({"sample_rate": 0}, "whole number of Hz, got 0"),
        ({"sample_rate": 44100.0}, "whole number of Hz, got 44100.0"),
        ({"metrics": ["si_srd"]}, "unknown metric 'si_srd'; did you mean 'si_sdr'"),
        ({"metrics": "stoi"}, "a list of names, got the string 'stoi'"),
        ({"kind": "speach"}, "unknown kind 'speach'; did you mean 'speech'"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], match: str) -> None:
    good: dict[str, Any] = {
        "reference": torch.ones(100),
        "estimate": torch.ones(100),
        "sample_rate": RATE,
    }
    with pytest.raises(ValueError, match=match) as error:
        score(**(good | change))
    assert not isinstance(error.value, Undefined)


def test_a_missing_extra_is_a_reason_that_names_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "visqol", None)
    monkeypatch.delitem(sys.modules, "neuralcodec.metrics.visqol", raising=False)
    scores = score(_noise(), _noise(), RATE, metrics=["visqol", "si_sdr"])
    assert scores.reasons == {"visqol": "needs 'visqol': pip install 'neuralcodec[metrics]'"}
    assert math.isnan(scores["visqol"])


def test_a_broken_base_install_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.delitem(sys.modules, "neuralcodec.metrics.pesq", raising=False)
    with pytest.raises(ModuleNotFoundError, match="pesq"):
        METRICS["pesq_wb"].load()


@pytest.mark.parametrize("silent", ["reference", "estimate"])
def test_silence_is_undefined_or_measured_never_made_up(silent: str) -> None:
    pair = {"reference": _noise(), "estimate": _noise()} | {silent: torch.zeros(RATE)}
    scores = score(pair["reference"], pair["estimate"], RATE, metrics=METRICS)
    undefined = {*METRICS} - {"log_mel_distance", "mrstft_distance"}
    undefined |= {"mrstft_distance"} if silent == "reference" else set()
    assert scores.reasons == dict.fromkeys(
        [name for name in METRICS if name in undefined], f"the {silent} is silent"
    )
    assert all(math.isnan(scores[name]) == (name in undefined) for name in METRICS)


@pytest.mark.parametrize("samples", [1, 2, 160, 300, 4000, 8000])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_any_length_gives_a_figure_in_range_or_a_reason(samples: int, rate: int) -> None:
    reference, estimate = _noise()[:samples], _noise(seed=1)[:samples]
    scores = score(reference, estimate, rate)
    for name, value in scores.items():
        if math.isnan(value):
            assert scores.reasons[name]
        else:
            assert METRICS[name].low <= value <= METRICS[name].high
