"""`neuralcodec encode | decode` with audio of other numbers of channels than the codec's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import neuralcodec
from neuralcodec import bitstream
from neuralcodec.cli.channels import Channels, fit
from neuralcodec.core import audio

Cli = Callable[..., Any]
EACH = ("--channels", "each")


def tones(*hertz: float, rate: int = 16000, seconds: float = 1.0) -> torch.Tensor:
    """A tone per channel, `[C, T]`."""
    time = torch.arange(int(seconds * rate)) / rate
    return torch.stack([0.4 * torch.sin(2 * torch.pi * each * time) for each in hertz])


def similar(got: torch.Tensor, want: torch.Tensor) -> float:
    """Cosine of the angle between two channels."""
    return float(torch.nn.functional.cosine_similarity(got, want, dim=-1))


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    """440 Hz on the left, 700 Hz on the right, at 44.1 kHz."""
    path = tmp_path / "stereo.wav"
    audio.write(path, tones(440, 700, rate=44100), 44100)
    return path


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("pcm", ("--set", "bits=10")),
        ("opus", ("--set", "bitrate_kbps=32")),
        ("mp3", ("--set", "bitrate_kbps=64")),
        ("mdct+rvq", ("--set", "num_codebooks=8", "--set", "codebook_size=64")),
    ],
)
def test_each_channel_comes_back(
    cli: Cli, stereo: Path, tmp_path: Path, codec: str, options: tuple[str, ...]
) -> None:
    coded, decoded = tmp_path / "a.nct", tmp_path / "a.wav"
    said = cli("encode", stereo, coded, "--codec", codec, *options, *EACH)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith(f"{codec}: 1.00 s, 2 channels, ")
    size = coded.stat().st_size
    assert said.out.endswith(f" in {size} bytes, {size * 8 / 1000:.3f} kbit/s\n")
    assert cli("decode", coded, decoded).status == 0
    got, rate = audio.read(decoded)
    want = audio.read(stereo)[0]
    assert (rate, got.shape) == (44100, want.shape)
    for mine, other in zip(got, want, strict=True):
        assert similar(mine, other) > 0.8
    assert similar(got[0], want[1]) < 0.5
    assert cli("decode", coded, tmp_path / "b.wav", "--codec-rate").status == 0
    assert audio.read(tmp_path / "b.wav")[0].shape[0] == 2


def test_each_channel_is_coded_as_if_alone(cli: Cli, stereo: Path, tmp_path: Path) -> None:
    coded = tmp_path / "a.nct"
    assert cli("encode", stereo, coded, *EACH).status == 0
    codec = neuralcodec.load("tiny_50hz")
    wav = audio.resample(audio.read(stereo)[0], 44100, 16000)
    recording = bitstream.read(coded)
    for clip, channel in zip(recording.clips, wav, strict=True):
        own = codec.encode(channel[None, None])
        assert torch.equal(torch.cat(clip.streams), torch.cat(own.streams))
    assert recording.tokens.batch_size == 2
    alone = tmp_path / "left.wav"
    audio.write(alone, audio.read(stereo)[0][:1], 44100)
    assert cli("encode", alone, tmp_path / "left.nct", *EACH).status == 0
    (left,) = bitstream.read(tmp_path / "left.nct").clips
    assert torch.equal(torch.cat(left.streams), torch.cat(recording.clips[0].streams))


def test_a_mix_is_said_once(cli: Cli, stereo: Path, tmp_path: Path) -> None:
    said = cli("encode", stereo, tmp_path / "a.nct", "--codec", "pcm")
    assert said.status == 0
    assert said.err == (
        "stereo.wav has 2 channels, mixed down to 1 for pcm; "
        "--channels each codes every channel on its own\n"
    )
    said = cli("encode", stereo, tmp_path / "b.nct", "--codec", "pcm", "--channels", "mix")
    assert said.err.count("\n") == 1
    assert (tmp_path / "a.nct").read_bytes() == (tmp_path / "b.nct").read_bytes()


def test_channels_that_cancel(cli: Cli, tmp_path: Path) -> None:
    source, coded, decoded = tmp_path / "x.wav", tmp_path / "a.nct", tmp_path / "b.wav"
    wav = tones(440, 440)
    wav[1] *= -1
    audio.write(source, wav, 16000)
    said = cli("encode", source, coded, "--codec", "pcm")
    assert said.status == 1
    assert said.err.startswith("neuralcodec: x.wav: the 2 channels cancel: their mean is inf dB")
    assert "--channels each" in said.err
    assert not coded.exists()
    assert cli("encode", source, coded, "--codec", "pcm", *EACH).status == 0
    assert cli("decode", coded, decoded).status == 0
    left, right = audio.read(decoded)[0]
    assert similar(left, right) < -0.99
    assert similar(left, wav[0]) > 0.99


def test_what_does_not_cancel() -> None:
    silence = torch.zeros(2, 100)
    assert torch.equal(fit(silence, 1, Channels.MIX, "x", "pcm")[0][0], silence[:1])
    one_of_many = torch.zeros(100, 16000)
    one_of_many[7] = tones(440)[0]
    (mixed,), _ = fit(one_of_many, 1, Channels.MIX, "x", "pcm")
    torch.testing.assert_close(mixed * 100, one_of_many[7:8])
    nearly = tones(440, 440)
    nearly[1] *= -0.8  # the mean is 19 dB below either
    fit(nearly, 1, Channels.MIX, "x", "pcm")
    nearly[1] /= 0.8 / 0.99
    with pytest.raises(ValueError, match="x: the 2 channels cancel"):
        fit(nearly, 1, Channels.MIX, "x", "pcm")


@pytest.mark.parametrize(
    ("count", "channels", "mode", "shapes", "said"),
    [
        (2, 2, Channels.MIX, [2], ""),
        (1, 1, Channels.EACH, [1], ""),
        (1, 2, Channels.MIX, [2], "x has 1 channel, repeated for the 2 of wide"),
        (1, 2, Channels.EACH, [2], "x has 1 channel, repeated for the 2 of wide"),
        (2, 2, Channels.EACH, [2, 2], "each of the 2 channels of x is repeated for the 2 of wide"),
        (3, 1, Channels.EACH, [1, 1, 1], ""),
        (
            6,
            2,
            Channels.MIX,
            [2],
            "x has 6 channels, mixed down to 1 and repeated for the 2 of wide; "
            "--channels each codes every channel on its own",
        ),
    ],
)
def test_what_is_done_to_channels(
    count: int, channels: int, mode: Channels, shapes: list[int], said: str
) -> None:
    wav = tones(*(300 + 50 * place for place in range(count)))
    clips, found = fit(wav, channels, mode, "x", "wide")
    assert found == said
    assert [len(clip) for clip in clips] == shapes
    if mode is Channels.EACH:
        for clip, channel in zip(clips, wav, strict=True):
            assert torch.equal(clip, channel.expand(channels, -1))


def test_info_of_channels(cli: Cli, stereo: Path, tmp_path: Path) -> None:
    coded, mono = tmp_path / "a.nct", tmp_path / "b.nct"
    options = ("--codec", "pcm", "--set", "bits=4")
    assert cli("encode", stereo, coded, *options, *EACH).status == 0
    assert cli("encode", stereo, mono, *options).status == 0
    found = dict(line.split(maxsplit=1) for line in cli("info", coded).out.splitlines())
    alone = dict(line.split(maxsplit=1) for line in cli("info", mono).out.splitlines())
    assert found["original"] == "44100 samples, 44100 Hz, 2 channels, each coded on its own"
    assert found["codebooks"].startswith("channel 2: 1 of 16 entries (4 bits)")
    assert (found["nominal"], alone["nominal"]) == ("128 kbit/s", "64 kbit/s")
    assert (found["tokens/s"], alone["tokens/s"]) == ("32000", "16000")
    size = coded.stat().st_size
    assert found["measured"] == f"{size * 8 / 1000:.4g} kbit/s, of the whole file"
    assert found["measured"].split()[0] != found["nominal"].split()[0]
