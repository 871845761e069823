"""Audio files that are not whole, or whose header does not say what is in them."""

import os
import struct
import warnings
from fractions import Fraction
from pathlib import Path

import av
import pytest
import soundfile
import torch
from torch import Tensor

from neuralcodec.core import audio
from neuralcodec.core.audio import AudioWarning
from neuralcodec.core.audio_file import AudioInfo

RATE = 16_000


@pytest.fixture
def wav() -> Tensor:
    """Ten seconds of noise `[1, T]`, on the grid of 16 bits."""
    noise = torch.rand(1, 10 * RATE, generator=torch.Generator().manual_seed(0)) - 0.5
    return (noise * 32768).round() / 32768


def put(path: Path, wav: Tensor) -> bytes:
    """Write a file in the format that its ending names, and return its bytes."""
    ending = path.suffix[1:]
    if ending in ("m4a", "mka"):
        options = {"movflags": "faststart"} if ending == "m4a" else {}
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream("aac", rate=RATE, layout="mono")
            assert isinstance(stream, av.AudioStream)
            frame = av.AudioFrame.from_ndarray(wav.numpy(), format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    else:
        kind = {"opus": ("OGG", "OPUS"), "ogg": ("OGG", "VORBIS"), "rf64": ("RF64", "PCM_16")}
        kind |= {"mp3": ("MP3", "MPEG_LAYER_III")}
        form, subtype = kind.get(ending, (ending.upper(), "PCM_16"))
        soundfile.write(path, wav.T.numpy(), RATE, format=form, subtype=subtype)
    return path.read_bytes()


def unfinished_flac(content: bytes) -> bytes:
    """Set the number of samples in STREAMINFO, 36 bits from byte 21, to 0: not known."""
    assert content[:4] == b"fLaC"
    return content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]


def with_data_size(content: bytes, size: int) -> bytes:
    place = content.index(b"data") + 4
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


# Streams, whose header was written before their length was known


def test_a_flac_of_unknown_length_is_read(tmp_path: Path, wav: Tensor) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(unfinished_flac(put(path, wav)))
    back, rate = audio.read(path)
    assert rate == RATE
    assert torch.equal(back, wav)
    assert audio.info(path) == AudioInfo(RATE, 1, None)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x80000000])
@pytest.mark.parametrize("silence", [0, 4000])
def test_a_wav_of_unknown_length_is_read(
    tmp_path: Path, wav: Tensor, size: int, silence: int
) -> None:
    wav[:, :silence] = 0
    path = tmp_path / "a.wav"
    content = with_data_size(put(path, wav), size)
    path.write_bytes(content[:4] + struct.pack("<I", size) + content[8:])
    assert torch.equal(audio.read(path)[0], wav)


def test_an_au_of_unknown_length_is_read(tmp_path: Path, wav: Tensor) -> None:
    path = tmp_path / "a.au"
    content = put(path, wav)
    path.write_bytes(content[:8] + b"\xff" * 4 + content[12:])
    assert torch.equal(audio.read(path)[0], wav)


_ODD = b"LIST" + struct.pack("<I", 13) + b"INFOISFT\1\0\0\0x"


@pytest.mark.parametrize(
    "comment",
    [
        b"",
        b"LIST" + struct.pack("<I", 12) + b"INFOISFT\0\0\0\0",
        _ODD,  # without its padding
        _ODD + b"\0",
        _ODD + b"\0note" + struct.pack("<I", 2) + b"ab",
    ],
)
def test_a_wav_that_is_empty_is_no_stream(tmp_path: Path, wav: Tensor, comment: bytes) -> None:
    path = tmp_path / "a.wav"
    head = put(path, wav)
    head = with_data_size(head[: head.index(b"data") + 8], 0)
    path.write_bytes(head + comment)
    with pytest.raises(ValueError, match=r"a\.wav holds no samples"):
        audio.read(path)


def test_tags_in_another_encoding_do_not_matter(tmp_path: Path, wav: Tensor) -> None:
    path = tmp_path / "a.wav"
    content = with_data_size(put(path, wav), 0)
    artist = "Jérôme".encode("latin-1")
    tags = b"INFOIART" + struct.pack("<I", len(artist)) + artist
    tags = b"LIST" + struct.pack("<I", len(tags)) + tags
    place = content.index(b"data")
    path.write_bytes(content[:place] + tags + content[place:])
    assert torch.equal(audio.read(path)[0], wav)


# Files that were cut off

LOSSLESS = ["wav", "flac", "aiff", "au", "w64", "rf64"]


