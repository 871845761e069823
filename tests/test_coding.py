"""`neuralcodec encode | decode | info`."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import soundfile
import torch
from torch import Tensor

import neuralcodec
from neuralcodec import bitstream
from neuralcodec.__main__ import main
from neuralcodec.bitstream import Origin
from neuralcodec.core import audio
from neuralcodec.core.codec import Codec
from neuralcodec.core.tokens import Tokens
from neuralcodec.data import clips
from neuralcodec.metrics import score
from neuralcodec.wrappers.classical.pcm import Pcm

Cli = Callable[..., Any]
RVQ = ("--set", "num_codebooks=3", "--set", "codebook_size=16")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second and a half of speech, 16 kHz, mono."""
    clip = next(clip for clip in clips("starter:test") if clip.kind == "speech")
    wav, rate = clip.read(16000), 16000
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    audio.write(path, wav[:, 8000:32000], rate)
    return path


@pytest.fixture(scope="module")
def stereo(tmp_path_factory: pytest.TempPathFactory, speech: Path) -> Path:
    """The same at 44.1 kHz, twice as loud on the left."""
    wav = audio.resample(audio.read(speech)[0], 16000, 44100)[:, :-1]  # of odd length
    path = tmp_path_factory.mktemp("stereo") / "stereo.flac"
    audio.write(path, torch.cat([wav, wav / 2]) / 2, 44100)
    return path


@pytest.fixture
def pipes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, bytes]]:
    """Run the command line with bytes on standard input; give its status and standard output."""

    def call(fed: bytes, *arguments: object) -> tuple[int, bytes]:
        out = io.BytesIO()
        stdout = io.TextIOWrapper(out, write_through=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(fed)))
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "argv", ["neuralcodec", *map(str, arguments)])
            with pytest.raises(SystemExit) as end:
                main()
        return int(end.value.code or 0), out.getvalue()

    return call


def error_line(said: Any) -> str:
    assert said.status == 1
    assert said.out == ""
    assert said.err.count("\n") == 1
    return str(said.err).removeprefix("neuralcodec: ").strip()


def similarity(reference: Path, estimate: Path) -> float:
    wanted, rate = audio.read(reference)
    got, got_rate = audio.read(estimate)
    assert got_rate == rate
    assert got.shape[-1] == wanted.shape[-1]
    return score(audio.mix_down(wanted), audio.mix_down(got), rate, ["si_sdr"])["si_sdr"]


@pytest.mark.parametrize(
    ("codec", "options", "si_sdr"),
    [
        ("pcm", ("--set", "bits=10"), 30),
        ("opus", ("--set", "bitrate_kbps=32", "--set", "vbr=False"), 10),
        ("mp3", ("--set", "bitrate_kbps=64"), 10),
        ("aac", ("--set", "bitrate_kbps=64"), 10),
        ("mdct+rvq", RVQ, 0),
    ],
)
def test_there_and_back(
    cli: Cli, speech: Path, tmp_path: Path, codec: str, options: tuple[str, ...], si_sdr: float
) -> None:
    coded, decoded = tmp_path / "a.nct", tmp_path / "a.wav"
    said = cli("encode", speech, coded, "--codec", codec, *options)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith(f"{codec}: 1.50 s, ")
    size = coded.stat().st_size
    assert said.out.endswith(f" tokens in {size} bytes, {size * 8 / 1500:.3f} kbit/s\n")
    said = cli("decode", coded, decoded)
    assert (said.status, said.out) == (0, f"{codec}: 1.50 s at 16000 Hz\n")
    assert similarity(speech, decoded) > si_sdr


