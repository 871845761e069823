import math
from pathlib import Path

import numpy as np
import pesq as package
import pystoi
import pytest
import torch

from neuralcodec.core.audio import read, resample
from neuralcodec.data import clips
from neuralcodec.metrics import METRICS, Undefined, score
from neuralcodec.metrics.pesq import MAX_SECONDS, pesq_nb, pesq_wb
from neuralcodec.metrics.registry import Function
from neuralcodec.metrics.stoi import estoi, stoi

RATE = 16000
EVAL = Path(__file__).parents[2] / "shared" / "audio" / "eval"


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    if not EVAL.is_dir():
        pytest.skip("needs the evaluation audio, ../shared/audio/eval")
    wav, rate = read(EVAL / "sp_de.flac")
    assert rate == RATE
    return wav[0]


def _noise(like: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return torch.randn(len(like), generator=torch.Generator().manual_seed(seed))


def _bursts(seconds: float) -> torch.Tensor:
    """Noise of 200 ms and pauses of 215 ms: as many utterances as PESQ can be made to find."""
    time = torch.arange(int(seconds * RATE)) / RATE
    return (0.3 * (time % 0.415 < 0.2) + 1e-5) * _noise(time)


def test_pesq_of_a_signal_with_itself_is_the_top_of_the_mapping(speech: torch.Tensor) -> None:
    # raw 4.5 through P.862.2 and P.862.1
    top_wb = 0.999 + 4 / (1 + math.exp(-1.3669 * 4.5 + 3.8224))
    top_nb = 0.999 + 4 / (1 + math.exp(-1.4945 * 4.5 + 4.6607))
    assert pesq_wb(speech, speech, RATE) == pytest.approx(top_wb, abs=1e-5)
    assert pesq_nb(speech, speech, RATE) == pytest.approx(top_nb, abs=1e-5)
    assert top_wb <= METRICS["pesq_wb"].high
    assert top_nb <= METRICS["pesq_nb"].high


def test_each_figure_is_that_of_its_package_for_reference_and_estimate() -> None:
    clip = next(clip for clip in clips("starter:test") if clip.kind == "speech")
    speech = clip.read(RATE)[0, : 3 * RATE]
    estimate = 0.5 * speech + 0.01 * _noise(speech)
    estimate[: RATE // 2] = 0
    low = resample(torch.stack([speech, estimate]), RATE, 8000).numpy()
    pair = speech.numpy(), estimate.numpy()
    expected = {
        "pesq_wb": package.pesq(16000, *pair, "wb"),
        "pesq_nb": package.pesq(8000, *low, "nb"),
        "stoi": pystoi.stoi(*pair, RATE),
        "estoi": pystoi.stoi(*pair, RATE, extended=True),
    }
    found = score(speech, estimate, RATE, metrics=expected)
    swapped = score(estimate, speech, RATE, metrics=expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-3), name  # estoi draws noise
        assert abs(swapped[name] - value) > 0.01, name  # so that their order is seen


GOLDEN = {"pesq_wb": 1.3922, "pesq_nb": 2.1040, "stoi": 0.9597, "estoi": 0.8738}


@pytest.mark.parametrize("name", GOLDEN)
def test_regression_on_real_speech_of_six_bits(speech: torch.Tensor, name: str) -> None:
    # measured with pesq 0.0.4 and pystoi 0.4.1: pesq.pesq(16000, x, y, "wb"), the same with "nb"
    # on soxr's 8 kHz versions, pystoi.stoi(x, y, 16000, extended), y = round(32 x) / 32
    estimate = (speech * 32).round() / 32
    assert score(speech, estimate, RATE, metrics=[name])[name] == pytest.approx(
        GOLDEN[name], abs=2e-3
    )


@pytest.mark.parametrize("name", GOLDEN)
def test_falls_with_noise(speech: torch.Tensor, name: str) -> None:
    noise = _noise(speech)
    found = [
        score(speech, speech + level * noise, RATE, metrics=[name])[name]
        for level in (0.0, 0.001, 0.005, 0.025)
    ]
    assert found == sorted(set(found), reverse=True)


@pytest.mark.parametrize("name", GOLDEN)
def test_level_hardly_matters(speech: torch.Tensor, name: str) -> None:
    estimate = speech + 0.005 * _noise(speech)
    found = [score(speech, gain * estimate, RATE, metrics=[name])[name] for gain in (1, 0.1)]
    assert found[0] == pytest.approx(found[1], abs=2e-3)


def test_calls_leave_no_state(speech: torch.Tensor) -> None:
    other = _bursts(3.0)
    estimate = speech + 0.005 * _noise(speech)
    before = pesq_wb(speech, estimate, RATE), pesq_nb(speech, estimate, RATE)
    pesq_wb(other, other.flip(0), RATE)
    assert (pesq_wb(speech, estimate, RATE), pesq_nb(speech, estimate, RATE)) == before
    with pytest.raises(Undefined):
        pesq_nb(1e-3 + 0 * other, other, RATE)
    assert (pesq_wb(speech, estimate, RATE), pesq_nb(speech, estimate, RATE)) == before


def test_pesq_refuses_what_could_crash_the_process() -> None:
    longest = _bursts(MAX_SECONDS)
    assert 1 < pesq_wb(longest, longest + 0.01 * _noise(longest), RATE) < 4
    for seconds in (19, 60, 300):
        long = _bursts(seconds)
        for pesq in (pesq_wb, pesq_nb):
            with pytest.raises(Undefined, match=rf"takes 18\.5 s .*, got {seconds}\.0 s: .* cut"):
                pesq(long, long, RATE)


def test_pesq_has_no_value_without_an_utterance_and_for_very_short_clips() -> None:
    word = torch.zeros(RATE)
    word[8000:9600] = _bursts(0.1)  # 100 ms; an utterance has 200
    with pytest.raises(Undefined, match="pesq_wb: no utterances detected"):
        pesq_wb(word, word, RATE)
    with pytest.raises(Undefined, match=r"pesq_nb needs 0\.25 s of audio or more, got 0\.010 s"):
        pesq_nb(_bursts(0.01), _bursts(0.01), RATE)


def test_low_rates_are_refused_not_filled_up(speech: torch.Tensor) -> None:
    low = resample(speech, RATE, 8000)
    scores = score(low, low, 8000, metrics=GOLDEN)
    assert [name for name in GOLDEN if name not in scores.reasons] == ["pesq_nb"]
    assert scores.reasons["pesq_wb"].startswith(
        "pesq_wb needs audio at 16000 Hz or more, got 8000 Hz:"
    )
    assert scores.reasons["stoi"] == (
        "stoi needs audio at 10000 Hz or more, got 8000 Hz: its highest band reaches 4277 Hz"
    )
    with pytest.raises(Undefined, match="pesq_nb needs audio at 8000 Hz or more, got 7999 Hz"):
        pesq_nb(low, low, 7999)


def test_higher_rates_are_resampled(speech: torch.Tensor) -> None:
    estimate = speech + 0.005 * _noise(speech)
    names = [*GOLDEN]
    want = score(speech, estimate, RATE, metrics=names)
    pair = resample(torch.stack([speech, estimate]), RATE, 48000)
    found = score(pair[0], pair[1], 48000, metrics=names)
    for name in names:
        assert found[name] == pytest.approx(want[name], abs=0.05), name


@pytest.mark.parametrize("metric", [stoi, estoi])
def test_too_little_speech_is_undefined_not_a_made_up_score(metric: Function) -> None:
    mostly_silent = torch.zeros(5 * RATE)
    mostly_silent[:4000] = _noise(mostly_silent[:4000])
    for reference in (mostly_silent, mostly_silent[:100], mostly_silent[:4000]):
        with pytest.raises(Undefined, match="fewer than 30 frames"):
            metric(reference, reference, RATE)


@pytest.mark.parametrize("metric", [stoi, estoi])
@pytest.mark.parametrize("rate", [10000, 16000])
def test_clips_of_about_one_frame_are_too_short(metric: Function, rate: int) -> None:
    frame = 256 * rate // 10000  # of 256 samples at 10 kHz
    for samples in range(frame - 3, frame + 4):
        noise = _noise(torch.empty(samples))
        with pytest.raises(Undefined, match="fewer than 30 frames"):
            metric(noise, noise, rate)


def test_estoi_is_reproducible_and_keeps_numpys_generator(speech: torch.Tensor) -> None:
    estimate = speech.clone()
    estimate[30000:50000] = 0  # digital silence: pystoi alone differs from call to call by 1e-3
    np.random.seed(1)  # noqa: NPY002  # pystoi uses this generator
    first = estoi(speech, estimate, RATE)
    drawn = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert drawn == np.random.random()  # noqa: NPY002
    assert estoi(speech, estimate, RATE) == first
