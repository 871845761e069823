import csv
from pathlib import Path

import pytest
import torch

from neuralcodec.core.audio import mix_down, read, resample
from neuralcodec.metrics import Undefined

pytest.importorskip("visqol", reason="needs visqol-python: pip install 'neuralcodec[metrics]'")

from neuralcodec.metrics import visqol as module
from neuralcodec.metrics.registry import Function
from neuralcodec.metrics.visqol import visqol, visqol_speech

CONFORMANCE = Path(__file__).parents[2] / "shared" / "conformance" / "visqol"


def _noise(seconds: float, rate: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(int(seconds * rate), generator=generator)


def _pair(degraded: str, mapping: str) -> tuple[torch.Tensor, torch.Tensor, int, float]:
    """Reference, degraded, rate and Google's figure of a pair of ViSQOL v3.3.3's conformance."""
    if not CONFORMANCE.is_dir():
        pytest.skip("needs the conformance audio, ../shared/conformance/visqol")
    with (CONFORMANCE / "expected.csv").open() as file:
        rows = {(row["degraded"], row["mos_mapping"]): row for row in csv.DictReader(file)}
    row = rows[f"{degraded}.flac", mapping]
    (reference, rate), (estimate, _) = (
        read(CONFORMANCE / row[side]) for side in ("reference", "degraded")
    )
    wanted = float(row["expected_moslqo"])
    return mix_down(reference.double())[0], mix_down(estimate.double())[0], rate, wanted


@pytest.mark.parametrize("degraded", ["castanets48_stereo", "strauss48_stereo_lp35"])
def test_audio_mode_equals_googles(degraded: str) -> None:
    reference, estimate, rate, wanted = _pair(degraded, "svr")
    assert visqol(reference, estimate, rate) == pytest.approx(wanted, abs=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("degraded", "tolerance"),
    [
        ("guitar48_stereo_64kbps_aac", 1e-10),
        ("contrabassoon48_stereo_24kbps_aac", 2e-4),
    ],
)
def test_audio_mode_equals_googles_on_files_of_two_lengths(degraded: str, tolerance: float) -> None:
    # the degraded ones are longer, which the package takes and we do not: 5e-3 if cut
    reference, estimate, rate, wanted = _pair(degraded, "svr")
    api = module._api("audio")
    found = api.measure_from_arrays(reference.numpy(), estimate.numpy(), rate).moslqo
    assert found == pytest.approx(wanted, abs=tolerance)


def test_speech_mode_is_near_googles() -> None:
    # Google's figure is for the 48 kHz files as they are, where the package is 1.1e-3 off; ours is
    # at 16 kHz
    reference, estimate, rate, wanted = _pair("transcoded_CA01_01", "exponential")
    found = module._api("speech").measure_from_arrays(reference.numpy(), estimate.numpy(), rate)
    assert found.moslqo == pytest.approx(wanted, abs=2e-3)
    assert visqol_speech(reference, estimate, rate) == pytest.approx(wanted, abs=1e-2)
    assert visqol_speech(reference, reference, rate) == 5.0


@pytest.mark.parametrize(("metric", "top"), [(visqol, 4.732101253042348), (visqol_speech, 5.0)])
def test_falls_with_noise(metric: Function, top: float) -> None:
    # the top of audio mode is Google's figure for castanets against themselves
    reference = _noise(1.5, 16000).cumsum(0) * 0.01
    found = [
        metric(reference, reference + level * _noise(1.5, 16000, 1), 16000)
        for level in (0, 0.001, 0.003, 0.01)
    ]
    assert found[0] == pytest.approx(top, abs=1e-6)
    assert found == sorted(set(found), reverse=True)


def test_short_or_narrow_audio_is_undefined() -> None:
    short = _noise(0.5, 48000)
    with pytest.raises(Undefined, match=r"visqol needs 0\.96 s of audio or more, got 0\.500 s"):
        visqol(short, short, 48000)
    with pytest.raises(Undefined, match=r"visqol_speech needs 0\.64 s"):
        visqol_speech(short, short, 48000)
    narrow = resample(_noise(1, 16000), 16000, 8000)
    with pytest.raises(Undefined, match="visqol_speech needs audio at 16000 Hz or more, got 8000"):
        visqol_speech(narrow, narrow, 8000)


@pytest.mark.parametrize(
    ("metric", "rate", "seconds"), [(visqol, 48000, 0.96), (visqol_speech, 16000, 0.64)]
)
def test_the_shortest_clip_has_a_value(metric: Function, rate: int, seconds: float) -> None:
    clip = _noise(seconds, rate)
    assert metric(clip, clip, rate) > 4.5