def test_tokens_and_audio_are_the_codecs_own(cli: Cli, speech: Path, tmp_path: Path) -> None:
    coded, decoded = tmp_path / "a.nct", tmp_path / "a.wav"
    cli("encode", speech, coded, "--codec", "mdct+rvq", "--num-codebooks", 2, *RVQ)
    codec = neuralcodec.load("mdct+rvq", num_codebooks=3, codebook_size=16)
    tokens = codec.encode(audio.read(speech)[0][None], 2)
    recording = bitstream.read(coded)
    assert torch.equal(torch.cat(recording.tokens.streams), torch.cat(tokens.streams))
    assert recording.settings == {"num_codebooks": 3, "codebook_size": 16}
    assert recording.header.origin == Origin(16000, 1, 24000)
    assert cli("decode", coded, decoded, "--subtype", "FLOAT").status == 0
    assert torch.equal(audio.read(decoded)[0], codec.decode(tokens)[0])


def test_a_beam_finds_better_codes(cli: Cli, speech: Path, tmp_path: Path) -> None:
    found = {}
    for width in (1, 8):
        coded, decoded = tmp_path / f"{width}.nct", tmp_path / f"{width}.wav"
        options = ("--codec", "mdct+rvq", *RVQ, "--beam-width", width)
        assert cli("encode", speech, coded, *options).status == 0
        assert bitstream.read(coded).settings == {"num_codebooks": 3, "codebook_size": 16}
        assert cli("decode", coded, decoded).status == 0
        found[width] = similarity(speech, decoded)
    assert found[8] > found[1]
    said = cli("encode", speech, tmp_path / "c", "--codec", "opus", "--beam-width", 8)
    assert error_line(said) == "codec 'opus' has no beam search: leave --beam-width out"


def test_original_rate_channels_and_length(cli: Cli, stereo: Path, tmp_path: Path) -> None:
    coded, decoded = tmp_path / "a.nct", tmp_path / "a.flac"
    assert cli("encode", stereo, coded, "--codec", "pcm", "--set", "bits=12").status == 0
    length = soundfile.info(stereo).frames
    assert bitstream.info(coded).header.origin == Origin(44100, 2, length)
    said = cli("decode", coded, decoded, "--force")
    assert said == (0, "pcm: 1.50 s at 44100 Hz\n", "")
    assert soundfile.info(decoded).channels == 1  # what pcm made of it
    assert similarity(stereo, decoded) > 25
    assert cli("decode", coded, decoded, "--codec-rate", "--force").status == 0
    assert (soundfile.info(decoded).samplerate, soundfile.info(decoded).frames) == (16000, 24000)


class Wide(Codec):
    """A stereo codec that sends samples of eight bits, left and right."""

    name, sample_rate, channels, is_causal = "pcm", 16000, 2, True
    frame_rates, codebook_sizes = (16000.0,) * 2, (256,) * 2

    def __init__(self, bits: int = 8, sample_rate: int = 16000) -> None:
        super().__init__()

    def _encode(self, wav: Tensor, depth: int) -> Tokens:
        return self.tokens(((wav + 1) * 127).round().long(), wav.shape[-1])

    def _decode(self, tokens: Tokens) -> Tensor:
        return torch.stack(tokens.streams, dim=1) / 127 - 1


