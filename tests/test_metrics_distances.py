import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralcodec.metrics import Undefined
from neuralcodec.metrics.log_mel_distance import MELS, WINDOWS, log_mel_distance, mel_filters
from neuralcodec.metrics.mrstft_distance import mrstft_distance
from neuralcodec.metrics.registry import Function
from neuralcodec.metrics.si_sdr import best_lag, si_sdr, si_sdr_aligned

RATE = 16000
SPECTRAL = [log_mel_distance, mrstft_distance]


def _noise(samples: int = RATE, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _late(signal: torch.Tensor, lag: int) -> torch.Tensor:
    padded = torch.nn.functional.pad(signal, (max(lag, 0), max(-lag, 0)))
    return padded[: len(signal)] if lag >= 0 else padded[-lag:]


@pytest.mark.parametrize("snr_db", [-20.0, 0.0, 13.0, 60.0])
def test_si_sdr_is_the_known_ratio(snr_db: float) -> None:
    # a sine and a cosine over whole periods are orthogonal, of one energy, and of zero mean
    phase = torch.arange(RATE, dtype=torch.float64) * (2 * math.pi * 100 / RATE)
    estimate = phase.sin() + 10 ** (-snr_db / 20) * phase.cos()
    assert si_sdr(phase.sin(), estimate, RATE) == pytest.approx(snr_db, abs=1e-9)


def test_si_sdr_ignores_level_sign_and_mean() -> None:
    reference = _noise()
    estimate = reference + 0.3 * _noise(seed=1)
    want = si_sdr(reference, estimate, RATE)
    assert want == pytest.approx(-20 * math.log10(0.3), abs=0.2)
    for changed in (7 * estimate, -0.01 * estimate, estimate + 5):
        assert si_sdr(reference, changed, RATE) == pytest.approx(want, abs=1e-9)
    assert si_sdr(5 * reference - 1, estimate, RATE) == pytest.approx(want, abs=1e-9)


def test_si_sdr_at_its_ends() -> None:
    reference = _noise()
    assert si_sdr(reference, reference, RATE) == math.inf
    assert si_sdr(reference, reference / 4, RATE) == math.inf
    square = torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert si_sdr(square, torch.tensor([1.0, -1.0, -1.0, 1.0]), RATE) == -math.inf
    with pytest.raises(Undefined, match="the reference is silent"):
        si_sdr(torch.full((100,), 0.1), reference[:100], RATE)


@pytest.mark.parametrize("lag", [-8, 8, 320, -400])
def test_a_delay_wrecks_si_sdr_but_not_aligned(lag: int) -> None:
    reference = _noise()
    estimate = _late(reference, lag) + 0.01 * _noise(seed=1)
    assert best_lag(reference, estimate, 400) == lag
    assert si_sdr(reference, estimate, RATE) < -20
    assert si_sdr_aligned(reference, estimate, RATE) == pytest.approx(40, abs=0.2)


def test_aligned_looks_no_farther_than_25_ms() -> None:
    reference = _noise()
    assert si_sdr_aligned(reference, _late(reference, 400), RATE) == math.inf
    assert si_sdr_aligned(reference, _late(reference, 401), RATE) < 0


def _oracle(reference: np.ndarray, estimate: np.ndarray, max_lag: int) -> dict[int, float]:
    """Squared correlation coefficient of the overlap at each lag, one by one."""
    size = len(reference)
    out = {}
    for lag in range(-max_lag, max_lag + 1):
        ours = reference[max(-lag, 0) : size - max(lag, 0)]
        theirs = estimate[max(lag, 0) : size + min(lag, 0)]
        out[lag] = float(np.corrcoef(ours, theirs)[0, 1] ** 2)
    return out


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(40, 200), mean=st.floats(-100, 100))
def test_best_lag_is_the_brute_force_maximum(seed: int, size: int, mean: float) -> None:
    reference = _noise(size, seed).cumsum(0) + mean
    estimate = _noise(size, seed + 1).cumsum(0) - reference.roll(5)
    max_lag = size // 4
    matches = _oracle(reference.numpy(), estimate.numpy(), max_lag)
    found = best_lag(reference, estimate, max_lag)
    assert matches[found] == pytest.approx(max(matches.values()), abs=1e-9)
    rate = 40 * max_lag  # so that 25 ms are max_lag samples
    assert si_sdr_aligned(reference, estimate, rate) >= si_sdr(reference, estimate, rate) - 1e-6


