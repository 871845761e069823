"""`neuralcodec encode | decode`: what they never replace, repair, and what they trust."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import neuralcodec
from neuralcodec import bitstream
from neuralcodec.bitstream import Origin
from neuralcodec.cli import trust
from neuralcodec.core import audio
from neuralcodec.core.registry import REGISTRY, Entry
from neuralcodec.core.tokens import Tokens
from neuralcodec.tiny.codec import SHIPPED

Cli = Callable[..., Any]


def error_line(said: Any) -> str:
    assert (said.status, said.out) == (1, "")
    assert said.err.count("\n") == 1
    return str(said.err).removeprefix("neuralcodec: ").strip()


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """Half a second of a tone, 16 kHz, mono."""
    path = tmp_path / "in.wav"
    audio.write(path, 0.5 * torch.sin(torch.arange(8000) / 5)[None], 16000)
    return path


# what is never replaced


@pytest.mark.parametrize("options", [(), ("--force",)])
@pytest.mark.parametrize("kind", ["same", "spelling", "soft", "hard"])
def test_the_recording_is_never_overwritten(
    cli: Cli, tone: Path, kind: str, options: tuple[str, ...]
) -> None:
    before, target = tone.read_bytes(), tone.parent / "link.wav"
    if kind == "soft":
        target.symlink_to(tone)
    elif kind == "hard":
        target.hardlink_to(tone)
    else:
        target = tone if kind == "same" else tone.parent / "." / ".." / tone.parent.name / "in.wav"
    said = error_line(cli("encode", tone, target, "--codec", "pcm", *options))
    assert "is the same file as the input" in said
    assert tone.read_bytes() == before


def test_a_file_of_tokens_is_not_decoded_onto_itself(cli: Cli, tmp_path: Path) -> None:
    coded = tmp_path / "a.wav"  # an ending is only a habit
    bitstream.write(coded, pcm(100), codec="pcm")
    said = error_line(cli("decode", coded, coded, "--force"))
    assert "is the same file as the input" in said
    assert bitstream.is_recording(coded)


def test_a_file_that_a_setting_names_is_an_input(cli: Cli, tone: Path, tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    shutil.copy(SHIPPED / "tiny_50hz.safetensors", weights)
    options = ("--set", f"weights={weights}", "--force")
    said = error_line(cli("encode", tone, weights, *options))
    assert "is the same file as the input" in said


def test_redirected_standard_input_is_an_input(tone: Path) -> None:
    program = [sys.executable, "-m", "neuralcodec", "encode", "-", str(tone), "--codec", "pcm"]
    before = tone.read_bytes()
    with tone.open("rb") as stream:
        said = subprocess.run([*program, "--force"], stdin=stream, capture_output=True, check=False)
    assert said.returncode == 1
    assert b"is the same file as the input standard input" in said.stderr
    assert tone.read_bytes() == before


def test_encode_replaces_only_files_of_tokens(cli: Cli, tone: Path, tmp_path: Path) -> None:
    coded, precious = tmp_path / "a.nct", tmp_path / "precious.wav"
    precious.write_bytes(b"another recording")
    said = error_line(cli("encode", tone, precious, "--codec", "pcm"))
    assert said == f"{precious} exists already; --force replaces it"
    assert precious.read_bytes() == b"another recording"
    for bits in (4, 8):
        options = ("--codec", "pcm", "--set", f"bits={bits}")
        assert cli("encode", tone, coded, *options).status == 0
        assert bitstream.info(coded).header.settings == {"bits": bits}
    assert cli("encode", tone, precious, "--codec", "pcm", "--force").status == 0
    assert bitstream.is_recording(precious)


def test_decode_replaces_only_by_force(cli: Cli, tmp_path: Path) -> None:
    coded, decoded = tmp_path / "a.nct", tmp_path / "a.wav"
    settings: dict[str, bitstream.Setting] = {"sample_rate": 160}
    bitstream.write(coded, pcm(100), codec="pcm", settings=settings)
    assert cli("decode", coded, decoded).status == 0
    before = decoded.read_bytes()
    assert "--force replaces it" in error_line(cli("decode", coded, decoded))
    bitstream.write(coded, pcm(200), codec="pcm", settings=settings)
    assert "--force replaces it" in error_line(cli("decode", coded, decoded))
    assert decoded.read_bytes() == before
    assert cli("decode", coded, decoded, "--force").status == 0
    assert decoded.read_bytes() != before


def test_output_through_a_link_is_written_where_it_leads(
    cli: Cli, tone: Path, tmp_path: Path
) -> None:
    link, real = tmp_path / "link.nct", tmp_path / "real.nct"
    link.symlink_to(real)
    assert cli("encode", tone, link, "--codec", "pcm").status == 0
    assert link.is_symlink()
    assert bitstream.read(real).codec == "pcm"


# repair


def pcm(seconds: int, rate: int = 160) -> Tokens:
    """Rising samples of 8 bits."""
    codes = torch.arange(seconds * rate)[None, None] % 256
    return Tokens.uniform(
        codes,
        frame_rate=rate,
        codebook_size=256,
        sample_rate=rate,
        num_samples=seconds * rate,
    )


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A file of 400 s in 4 blocks, intact; with the second block damaged; and cut in the last."""
    whole = bitstream.dumps(pcm(400), codec="pcm", settings={"sample_rate": 160})
    size = (len(whole) - bitstream.info(io.BytesIO(whole)).header_bytes) // 4
    flipped = bytearray(whole)
    flipped[len(whole) - 3 * size + 5] ^= 8
    paths = tmp_path / "whole.nct", tmp_path / "flipped.nct", tmp_path / "cut.nct"
    for path, data in zip(paths, (whole, bytes(flipped), whole[:-10]), strict=True):
        path.write_bytes(data)
    return paths


