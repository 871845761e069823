import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from neuralcodec.core import audio


def sine(frequency: float, rate: int, seconds: float = 1.0) -> Tensor:
    time = torch.arange(round(rate * seconds), dtype=torch.float64) / rate
    return (0.5 * torch.sin(2 * math.pi * frequency * time)).float()[None]


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) - 0.5


def amplitude_and_phase(row: Tensor, frequency: float, rate: int) -> tuple[float, float]:
    # least squares over the middle of the row, where no filter meets an edge
    middle = torch.arange(rate // 10, row.shape[-1] - rate // 10)
    turn = 2 * math.pi * frequency / rate * middle.double()
    basis = torch.stack([turn.sin(), turn.cos()], dim=1)
    a, b = torch.linalg.lstsq(basis, row.double()[middle, None]).solution[:, 0].tolist()
    return math.hypot(a, b), math.atan2(b, a)


def encode(path: Path, codec: str, wav: Tensor, rate: int) -> None:
    layout = "stereo" if wav.shape[0] == 2 else "mono"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(wav.numpy(), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("ending", [".flac", ".wav", ".WAV"])
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (96_000, 2)])
@pytest.mark.parametrize(("subtype", "bits"), [("PCM_16", 16), ("PCM_24", 24)])
def test_written_audio_is_read_back_to_half_a_step(
    tmp_path: Path, ending: str, rate: int, channels: int, subtype: str, bits: int
) -> None:
    wav = noise(channels, 1000)
    audio.write(tmp_path / f"a{ending}", wav, rate, subtype=subtype)
    back, back_rate = audio.read(tmp_path / f"a{ending}")
    assert (back_rate, back.shape, back.dtype) == (rate, wav.shape, torch.float32)
    assert float((back - wav).abs().max()) <= 0.501 * 2.0 ** (1 - bits)
    audio.write(tmp_path / f"b{ending}", back, rate, subtype=subtype)
    assert torch.equal(audio.read(tmp_path / f"b{ending}")[0], back)


def test_full_scale_is_written_unclipped(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.flac", torch.tensor([1.0, -1.0, 0.0]), 8_000)
    back, _ = audio.read(tmp_path / "a.flac")
    assert back.tolist() == [[1 - 2**-15, -1.0, 0.0]]


def test_float_wav_keeps_what_goes_beyond_one(tmp_path: Path) -> None:
    wav = 3 * noise(1, 100)
    audio.write(tmp_path / "a.wav", wav, 16_000, subtype="FLOAT")
    assert torch.equal(audio.read(tmp_path / "a.wav")[0], wav)


@pytest.mark.parametrize(
    ("name", "wav", "message"),
    [
        ("a.flac", torch.tensor([0.0, 1.01]), r"peak 1\.0100 would be clipped"),
        ("a.wav", torch.tensor([-1.5]), r"peak 1\.5000 would be clipped"),
        ("a.wav", torch.tensor([0.0, math.nan]), "NaN"),
        ("a.wav", torch.tensor([0.0, -math.inf]), "infinite"),
        ("a.wav", torch.zeros(0), r"not empty, got \[0\]"),
        ("a.wav", torch.zeros(1, 1, 5), r"got \[1, 1, 5\]"),
        ("a.mp3", torch.zeros(5), r"not 'a\.mp3'"),
    ],
)
def test_write_refuses_what_it_would_spoil(
    tmp_path: Path, name: str, wav: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        audio.write(tmp_path / name, wav, 8_000)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "FLOAT"), ("a.wav", "PCM_8")])
def test_write_names_the_formats_there_are(tmp_path: Path, name: str, subtype: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} as {subtype!r}; there are PCM_16, PCM_24"):
        audio.write(tmp_path / name, torch.zeros(5), 8_000, subtype=subtype)


def test_sixteen_bit_wav_has_no_offset(tmp_path: Path) -> None:
    wav = noise(1, 200_000)
    audio.write(tmp_path / "a.wav", wav, 16_000)
    error = audio.read(tmp_path / "a.wav")[0] - wav
    assert abs(float(error.double().mean())) < 0.01 * 2**-15  # rounding down has half a step