@pytest.mark.parametrize("ending", [*LOSSLESS, "caf", "mp3", "ogg", "opus", "m4a", "mka"])
def test_what_is_left_of_a_file_is_read_and_noted(tmp_path: Path, wav: Tensor, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    content = put(path, wav)
    whole, rate = audio.read(path)  # a warning would be an error
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.warns(AudioWarning, match=rf"a\.{ending}: .* [56]\.[0-9]{{3}} s") as warned:
        rest, _ = audio.read(path)
    assert 5.9 < rest.shape[1] / rate < 6.7
    if ending in LOSSLESS:
        assert torch.equal(rest, whole[:, : rest.shape[1]])
        assert "ends before its header says: " in str(warned[0].message)
        promised = float(str(warned[0].message).split("says: ")[1].split(" s ")[0])
        assert promised == pytest.approx(10, abs=0.01)


@pytest.mark.parametrize("lost", [200, 400])
def test_ten_milliseconds_count(tmp_path: Path, wav: Tensor, lost: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(put(path, wav)[:-lost])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert audio.read(path)[0].shape[1] == 10 * RATE - lost // 2
    assert len(warned) == (lost // 2 > 0.01 * RATE)


def test_a_stream_that_was_cut_off_is_noted(tmp_path: Path, wav: Tensor) -> None:
    path = tmp_path / "a.flac"
    content = unfinished_flac(put(path, wav))
    path.write_bytes(content[: len(content) // 2])
    with pytest.warns(AudioWarning, match=r"a\.flac: is damaged, malformed or cut off: 4\.\d+ s"):
        rest, _ = audio.read(path)
    assert torch.equal(rest, wav[:, : rest.shape[1]])


@pytest.mark.parametrize("size", [1, 40, 20_000])
def test_a_file_that_is_damaged_inside_is_refused(tmp_path: Path, wav: Tensor, size: int) -> None:
    path = tmp_path / "a.flac"
    content = bytearray(put(path, wav))
    half = len(content) // 2
    content[half : half + size] = bytes(byte ^ 0x5A for byte in content[half : half + size])
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*a\.flac as audio: .*damaged after 4\.\d+"):
        audio.read(path)


def test_a_file_that_is_damaged_at_its_start_is_noted(tmp_path: Path, wav: Tensor) -> None:
    path = tmp_path / "a.flac"
    content = unfinished_flac(put(path, wav))
    path.write_bytes(content[:400] + bytes(40) + content[440:])
    with pytest.raises(ValueError, match=r"a\.flac as audio: .*damaged after 0\.000 s"):
        audio.read(path)
    head = content.index(b"\xff\xf8", 42)
    second = content.index(b"\xff\xf8", head + 1000)
    path.write_bytes(content[:head] + content[second:])
    with pytest.warns(AudioWarning, match=r"a\.flac: is damaged, malformed or cut off: 9\.\d+ s"):
        rest, _ = audio.read(path)
    assert torch.equal(rest, wav[:, -rest.shape[1] :])


def test_a_note_is_a_warning_once_and_is_collected_each_time(tmp_path: Path, wav: Tensor) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(put(path, wav)[:-4000])
    for _ in range(2):
        with audio.noted() as notes:
            audio.read(path)
        assert notes == ["ends before its header says: 10.000 s promised, 9.875 s found"]
    with pytest.warns(AudioWarning, match=r"a\.wav"):
        audio.read(path)
    audio.read(path)  # a warning would be an error


# Every failure names the file


def test_too_little_memory_names_the_file(
    tmp_path: Path, wav: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 93.1 GiB")

    put(tmp_path / "a.wav", wav)
    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    with pytest.raises(MemoryError, match=r"memory to read .*a\.wav: Unable to allocate 93"):
        audio.read(tmp_path / "a.wav")


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, wav: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    put(tmp_path / "a.wav", wav)
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(PermissionError, match=r"a\.wav"):
        audio.read(tmp_path / "a.wav")


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").symlink_to(tmp_path / "gone.wav")
    with pytest.raises(FileNotFoundError, match=r"a\.wav is a link to a file that does not exist"):
        audio.read(tmp_path / "a.wav")


def test_samples_without_a_header_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"\1\2" * 100)
    with pytest.raises(ValueError, match=r"cannot read .*a\.raw as audio"):
        audio.read(tmp_path / "a.raw")


# Names


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_a_name_need_not_be_utf_8(tmp_path: Path, wav: Tensor, ending: str) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9." + ending.encode())
    audio.write(path, wav, RATE)
    assert torch.equal(audio.read(path)[0], wav)
    assert audio.info(path).num_samples == wav.shape[1]


def test_ffmpeg_takes_a_colon_and_other_bytes_in_a_name(
    tmp_path: Path, wav: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = put(tmp_path / "a.m4a", wav)
    for name in ("pipe:a.m4a", os.fsdecode(b"caf\xe9.m4a")):
        Path(name).write_bytes(content)
        assert torch.equal(audio.read(name)[0], audio.read("a.m4a")[0])


@pytest.mark.parametrize("ending", ["wav", "flac", "m4a", "mka", "mp3"])
def test_the_header_says_what_is_read(tmp_path: Path, wav: Tensor, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    put(path, wav)
    back, rate = audio.read(path)
    info = audio.info(path)
    assert (info.sample_rate, info.channels) == (rate, back.shape[0])
    assert info.num_samples == pytest.approx(back.shape[1], abs=0 if ending[0] in "wf" else 2048)