def test_a_stereo_codec(
    cli: Cli, speech: Path, stereo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuralcodec.wrappers.classical.pcm.Pcm", Wide)
    coded, decoded = tmp_path / "a.nct", tmp_path / "a.wav"
    said = cli("encode", speech, coded, "--codec", "pcm")
    assert said == (0, ANY, "speech.wav has 1 channel, repeated for the 2 of pcm\n")
    left, right = bitstream.read(coded).tokens.streams
    assert torch.equal(left, right)
    assert cli("decode", coded, decoded).status == 0
    assert soundfile.info(decoded).channels == 1  # as the original
    assert cli("encode", stereo, coded, "--codec", "pcm") == (0, ANY, "")
    assert cli("decode", coded, decoded, "--force").status == 0
    loud, soft = audio.read(decoded)[0].square().mean(-1)
    assert float(loud / soft) == pytest.approx(4, rel=0.1)


def test_loud_audio_is_scaled_down_and_said(cli: Cli, tmp_path: Path) -> None:
    wav = 2 * torch.sin(torch.arange(16000) / 5)[None]
    audio.write(tmp_path / "loud.wav", wav, 16000, subtype="FLOAT")
    said = cli("encode", tmp_path / "loud.wav", tmp_path / "a.nct", "--codec", "pcm")
    assert said.status == 0
    assert said.err == "scaled down by the peak of 2.0000, which would be clipped\n"


# standard input and output


def test_pipes(
    pipes: Callable[..., tuple[int, bytes]], cli: Cli, speech: Path, tmp_path: Path
) -> None:
    status, coded = pipes(speech.read_bytes(), "encode", "-", "-", "--codec", "pcm")
    assert status == 0
    assert cli("encode", speech, tmp_path / "a.nct", "--codec", "pcm").status == 0
    assert coded == (tmp_path / "a.nct").read_bytes()
    status, decoded = pipes(coded, "decode", "-", "-")
    assert status == 0
    assert cli("decode", tmp_path / "a.nct", tmp_path / "a.wav").status == 0
    assert decoded == (tmp_path / "a.wav").read_bytes()
    status, told = pipes(coded, "info", "-")
    assert status == 0
    assert told.decode() == cli("info", tmp_path / "a.nct").out
    assert pipes(b"RIFF", "decode", "-", "-") == (1, b"")


def test_a_real_pipe() -> None:
    coded = bitstream.dumps(plain(), codec="pcm", origin=Origin(8000, 1, 800))
    program = [sys.executable, "-m", "neuralcodec", "decode", "-", "-"]
    said = subprocess.run(program, input=coded, capture_output=True, check=True)
    wav, rate = soundfile.read(io.BytesIO(said.stdout))
    assert (wav.shape, rate) == ((800,), 8000)
    assert said.stderr.decode() == "pcm: 0.10 s at 8000 Hz\n"


# info


def test_info(cli: Cli, tmp_path: Path) -> None:
    tokens = Tokens(
        tuple(torch.zeros(1, frames, dtype=torch.long) for frames in (50, 50, 100)),
        frame_rates=(12.5, 12.5, 25.0),
        codebook_sizes=(1024, 1024, 1000),
        sample_rate=24000,
        num_samples=96000,
        side={"scales": torch.ones(4)},
        side_bits=128,
    )
    path = tmp_path / "a.nct"
    bitstream.write(
        path,
        tokens,
        codec="snac_24khz",
        settings={"vbr": False, "word": "low"},
        needs=["weights"],
        origin=Origin(44100, 2, 176400),
        digest="00112233445566ff",
    )
    said = cli("info", path)
    assert (said.status, said.err) == (0, "")
    size = path.stat().st_size
    header = bitstream.info(path).header_bytes
    assert said.out.splitlines() == [
        "format      version 2",
        "codec       snac_24khz",
        "settings    vbr=false word=low",
        "needs       --set weights=...",
        "weights     00112233445566ff",
        "audio       4.000 s, 96000 samples, 24000 Hz",
        "original    176400 samples, 44100 Hz, 2 channels",
        "codebooks   2 of 1024 entries (10 bits), 12.5 frames/s, 50 frames",
        "codebooks   1 of 1000 entries (10 bits), 25 frames/s, 100 frames",
        "side        scales [4], 16 bytes",
        "tokens/s    50",
        f"nominal     {tokens.bitrate_kbps:.4g} kbit/s",
        f"measured    {size * 8 / 4000:.4g} kbit/s, of the whole file",
        f"bytes       {size}: header {header}, codes 250 in 1 block, side 16, checksums 8",
    ]


def test_info_of_damage_and_of_other_files(cli: Cli, speech: Path, tmp_path: Path) -> None:
    assert "speech.wav: it is not a file of tokens" in error_line(cli("info", speech))
    assert cli("encode", speech, tmp_path / "a.nct", "--codec", "pcm").status == 0
    whole = (tmp_path / "a.nct").read_bytes()
    (tmp_path / "a.nct").write_bytes(whole[:-1])
    assert "bytes, too short for its header" in error_line(cli("info", tmp_path / "a.nct"))
    assert "within block 2 of 2" in error_line(cli("decode", tmp_path / "a.nct", "-"))
    missing = tmp_path / "b.nct"
    assert error_line(cli("info", missing)) == f"{missing}: No such file or directory"


def test_the_wrong_command_for_a_file_names_the_right_one(
    cli: Cli, speech: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "a.nc"
    assert cli("encode", speech, tokens).status == 0
    again = cli("encode", tokens, tmp_path / "b.nc")
    assert "a.nc is a file of tokens; `neuralcodec decode`" in error_line(again)
    for command in (("decode", speech, tmp_path / "b.wav"), ("info", speech)):
        assert "not a file of tokens: it begins with b'RIFF'" in error_line(cli(*command))
        assert "`neuralcodec encode` makes one" in error_line(cli(*command))
    folder = cli("encode", tmp_path, tmp_path / "b.nc")
    assert f"{tmp_path} is a folder, not an audio file" in error_line(folder)
    assert not (tmp_path / "b.nc").exists()


# what is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("out.nct", "--codec", "opuss"), "unknown codec 'opuss'; did you mean 'opus'?"),
        (
            ("out.nct", "--codec", "mdct"),
            "neuralcodec.load('mdct+rvq') fits a residual vector quantizer",
        ),
        (("out.nct", "--codec", "pcm", "--set", "bits"), "--set takes KEY=VALUE, got 'bits'"),
        (("out.nct", "--codec", "pcm", "--set", "bits=4", "--set", "bits=5"), "bits is given twic"),
        (("out.nct", "--codec", "pcm", "--set", "bit=4"), "unknown setting of codec 'pcm': 'bit'"),
        (("out.nct", "--codec", "opus", "--set", "bitrate_kbps=a"), "with bitrate_kbps=a: '<='"),
        (("out.nct", "--codec", "pcm", "--num-codebooks", "2"), "num_codebooks must be 1, got 2"),
        (("no/out.nct", "--codec", "pcm"), "no folder no to write 'out.nct' in"),
        ((".", "--codec", "pcm"), "is a folder"),
    ],
)
def test_encoding_that_cannot_be(
    cli: Cli,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in error_line(cli("encode", speech, *arguments))
    assert list(tmp_path.iterdir()) == []


def test_decoding_to_what_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    bitstream.write(tmp_path / "a.nct", plain(), codec="pcm")
    said = cli("decode", tmp_path / "a.nct", tmp_path / "a.mp3")
    assert error_line(said) == "can write .flac and .wav, not 'a.mp3'"


def plain(**changes: Any) -> Tokens:
    return Tokens(
        **{
            "codes": torch.full((1, 1, 1600), 128),
            "frame_rates": (16000.0,),
            "codebook_sizes": (256,),
            "sample_rate": 16000,
            "num_samples": 1600,
            **changes,
        }
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"codebook_sizes": (512,)},
        {"sample_rate": 8000, "num_samples": 800},
        {"frame_rates": (1e-6,), "num_samples": 2**44},  # samples that nothing stands for
        {"codes": torch.zeros(1, 2, 1600, dtype=torch.long)}
        | {"frame_rates": (16000.0,) * 2, "codebook_sizes": (256,) * 2},
    ],
)
def test_tokens_of_another_codec_are_not_decoded(
    cli: Cli, tmp_path: Path, changes: dict[str, Any]
) -> None:
    bitstream.write(tmp_path / "a.nct", plain(**changes), codec="pcm")
    said = error_line(cli("decode", tmp_path / "a.nct", tmp_path / "a.wav"))
    assert "'pcm' with these settings has 1 of 256 entries at 16000 Hz" in said
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize("codec", ["mdct", "mel"])
def test_tokens_are_not_decoded_by_a_codec_without_codebooks(
    cli: Cli, tmp_path: Path, codec: str
) -> None:
    bitstream.write(tmp_path / "a.nct", plain(), codec=codec)
    said = error_line(cli("decode", tmp_path / "a.nct", tmp_path / "a.wav"))
    assert f"{codec!r} with these settings has no codebooks" in said
    assert not (tmp_path / "a.wav").exists()