@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels"),
    [
        ("a.m4a", "aac", 44_100, 2),
        ("a.mp3", "libmp3lame", 44_100, 1),
        ("a.opus", "libopus", 48_000, 2),
        ("a.webm", "libopus", 48_000, 1),
        ("a.ac3", "ac3", 48_000, 2),
    ],
)
def test_compressed_formats_are_read(
    tmp_path: Path, name: str, codec: str, rate: int, channels: int
) -> None:
    encode(tmp_path / name, codec, sine(1_000, rate).repeat(channels, 1), rate)
    back, back_rate = audio.read(tmp_path / name)
    assert (back_rate, back.shape[0]) == (rate, channels)
    assert rate <= back.shape[1] < rate + 2048  # encoders fill their last frame
    for row in back:
        assert amplitude_and_phase(row, 1_000, rate)[0] == pytest.approx(0.5, rel=0.06)


def test_read_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        audio.read(tmp_path / "gone.wav")


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "g722x"])
def test_text_under_an_audio_name_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"notes.{ending}"
    path.write_text("These are no samples.\n" * 20)
    with pytest.raises(ValueError, match=rf"cannot read .*notes\.{ending} as audio"):
        audio.read(path)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"\0" * 100])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*a\.wav as audio"):
        audio.read(tmp_path / "a.wav")


def test_a_wav_without_samples_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", torch.zeros(0, 1).numpy(), 8_000)
    with pytest.raises(ValueError, match="no samples"):
        audio.read(tmp_path / "a.wav")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_wav_with_bad_samples_is_refused(tmp_path: Path, bad: float) -> None:
    samples = torch.zeros(50, 2)
    samples[17, 1] = bad
    soundfile.write(tmp_path / "a.wav", samples.numpy(), 8_000, subtype="FLOAT")
    with pytest.raises(ValueError, match="the first at sample 17"):
        audio.read(tmp_path / "a.wav")


@settings(deadline=None)  # the first call is slow
@given(
    st.integers(1, 3000),
    st.sampled_from([8_000, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000]),
    st.sampled_from([8_000, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000]),
)
def test_resample_gives_the_length_it_says(length: int, from_rate: int, to_rate: int) -> None:
    out = audio.resample(torch.ones(2, 1, length), from_rate, to_rate)
    assert out.shape == (2, 1, math.ceil(length * to_rate / from_rate))
    assert out.dtype == torch.float32


@pytest.mark.parametrize(
    ("from_rate", "to_rate"),
    [(48_000, 16_000), (16_000, 48_000), (44_100, 24_000), (8_000, 96_000), (96_000, 8_000)],
)
def test_a_sine_stays_itself_at_another_rate(from_rate: int, to_rate: int) -> None:
    out = audio.resample(sine(1_000, from_rate), from_rate, to_rate)
    amplitude, phase = amplitude_and_phase(out[0], 1_000, to_rate)
    assert amplitude == pytest.approx(0.5, rel=1e-4)
    assert phase == pytest.approx(0, abs=1e-4)
    ideal = sine(1_000, to_rate)[:, : out.shape[1]]
    middle = slice(to_rate // 10, -to_rate // 10)
    assert float((out - ideal)[:, middle].abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("frequency", "from_rate", "to_rate"),
    [(9_000, 48_000, 16_000), (13_000, 44_100, 24_000), (30_000, 96_000, 44_100)],
)
def test_what_the_new_rate_cannot_hold_is_removed(
    frequency: float, from_rate: int, to_rate: int
) -> None:
    out = audio.resample(sine(frequency, from_rate), from_rate, to_rate)
    middle = out[:, to_rate // 10 : -to_rate // 10]
    assert 20 * math.log10(float(middle.abs().max()) / 0.5) < -80


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48_000, 16_000), (44_100, 24_000)])
def test_the_band_is_kept_up_to_nine_tenths(from_rate: int, to_rate: int) -> None:
    frequency = 0.9 * to_rate / 2
    out = audio.resample(sine(frequency, from_rate), from_rate, to_rate)
    assert amplitude_and_phase(out[0], frequency, to_rate)[0] == pytest.approx(0.5, rel=1e-3)