def test_best_lag_prefers_the_smallest_delay() -> None:
    tone = torch.sin(torch.arange(1600) * (2 * math.pi / 16))  # repeats every 16 samples
    assert best_lag(tone, tone, 200) == 0
    assert best_lag(tone, tone.roll(3), 200) == 3
    assert best_lag(tone, tone.roll(4), 200) == 4  # -4 is as good, with the other sign


def test_best_lag_takes_the_late_one_of_two_delays_that_are_as_good() -> None:
    click, echo = torch.zeros(201), torch.zeros(201)
    click[100] = echo[93] = echo[107] = 1.0  # early and late, in a mirror
    upside_down = echo.clone()
    upside_down[93] = -1.0
    for estimate in (echo, -echo, upside_down, -upside_down):  # of either sign
        matches = _oracle(click.numpy(), estimate.numpy(), 20)
        assert matches[-7] == pytest.approx(max(matches.values()), abs=1e-13)
        assert matches[7] == pytest.approx(max(matches.values()), abs=1e-13)
        assert best_lag(click, estimate, 20) == 7


def test_best_lag_checks_its_range() -> None:
    with pytest.raises(ValueError, match=r"max_lag must be 0\.\.50, half the signal, got 51"):
        best_lag(_noise(100), _noise(100), 51)
    with pytest.raises(ValueError, match="got -1"):
        best_lag(_noise(100), _noise(100), -1)
    with pytest.raises(Undefined, match=r"needs 0\.05 s of audio or more, got 0\.006 s"):
        si_sdr_aligned(_noise(100), _noise(100), RATE)


@pytest.mark.parametrize("distance", SPECTRAL)
def test_spectral_distances_rise_from_zero_with_noise(distance: Function) -> None:
    reference = 0.1 * _noise()
    levels = [0.0, 1e-4, 1e-3, 1e-2, 1e-1]
    found = [distance(reference, reference + level * _noise(seed=1), RATE) for level in levels]
    assert found[0] == 0
    assert found == sorted(set(found))


@pytest.mark.parametrize("distance", SPECTRAL)
def test_short_audio_is_audio_with_zeros(distance: Function) -> None:
    assert distance(_noise(1), 0.5 * _noise(1), RATE) > 0


@pytest.mark.parametrize("gain", [0.1, 0.5])
def test_log_mel_distance_of_a_gain(gain: float) -> None:
    # above the floor each of the seven windows gives |log10 gain|; 100 keeps every band there
    reference = 100 * _noise()
    found = log_mel_distance(reference, gain * reference, RATE)
    assert found == pytest.approx(-7 * math.log10(gain), rel=1e-4)