def test_a_file_that_asks_for_what_is_not_there(cli: Cli, tmp_path: Path) -> None:
    bitstream.write(tmp_path / "a.nct", plain(), codec="os")
    assert "unknown codec 'os'" in error_line(cli("decode", tmp_path / "a.nct", "-"))
    bitstream.write(tmp_path / "a.nct", plain(), codec="pcm", settings={"bitz": 4})
    assert "unknown setting of codec 'pcm': 'bitz'" in error_line(
        cli("decode", tmp_path / "a.nct", "-")
    )


def test_codebooks_must_be_those_of_encoding(
    cli: Cli, speech: Path, fit_folder: Path, tmp_path: Path
) -> None:
    coded, decoded = tmp_path / "a.nct", tmp_path / "a.wav"
    own = ("--set", f"audio={fit_folder}")
    assert cli("encode", speech, coded, "--codec", "mdct+rvq", *RVQ, *own).status == 0
    recording = bitstream.read(coded)
    assert recording.header.needs == ("audio",)
    assert os.fsencode(fit_folder) not in coded.read_bytes()
    said = error_line(cli("decode", coded, decoded))
    assert said == "encoded with audio, which no file holds; give --set audio=..."
    assert cli("decode", coded, decoded, *own).status == 0
    assert similarity(speech, decoded) > 0
    other = ("--set", "audio=starter:fit", "--force")
    said = error_line(cli("decode", coded, decoded, *other))
    assert f"encoded with weights {recording.header.digest}, this codec has " in said
    for option in ("--any-weights", "--any-codebooks"):
        assert cli("decode", coded, decoded, *other, option).status == 0