def test_resample_keeps_rows_apart() -> None:
    wav = noise(2, 3, 999)
    out = audio.resample(wav, 44_100, 16_000)
    for i in range(2):
        for j in range(3):
            assert torch.equal(out[i, j], audio.resample(wav[i, j], 44_100, 16_000))


def test_resample_to_the_same_rate_changes_nothing() -> None:
    wav = noise(1, 100)
    assert torch.equal(audio.resample(wav, 16_000, 16_000), wav)


@pytest.mark.parametrize(("from_rate", "to_rate"), [(0, 8_000), (8_000, 0), (8_000, -1), (-5, -5)])
def test_resample_refuses_rates(from_rate: int, to_rate: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        audio.resample(torch.zeros(1, 10), from_rate, to_rate)


def test_resample_takes_whole_floats() -> None:
    wav = noise(1, 100)
    assert torch.equal(audio.resample(wav, 16000.0, 24000), audio.resample(wav, 16000, 24000))
    assert torch.equal(
        audio.resample(wav, int(np.int64(16000)), float(np.float32(24000))),
        audio.resample(wav, 16000, 24000),
    )


@pytest.mark.parametrize("rate", [16000.5, math.nan, math.inf, True, "16000", None])
def test_resample_refuses_rates_that_are_no_whole_numbers(rate: Any) -> None:
    for pair in ((rate, 8_000), (8_000, rate)):
        with pytest.raises(ValueError, match=f"whole numbers of Hz, got {rate!r}"):
            audio.resample(torch.zeros(1, 10), *pair)


def test_write_takes_a_whole_float_as_rate(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", noise(1, 10), 16000.0)
    assert audio.read(tmp_path / "a.wav")[1] == 16000
    with pytest.raises(ValueError, match=r"whole numbers of Hz, got 16000\.5"):
        audio.write(tmp_path / "b.wav", noise(1, 10), 16000.5)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    audio.write("~/a.wav", noise(1, 10), 8_000)
    assert (tmp_path / "a.wav").is_file()
    assert audio.read(Path("~/a.wav"))[0].shape == (1, 10)
    assert audio.info("~/a.wav").num_samples == 10


def test_write_names_the_file_that_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot write .*gone/a\.wav"):
        audio.write(tmp_path / "gone" / "a.wav", noise(1, 10), 8_000)


ARRAY = np.zeros((1, 2, 10), np.float32)


@pytest.mark.parametrize(
    "task",
    [
        lambda wav: audio.resample(wav, 8_000, 16_000),
        lambda wav: audio.resample(wav, 8_000, 8_000),
        lambda wav: audio.write("never.wav", wav, 8_000),
        audio.mix_down,
        lambda wav: audio.fit_length(wav, 5),
        lambda wav: audio.check_wav(wav, channels=2),
    ],
)
def test_arrays_are_refused_with_what_to_write(task: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"got a numpy array: torch\.from_numpy\(wav\)"):
        task(ARRAY)
    with pytest.raises(ValueError, match="must be a torch tensor, got list"):
        task(ARRAY.tolist())


@pytest.mark.parametrize(
    "task",
    [
        lambda wav: audio.resample(wav, 8_000, 16_000),
        lambda wav: audio.write("never.wav", wav[0], 8_000),
        audio.mix_down,
        lambda wav: audio.check_wav(wav, channels=2),
    ],
)
def test_integer_samples_are_refused_with_their_scale(task: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"torch\.int16.*int16 by 32768"):
        task(torch.ones(1, 2, 10, dtype=torch.int16))


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_mix_down_is_the_mean_of_all_channels(channels: int) -> None:
    wav = noise(3, channels, 50)
    expected = np.mean(wav.numpy().astype(np.float64), axis=1, keepdims=True)
    torch.testing.assert_close(audio.mix_down(wav).double(), torch.from_numpy(expected))
    assert torch.equal(audio.mix_down(wav[0]), audio.mix_down(wav)[0])


@settings(deadline=None)  # the first call is slow
@given(st.floats(-30, -10), st.sampled_from([2, 6]))
def test_mix_down_refuses_channels_that_cancel_by_more_than_twenty_db(
    loss_db: float, channels: int
) -> None:
    limit = 20 + 10 * math.log10(channels / 2)  # C unrelated channels lose 10 log10(C)
    assume(abs(loss_db + limit) > 0.01)
    # x and -kx: the mean has the amplitude (1 - k) / 2, the channels the power (1 + k^2) / 2
    ratio = 10 ** (loss_db / 10)
    k = (1 - math.sqrt(1 - (1 - 2 * ratio) ** 2)) / (1 - 2 * ratio)
    x = noise(1, 400)
    wav = torch.cat([x, -k * x]).repeat(channels // 2, 1)
    assert audio.mix_loss_db(wav) == pytest.approx(-loss_db, abs=1e-3)
    if loss_db > -limit:
        assert audio.mix_down(wav).shape == (1, 400)
    else:
        with pytest.raises(ValueError, match=f"the {channels} channels cancel: .* dB below"):
            audio.mix_down(wav)
        with pytest.raises(ValueError, match="cancel"):  # one of a batch
            audio.mix_down(torch.stack([noise(channels, 400), wav]))


def test_mix_down_of_silence_and_of_near_silence_is_silence() -> None:
    assert not audio.mix_down(torch.zeros(2, 10)).any()
    x = 1e-5 * noise(1, 400)  # a codec's idle noise
    assert float(audio.mix_down(torch.cat([x, -x])).abs().max()) == 0


def test_mix_down_refuses_what_has_no_channels() -> None:
    with pytest.raises(ValueError, match=r"must be \[\.\.\., C, T\].*got \[10\]"):
        audio.mix_down(torch.zeros(10))


def test_mix_down_is_the_mean_of_the_channels() -> None:
    wav = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 0.5, -0.5]]])
    assert audio.mix_down(wav).tolist() == [[[0.5, 0.25, 0.0]]]
    assert torch.equal(audio.mix_down(wav[:, :1]), wav[:, :1])
    six = torch.eye(6)[None] * torch.tensor([6.0, 12, 18, 24, 30, 36])  # each channel by itself
    assert audio.mix_down(six).tolist() == [[[1, 2, 3, 4, 5, 6]]]


