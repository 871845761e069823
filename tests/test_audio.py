import math
from fractions import Fraction
from pathlib import Path

import av
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

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


@settings(deadline=None)  # the first call is slow
@given(st.integers(0, 500), st.integers(1, 100), st.data())
def test_overlap_add_undoes_chunk(length: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size // 2))
    wav = noise(2, length)
    pieces = audio.chunk(wav, size, overlap)
    assert all(piece.shape[-1] == size for piece in pieces[:-1])
    joined = audio.overlap_add(pieces, overlap)
    assert joined.shape == wav.shape
    torch.testing.assert_close(joined, wav, rtol=0, atol=1e-6)


def test_overlap_add_fades_from_one_piece_to_the_next() -> None:
    joined = audio.overlap_add([torch.zeros(6), torch.ones(6)], overlap=3)
    assert joined.tolist() == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (4, 3), (4, -1)])
def test_chunk_refuses_sizes(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=f"got {size} and {overlap}"):
        audio.chunk(torch.zeros(10), size, overlap)


def test_overlap_add_refuses_pieces() -> None:
    with pytest.raises(ValueError, match="got none"):
        audio.overlap_add([])
    with pytest.raises(ValueError, match="shorter than the overlap of 3"):
        audio.overlap_add([torch.zeros(5), torch.zeros(2)], overlap=3)


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (torch.zeros(2, 10), r"\[B, 1, T\] and not empty, got \[2, 10\]"),
        (torch.zeros(1, 2, 10), r"got \[1, 2, 10\]"),
        (torch.zeros(1, 1, 0), r"got \[1, 1, 0\]"),
        (torch.zeros(1, 1, 5, dtype=torch.int16), "int16"),
        (torch.full((1, 1, 5), math.nan), "NaN"),
    ],
)
def test_check_wav_refuses(wav: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audio.check_wav(wav, channels=1)