def test_settings_whose_type_names_a_file_stay_out(
    cli: Cli, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tabled(Pcm):
        def __init__(self, table: str | Path = "plain") -> None:
            super().__init__()

    monkeypatch.setattr("neuralcodec.wrappers.classical.pcm.Pcm", Tabled)
    coded = tmp_path / "a.nct"
    options = ("--codec", "pcm", "--set", "table=mine")
    assert cli("encode", speech, coded, *options).status == 0
    assert bitstream.read(coded).header.needs == ("table",)
    assert cli("decode", coded, tmp_path / "a.wav", "--set", "table=mine").status == 0
    bitstream.write(coded, plain(), codec="pcm", settings={"table": "mine"})
    said = error_line(cli("decode", coded, tmp_path / "b.wav"))
    assert said.startswith("the file sets table, which may name something to load")
    assert cli("decode", coded, tmp_path / "b.wav", "--set", "table=mine").status == 0


def test_lyra_at_six_kbps_costs_six_kbps_and_sounds_as_the_codec_does(
    cli: Cli, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURALCODEC_WEIGHTS", str(shared / "models"))
    wav = torch.cat([clip.read(16000) for clip in clips("starter:test")[-4:]], dim=-1)
    audio.write(tmp_path / "x.wav", wav, 16000, subtype="FLOAT")
    options = ("--codec", "lyra_v2", "--num-codebooks", 30)
    assert cli("encode", tmp_path / "x.wav", tmp_path / "x.nct", *options).status == 0
    said = cli("decode", tmp_path / "x.nct", tmp_path / "y.wav", "--subtype", "FLOAT")
    assert said.status == 0
    seconds = -(-wav.shape[-1] // 320) / 50
    size = (tmp_path / "x.nct").stat().st_size
    header = bitstream.info(tmp_path / "x.nct").header_bytes
    assert size - header == pytest.approx(6000 * seconds / 8, rel=0.02)
    assert header < 60
    codec = neuralcodec.load("lyra_v2")
    torch.testing.assert_close(
        audio.read(tmp_path / "y.wav")[0], codec.decode(codec.encode(wav[None], 30))[0]
    )