@settings(deadline=None)  # the first call is slow
@given(st.integers(0, 20), st.integers(0, 20))
def test_fit_length_cuts_or_pads_at_the_end(have: int, want: int) -> None:
    out = audio.fit_length(torch.ones(2, have), want)
    assert out.shape == (2, want)
    assert float(out.sum()) == 2 * min(have, want)


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (torch.zeros(2, 10), r"\[B, 1, T\] and not empty, got \[2, 10\]"),
        (torch.zeros(1, 2, 10), r"got \[1, 2, 10\]"),
        (torch.zeros(1, 1, 0), r"got \[1, 1, 0\]"),
        (torch.zeros(1, 1, 5, dtype=torch.int16), "int16"),
        (torch.full((1, 1, 5), math.nan), "NaN"),
        (torch.full((1, 1, 5), -math.inf), "infinite"),
        (torch.tensor([[[0.5, -19_000.0]]]), "got a peak of 19000; 16 bit .* divided by 32768"),
        (torch.tensor([[[16.5, 0.0]]]), r"in \[-1, 1\], got a peak of 16\.5"),
        (torch.zeros(1, 2, 5, device="meta"), r"got \[1, 2, 5\]"),
    ],
)
def test_check_wav_refuses(wav: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audio.check_wav(wav, channels=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_check_wav_takes_what_lossy_files_and_resampling_give(dtype: torch.dtype) -> None:
    audio.check_wav(torch.tensor([[[2.5, -16.0, 0.0]]], dtype=dtype), channels=1)


def test_check_wav_needs_no_values_on_the_meta_device() -> None:
    audio.check_wav(torch.empty(2, 1, 5, device="meta"), channels=1)
    assert audio.mix_down(torch.empty(2, 3, 5, device="meta")).shape == (2, 1, 5)


class Syncs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the values that are brought from the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_check_wav_waits_for_the_device_once() -> None:
    with Syncs() as syncs:  # type: ignore[no-untyped-call]
        audio.check_wav(noise(2, 1, 100), channels=1)
    assert syncs.count == 1