def _slaney_filters(window: int, mels: int, rate: int) -> np.ndarray:
    """Mel filters `[bands, bins]` after Slaney 1998, Auditory Toolbox: triangles of unit area."""

    def hertz(mel: float) -> float:  # linear up to 1 kHz, which are 15 mel, logarithmic above
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = rate / 2
    highest = top * 3 / 200 if top < 1000 else 15 + 27 * math.log(top / 1000) / math.log(6.4)
    corners = [hertz(highest * number / (mels + 1)) for number in range(mels + 2)]
    bins = np.arange(window // 2 + 1) * rate / window
    filters = []
    for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
        rise, fall = (bins - low) / (middle - low), (high - bins) / (high - middle)
        filters.append(np.clip(np.minimum(rise, fall), 0, None) * 2 / (high - low))
    return np.array([band for band in filters if band.any()])


def _log_mel_by_hand(signal: np.ndarray, window: int, mels: int, rate: int) -> np.ndarray:
    """Frame after frame, a quarter of the window apart, the first centred on sample 0."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    padded = np.pad(signal, window // 2)
    starts = range(0, len(padded) - window + 1, window // 4)
    frames = [np.abs(np.fft.rfft(hann * padded[start : start + window])) for start in starts]
    bands = np.array(frames) @ _slaney_filters(window, mels, rate).T
    logs: np.ndarray = np.log10(np.maximum(bands, 1e-5))
    return logs


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_log_mel_distance_is_what_its_definition_gives(rate: int) -> None:
    decay = torch.linspace(0, -12, 5000).exp()  # through the floor, so that it counts too
    pair = 0.1 * _noise(5000) * decay, 0.1 * _noise(5000, seed=1).cumsum(0) * decay / 8
    expected = 0.0
    for window, mels in zip(WINDOWS, MELS, strict=True):
        ours, theirs = (_log_mel_by_hand(each.numpy(), window, mels, rate) for each in pair)
        expected += np.abs(ours - theirs).mean()
    assert log_mel_distance(*pair, rate) == pytest.approx(expected, rel=1e-4)


def test_log_mel_distance_has_a_floor() -> None:
    silence = torch.zeros(RATE)
    assert log_mel_distance(silence, 1e-9 * _noise(), RATE) == 0


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000])
def test_no_mel_band_is_empty_and_few_are_left_out(rate: int) -> None:
    for window, mels in zip(WINDOWS, MELS, strict=True):
        filters = mel_filters(window, mels, rate)
        assert (filters.amax(dim=1) > 0).all()
        assert mels - 1 <= len(filters) <= mels
        assert len(filters) == mels or rate == 48000


@pytest.mark.parametrize("gain", [0.1, 0.5])
def test_mrstft_distance_of_a_gain(gain: float) -> None:
    # spectral convergence is 1 - gain, the log magnitudes differ by |ln gain| above the floor
    reference = 1000 * _noise()
    found = mrstft_distance(reference, gain * reference, RATE)
    assert found == pytest.approx(1 - gain - math.log(gain), rel=1e-4)


def _spectra_by_hand(signal: np.ndarray, size: int, hop: int, window: int) -> np.ndarray:
    """Magnitudes, frame after frame: a Hann window in the middle of `size`, zeros around it."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    padded = np.pad(signal, size // 2)
    before = (size - window) // 2
    weights = np.pad(hann, (before, size - window - before))
    starts = range(0, len(padded) - size + 1, hop)
    return np.array([np.abs(np.fft.rfft(weights * padded[s : s + size])) for s in starts])


def test_mrstft_distance_is_what_its_definition_gives() -> None:
    # The resolutions are those of Yamamoto et al. 2020, table 1.
    decay = torch.linspace(0, -12, 5000).exp()  # through the floor, so that it counts too
    pair = 0.1 * _noise(5000) * decay, 0.1 * _noise(5000, seed=1).cumsum(0) * decay / 8
    expected = []
    for resolution in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        ours, theirs = (_spectra_by_hand(each.numpy(), *resolution) for each in pair)
        convergence = np.linalg.norm(ours - theirs) / np.linalg.norm(ours)
        logs = [np.log(np.maximum(side**2, 1e-7)) / 2 for side in (ours, theirs)]
        expected.append(convergence + np.abs(logs[0] - logs[1]).mean())
    assert mrstft_distance(*pair, RATE) == pytest.approx(np.mean(expected), rel=1e-6)


def test_mrstft_distance_to_silence() -> None:
    # convergence is 1; the logs differ by ln of 0.1 over the floor of 10**-3.5 in a flat spectrum
    click = torch.zeros(8192)
    click[4096] = 0.1
    found = mrstft_distance(click, torch.zeros(8192), RATE)
    assert 1 < found < 1 + math.log(0.1 / 10**-3.5)
    with pytest.raises(Undefined, match="the reference is silent"):
        mrstft_distance(torch.zeros(8192), click, RATE)
