import cmath
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralcodec.core import loading as codecs
from neuralcodec.core.codec import Codec
from neuralcodec.data import clips
from neuralcodec.wrappers.classical.codec2 import Codec2

MODES = {"3200": 3.2, "2400": 2.4, "1600": 1.6, "1400": 1.4, "1300": 1.3, "1200": 1.2, "700C": 0.7}
needs_programs = pytest.mark.skipif(
    shutil.which("c2enc") is None or shutil.which("c2dec") is None,
    reason="the programs of Codec 2 are not here: apt-get install codec2",
)
every_mode = pytest.mark.parametrize("mode", MODES)


def speech(seconds: float = 4.0) -> Tensor:
    """Some speech at 8 kHz, `[1, 1, T]`."""
    clip = next(clip for clip in clips("starter:test") if clip.kind == "speech")
    return clip.read(8000)[None, :, 8000 : 8000 + round(seconds * 8000)]


def run(program: str, mode: str, data: bytes) -> bytes:
    return subprocess.run([program, mode, "-", "-"], input=data, capture_output=True).stdout


def swell(pitch: float, slow: float, seconds: float = 6.0) -> Tensor:
    """Harmonics of a pitch, whose level rises and falls `slow` times a second, `[1, 1, T]`."""
    time = torch.arange(round(seconds * 8000)) / 8000
    count = int(3600 / pitch)
    tones = [torch.cos(2 * math.pi * k * pitch * time + k * k) / k for k in range(1, count)]
    wav = torch.stack(tones).sum(0) * (2 * math.pi * slow * time).sin().exp()
    return 0.3 * (wav / wav.abs().max())[None, None]