def test_repair_decodes_what_is_intact(
    cli: Cli, damaged: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    whole, flipped, cut = damaged
    wanted, got, short = tmp_path / "wanted.wav", tmp_path / "got.wav", tmp_path / "short.wav"
    said = cli("decode", whole, wanted, "--repair")
    assert said == (0, "pcm: 400.00 s at 160 Hz\n", "")
    block = "block 2 of 4 (100.00-200.00 s) fails its checksum: the file is damaged"
    said = error_line(cli("decode", flipped, got))
    assert said == f"{flipped}: {block}; decode --repair, or repair=True, keeps the rest"
    assert not got.exists()
    said = cli("decode", flipped, got, "--repair")
    assert (said.status, said.out) == (3, "pcm: 400.00 s at 160 Hz\n")
    lost = "lost: 100.00-200.00 s; 100.00 of 400.00 s are silent in"
    assert said.err == f"{block}\n{lost} {got}\n"
    want, wav = audio.read(wanted)[0], audio.read(got)[0]
    assert torch.equal(wav[:, :16000], want[:, :16000])
    assert torch.equal(wav[:, 32000:], want[:, 32000:])
    assert float(wav[:, 16002:31998].abs().max()) == 0  # but for 5 ms of fading
    said = cli("decode", cut, short, "--repair")
    assert said.status == 3
    assert f"lost: 300.00-400.00 s; 100.00 of 400.00 s are silent in {short}" in said.err
    wav = audio.read(short)[0]
    assert wav.shape == want.shape
    assert torch.equal(wav[:, :48000], want[:, :48000])


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_lost_audio_fades_out_and_in_but_not_at_the_ends_of_a_clip(
    cli: Cli, tmp_path: Path, lost: int
) -> None:
    coded, decoded, block = tmp_path / "a.nct", tmp_path / "a.wav", 16384
    codes = torch.full((1, 1, 3 * block), 192)  # +0.5
    tokens = Tokens.uniform(
        codes, frame_rate=16000, codebook_size=256, sample_rate=16000, num_samples=3 * block
    )
    data = bytearray(bitstream.dumps(tokens, codec="pcm"))
    data[(lost - 3) * (block + 4)] ^= 1
    coded.write_bytes(data)
    assert cli("decode", coded, decoded, "--repair").status == 3
    gain = audio.read(decoded)[0][0] / 0.5
    sizes = [lost * block, block, (2 - lost) * block]
    before, within, after = torch.split(gain, sizes)
    assert (before == 1).all()
    assert (after == 1).all()
    fade = 80  # 5 ms
    silence = within[fade if lost > 0 else 0 : block - fade if lost < 2 else block]
    assert float(silence.abs().max()) == 0
    assert float(gain.diff().abs().max()) < 1.1 / (fade - 1)  # no click


def test_repair_of_opus(cli: Cli, tmp_path: Path, rng: torch.Generator) -> None:
    """Packets after the lost ones are decoded in their place."""
    source, coded, decoded = tmp_path / "a.wav", tmp_path / "a.nct", tmp_path / "b.wav"
    audio.write(source, 0.1 * torch.randn(1, 40 * 16000, generator=rng), 16000)
    options = ("--codec", "opus", "--set", "bitrate_kbps=12")
    assert cli("encode", source, coded, *options).status == 0
    assert cli("decode", coded, decoded).status == 0
    whole = audio.read(decoded)[0]
    data = bytearray(coded.read_bytes())
    header = bitstream.info(coded).header
    assert header.num_blocks == 3
    data[-header.block_bytes(2) - 10] ^= 1  # in the second block
    coded.write_bytes(bytes(data))
    assert "--repair" in error_line(cli("decode", coded, decoded, "--force"))
    assert cli("decode", coded, decoded, "--force", "--repair").status == 3
    ((start, stop),) = bitstream.read(coded, repair=True).lost
    assert start == pytest.approx(40 / 3, abs=0.5)
    assert stop == pytest.approx(80 / 3, abs=0.5)
    wav = audio.read(decoded)[0]
    first, last = int(start * 16000), int(stop * 16000) + 1
    assert torch.equal(wav[:, :first], whole[:, :first])
    assert float(wav[:, first + 80 : last - 80].abs().max()) == 0
    settled = last + 8000  # a decoder remembers what it heard before
    error = (wav - whole)[:, settled:].square().mean()
    assert error < 0.05 * whole[:, settled:].square().mean()


def test_a_header_beyond_repair(cli: Cli, damaged: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data = bytearray(damaged[0].read_bytes())
    data[12] ^= 1
    damaged[0].write_bytes(bytes(data))
    said = error_line(cli("decode", damaged[0], tmp_path / "a.wav", "--repair"))
    assert said.endswith("the header fails its checksum: the file is beyond repair")


# weights


def test_other_weights_are_refused(cli: Cli, tone: Path, tmp_path: Path) -> None:
    """The codebooks are the same: only a number in the decoder differs."""
    shipped, other = SHIPPED / "tiny_50hz.safetensors", tmp_path / "other.safetensors"
    with safe_open(shipped, framework="pt") as file:
        facts = file.metadata()
    tensors = load_file(shipped)
    name = next(name for name in tensors if name.startswith("decoder") and "bias" in name)
    tensors[name] = tensors[name] + 0.5
    save_file(tensors, other, metadata=facts)
    coded, decoded = tmp_path / "a.nct", tmp_path / "a.wav"
    assert cli("encode", tone, coded).status == 0
    digest = bitstream.info(coded).header.digest
    assert len(digest) == 16
    mine = ("--set", f"weights={other}")
    said = error_line(cli("decode", coded, decoded, *mine))
    assert said.startswith(f"encoded with weights {digest}, this codec has ")
    assert said.split("this codec has ")[1][:16] not in (digest, "none")
    assert cli("decode", coded, decoded, *mine, "--any-weights").status == 0
    assert cli("decode", coded, decoded, "--force").status == 0
    assert cli("encode", tone, coded, *mine).status == 0
    assert bitstream.info(coded).header.digest != digest


def test_an_old_file_without_a_digest_fits_any_codec(cli: Cli, tone: Path, tmp_path: Path) -> None:
    """Also one that has no quantizer of ours to compare with."""
    coded, codec = tmp_path / "a.nct", neuralcodec.load("mel")
    assert cli("encode", tone, coded).status == 0
    header = bitstream.info(coded).header
    trust.check_digest(codec, replace(header, version=1, digest=""))
    with pytest.raises(ValueError, match=f"encoded with weights {header.digest}, this codec has"):
        trust.check_digest(codec, header)


def test_a_codec_that_has_learned_nothing_has_no_digest(
    cli: Cli, tone: Path, tmp_path: Path
) -> None:
    coded = tmp_path / "a.nct"
    assert cli("encode", tone, coded, "--codec", "opus").status == 0
    assert bitstream.info(coded).header.digest == ""


def as_version_1(data: bytes) -> bytes:
    """Rewrite a file of one block and no side."""
    end = 7 + int.from_bytes(data[5:7], "little")
    header, block = data[:4] + b"\1" + data[5:end], data[end + 4 : -4]
    seed = zlib.crc32(header)
    found = header + seed.to_bytes(4, "little") + block
    return found + zlib.crc32(block, (seed + 1) % 2**32).to_bytes(4, "little")


def test_a_file_of_version_1_is_held_to_its_codebooks(cli: Cli, tone: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_codebooks": 2, "codebook_size": 4}
    codec = neuralcodec.load("mdct+rvq", **options)
    tokens = codec.encode(audio.read(tone)[0][None])
    books = hashlib.sha256(codec.rvq.codebooks.numpy().astype("<f4").tobytes()).hexdigest()
    old, decoded = tmp_path / "old.nct", tmp_path / "a.wav"
    for digest, status in [(books, 0), ("0" * 16, 1)]:
        data = bitstream.dumps(tokens, codec="mdct+rvq", settings=options, digest=digest)
        old.write_bytes(as_version_1(data))
        assert bitstream.info(old).header.version == 1
        said = cli("decode", old, decoded, "--force")
        assert said.status == status
    assert f"encoded with codebooks {'0' * 16}, this codec has {books[:16]}" in said.err


# names


@pytest.fixture
def marking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `marking` with a codec, which leaves a file `mark` when it is imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "marking.py").write_text(
        "from pathlib import Path\n"
        "from neuralcodec.wrappers.classical.pcm import Pcm\n"
        "Path(__file__).with_name('mark').touch()\n"
        "class Codec(Pcm):\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "marking", raising=False)
    return folder / "mark"


@pytest.mark.parametrize("name", ["marking:Codec", "marking:Codec+rvq", "marking", "marking+rvq"])
def test_a_file_does_not_decide_what_is_imported(
    cli: Cli, marking: Path, tmp_path: Path, name: str
) -> None:
    coded, decoded = tmp_path / "a.nct", tmp_path / "a.wav"
    bitstream.write(coded, pcm(1, 16000), codec=name)
    assert cli("info", coded).status == 0
    said = error_line(cli("decode", coded, decoded))
    assert "--codec marking:Codec" in said if ":" in name else "unknown codec 'marking'" in said
    said = error_line(cli("decode", coded, decoded, "--codec", "pcm"))
    assert said == f"the file is of codec {name!r}, not of --codec pcm"
    assert not marking.exists()
    assert "marking" not in sys.modules


def test_a_codec_that_the_user_names_is_imported(
    cli: Cli, marking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTRY, "marking:Codec", Entry("marking", "Codec", None, "a test's"))
    coded, decoded = tmp_path / "a.nct", tmp_path / "a.wav"
    origin = Origin(16000, 1, 16000)
    bitstream.write(coded, pcm(1, 16000), codec="marking:Codec", origin=origin)
    error_line(cli("decode", coded, decoded))
    assert not marking.exists()
    assert cli("decode", coded, decoded, "--codec", "marking:Codec").status == 0
    assert marking.exists()


def test_a_registered_name_may_be_given_too(cli: Cli, tmp_path: Path) -> None:
    coded = tmp_path / "a.nct"
    bitstream.write(coded, pcm(1, 16000), codec="pcm")
    said = error_line(cli("decode", coded, tmp_path / "a.wav", "--codec", "opus"))
    assert said == "the file is of codec 'pcm', not of --codec opus"
    assert cli("decode", coded, tmp_path / "a.wav", "--codec", "pcm").status == 0
    assert os.path.getsize(tmp_path / "a.wav") > 32000