def swing(wav: Tensor, pitch: float, slow: float) -> complex:
    """Give the swing of the level of a `swell`, as a phasor."""
    window = torch.hann_window(4 * round(8000 / pitch))[None, None]
    power = torch.nn.functional.conv1d(wav.square(), window, padding=window.shape[-1] // 2)
    level = (power[0, 0] + 1e-6).log()[8000:-8000]
    time = torch.arange(len(level)) / 8000
    wave = torch.exp(-2j * math.pi * slow * time) * torch.hann_window(len(level))
    return complex((level * wave).sum())


def write_program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@needs_programs
@every_mode
def test_bitrate_is_that_of_the_mode(mode: str) -> None:
    codec, wav = Codec2(mode), speech()
    tokens = codec.encode(wav)
    assert isinstance(codec, Codec)
    assert tokens.bitrate_kbps == pytest.approx(MODES[mode])
    assert (tokens.frame_rates, tokens.codebook_sizes) == (codec.frame_rates, codec.codebook_sizes)
    # Beyond the audio there are at most the delay and one frame that isn't full.
    assert MODES[mode] * 4 <= tokens.num_bits / 1000 < MODES[mode] * (4 + 0.03 + 0.04)


@needs_programs
@every_mode
def test_audio_is_that_of_the_programs_without_their_delay(mode: str) -> None:
    codec, wav = Codec2(mode), speech()
    samples = (wav[0, 0] * 32768).round().numpy().astype("<i2")
    padded = np.concatenate([samples, np.zeros(640, "<i2")])
    padded = padded[: len(padded) // 320 * 320]
    theirs = np.frombuffer(run("c2dec", mode, run("c2enc", mode, padded.tobytes())), "<i2")
    ours = codec.decode(codec.encode(wav))
    start = codec.delay_samples
    assert ours.shape == wav.shape
    assert np.array_equal((ours[0, 0] * 32768).numpy(), theirs[start : start + len(samples)])


@needs_programs
@every_mode
def test_what_swells_swells_in_time(mode: str) -> None:
    codec, late = Codec2(mode), []
    for pitch, slow in ((97, 1.5), (123, 3.1), (150, 2.3)):
        wav = swell(pitch, slow)
        decoded = codec.decode(codec.encode(wav))
        turn = cmath.phase(swing(wav, pitch, slow) / swing(decoded, pitch, slow))
        late.append(turn / (2 * math.pi * slow) * 8000)  # samples
    assert abs(median(late)) < 10


@needs_programs
@every_mode
def test_no_later_audio_matters(mode: str) -> None:
    codec, wav = Codec2(mode), speech()
    changed = wav.clone()
    changed[..., 8000:] = -wav[..., 8000:].flip(-1)
    whole, other = (
        torch.stack(codec.encode(wav).streams),
        torch.stack(codec.encode(changed).streams),
    )
    frames = round(codec.frame_rates[0])
    assert torch.equal(whole[..., :frames], other[..., :frames])
    assert not torch.equal(whole[..., frames:], other[..., frames:])


@needs_programs
@pytest.mark.parametrize("length", [1, 10, 170, 171, 490, 8001])
@pytest.mark.parametrize("mode", ["3200", "1300", "700C"])
def test_length_comes_back_and_clips_of_a_batch_are_their_own(mode: str, length: int) -> None:
    codec = Codec2(mode)
    wav = torch.cat([speech()[..., 4000 : 4000 + length], speech()[..., 9000 : 9000 + length]])
    tokens = codec.encode(wav)
    for both, second in zip(tokens.streams, codec.encode(wav[1:]).streams, strict=True):
        assert torch.equal(both[1:], second)
    decoded = codec.decode(tokens)
    assert decoded.shape == wav.shape
    assert torch.equal(decoded[:1], codec.decode(codec.encode(wav[:1])))


@needs_programs
@every_mode
def test_silence_stays_quiet_and_full_scale_within_it(mode: str, rng: torch.Generator) -> None:
    codec = Codec2(mode)
    assert codec.decode(codec.encode(torch.zeros(1, 1, 8000))).abs().max() < 0.01
    loud = torch.randn(1, 1, 8000, generator=rng).sign()
    assert codec.decode(codec.encode(loud)).abs().max() <= 1


@needs_programs
def test_inputs_and_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be one of 3200, .*, 700C, got '450'"):
        codecs.load("codec2", mode="450")
    assert codecs.load("codec2", mode=1600).mode == "1600"
    codec, wav = Codec2("1600"), speech(0.1)
    with pytest.raises(ValueError, match=r"num_codebooks must be one of \[8\], got 2"):
        codec.encode(wav, 2)
    with pytest.raises(ValueError, match=r"peak of 1\.5"):
        codec.encode(torch.full((1, 1, 10), 1.5))
    tokens = codec.encode(wav)
    with pytest.raises(ValueError, match=r"are not of codec2: 8000 Hz, \(25\.0, .* \(256, "):
        codec.decode(Codec2("3200").encode(wav))
    for fewer in (tokens.prefix(7), Codec2("1400").encode(wav)):
        with pytest.raises(ValueError, match=r"num_codebooks must be one of \[8\], got 7"):
            codec.decode(fewer)
    short = replace(tokens, codes=torch.stack(tokens.streams, dim=1)[..., 1:])
    with pytest.raises(ValueError, match=r"800 samples are 3 frames, got 2"):
        codec.decode(short)


def test_missing_programs_are_named_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="needs the program c2enc: apt-get install codec2"):
        Codec2()
    write_program(tmp_path, "c2enc", "sys.exit('usage: c2enc 3200|2400 In Out')")
    with pytest.raises(FileNotFoundError, match="needs the program c2dec"):
        Codec2()


def test_a_program_that_lacks_a_mode_or_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("c2enc", "c2dec"):
        usage = f"len(sys.argv) < 2 and sys.exit('usage: {name} 3200|2400 In Out')"
        write_program(tmp_path, name, f"{usage}\nsys.exit('out of\\n paper')")
    with pytest.raises(ValueError, match="this c2enc has no mode '700C', only 3200, 2400"):
        Codec2("700C")
    with pytest.raises(OSError, match="c2enc 2400 failed with status 1: out of paper"):
        Codec2("2400").encode(torch.zeros(1, 1, 100))
