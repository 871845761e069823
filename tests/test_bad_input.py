"""What the toolkit makes of bad audio: a score that makes sense, or one line that says why not."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
import torch
from torch import Tensor

from neuralcodec import LatentCodec, load
from neuralcodec.core import audio
from neuralcodec.data import clips
from neuralcodec.metrics import METRICS, score
from neuralcodec.sweep import make, read, run

WriteSweep = Callable[..., Path]
RATE = 16000
SCORES = ["pesq_wb", "stoi", "si_sdr", "log_mel_distance", "mrstft_distance"]
GRID = """
[grid.pcm]
bits = [8]
[grid.mdct]
frame_rate = 100
codebook_size = 16
num_codebooks = 2
[grid.opus]
bitrate_kbps = 16
"""


def put(folder: Path, name: str, wav: Tensor, rate: int = RATE) -> None:
    """Write float samples whatever they are."""
    soundfile.write(folder / f"{name}.wav", wav.T.numpy(), rate, subtype="FLOAT")


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """One second of speech `[1, T]`."""
    (clip, *_) = [clip for clip in clips("starter:test") if clip.kind == "speech"]
    wav = clip.read(RATE)
    return wav[:, RATE : 2 * RATE] / wav[:, RATE : 2 * RATE].abs().max() * 0.9


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory: pytest.TempPathFactory, speech: Tensor) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "speech"
    folder.mkdir()
    put(folder, "silent", torch.zeros(1, RATE))
    put(folder, "saturated", (20 * speech).clamp(-1, 1))
    put(folder, "beyond", 3 * speech)
    with_nan = speech.clone()
    with_nan[0, 777] = torch.nan
    put(folder, "nan", with_nan)
    put(folder, "short", speech[:, 4000:4160])
    put(folder, "stereo", torch.cat([speech, 0.5 * speech]))
    put(folder, "rate_8k", audio.resample(speech, RATE, 8000), 8000)
    put(folder, "rate_96k", audio.resample(speech, RATE, 96000), 96000)
    put(folder, "cancelled", torch.cat([speech, -speech]))
    put(folder, "cut", speech)
    whole = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) - 4 * RATE // 4])
    put(folder, "._good", speech)
    put(folder, "odd", speech)
    (folder / "odd.wav").rename(folder / os.fsdecode(b"caf\xe9.wav"))
    (folder / "text.wav").write_text("This is a letter, and no audio.\n" * 40)
    (folder / os.fsdecode(b"te\xe9xt.wav")).write_text("This is another.\n" * 40)
    put(folder, "good", speech)
    return folder


@pytest.fixture(scope="module")
def swept(
    bad_folder: Path, fit_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("swept")
    base = f'audio = "{bad_folder}"\nfit_audio = "{fit_folder}"\nmetrics = {SCORES}\n'
    (folder / "bad.toml").write_text(f'name = "bad"\n[base]\n{base}{GRID}')
    return run(make(read(folder / "bad.toml")), folder / "out", workers=1).results


def rows_of(swept: pd.DataFrame, name: str, codec: str) -> dict[str, Any]:
    chosen = swept[(swept["clip"] == f"{name}.wav") & (swept["codec"] == codec)]
    (row,) = chosen.to_dict("records")
    return {str(key): value for key, value in row.items()}


CODECS = ["pcm", "mdct", "opus"]


# A sweep goes on, and says of each clip what became of it


def test_every_bad_clip_has_its_rows(swept: pd.DataFrame, bad_folder: Path) -> None:
    assert len(swept) == 14 * 3
    assert set(swept["status"]) == {"ok", "failed"}
    failed = swept[swept["status"] == "failed"]
    assert set(failed["clip"]) == {"nan.wav", "text.wav", r"te\udce9xt.wav", "cancelled.wav"}
    assert not swept["reason"].str.contains("\n").any()
    for name in SCORES:
        values = swept[name].dropna()
        assert values.between(METRICS[name].low - 0.01, METRICS[name].high).all()


@pytest.mark.parametrize("codec", CODECS)
def test_broken_files_fail_with_their_name(swept: pd.DataFrame, codec: str) -> None:
    row = rows_of(swept, "nan", codec)
    assert row["status"] == "failed"
    assert "nan.wav holds NaN or infinite samples, the first at sample 777" in row["reason"]
    row = rows_of(swept, "text", codec)
    assert row["status"] == "failed"
    assert "cannot read" in row["reason"]
    assert "text.wav as audio" in row["reason"]
    row = rows_of(swept, r"te\udce9xt", codec)
    assert r"te\udce9xt.wav as audio" in row["reason"]
    row = rows_of(swept, "cancelled", codec)
    assert "cancelled.wav: the 2 channels cancel" in row["reason"]


@pytest.mark.parametrize("codec", CODECS)
def test_rows_say_how_a_clip_was_read(swept: pd.DataFrame, codec: str) -> None:
    row = rows_of(swept, "cut", codec)
    assert row["seconds"] == pytest.approx(0.75, abs=1e-3)
    assert "ends before its header says: 1.000 s promised, 0.750 s found" in row["reason"]
    assert row["reason"].count("promised") == 1
    assert "2 channels averaged to one, 0.5 dB below" in rows_of(swept, "stereo", codec)["reason"]
    assert rows_of(swept, "good", codec)["reason"] == ""


@pytest.mark.parametrize("codec", CODECS)
def test_silence_has_no_score_of_fidelity(swept: pd.DataFrame, codec: str) -> None:
    row = rows_of(swept, "silent", codec)
    assert row["status"] == "ok"
    assert pd.isna([row[name] for name in ("pesq_wb", "stoi", "si_sdr")]).all()
    assert "si_sdr: the reference is silent" in row["reason"]
    assert row["bitrate_kbps"] > 0


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "name", ["saturated", "beyond", "stereo", "rate_8k", "rate_96k", "good", r"caf\udce9"]
)
def test_odd_audio_is_scored(swept: pd.DataFrame, codec: str, name: str) -> None:
    row = rows_of(swept, name, codec)
    assert row["status"] == "ok"
    assert row["seconds"] == pytest.approx(1.0, abs=1e-3)
    assert pd.notna([row[metric] for metric in SCORES]).all(), row["reason"]
    if codec == "pcm":
        assert row["si_sdr"] > 20
        assert row["stoi"] > 0.9


def test_ten_milliseconds(swept: pd.DataFrame) -> None:
    for codec in CODECS:
        row = rows_of(swept, "short", codec)
        assert row["status"] == "ok", row["reason"]
        assert row["seconds"] == pytest.approx(0.01)
        assert pd.isna([row["pesq_wb"], row["stoi"]]).all()
        assert "stoi: " in row["reason"]
        assert "needs" in row["reason"]
    assert rows_of(swept, "short", "pcm")["si_sdr"] > 20


def test_level_and_channels_do_not_change_what_is_scored(swept: pd.DataFrame) -> None:
    # What goes beyond +-1 is scaled, not clipped; stereo of one source is that source.
    good, beyond, stereo = (
        rows_of(swept, name, "mdct")["stoi"] for name in ("good", "beyond", "stereo")
    )
    assert beyond == pytest.approx(good, abs=0.08)
    assert stereo == pytest.approx(good, abs=0.08)


def test_empty_folder(write_sweep: WriteSweep, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no clips in .*empty; files that count end in"):
        make(read(write_sweep(GRID)), audio=tmp_path / "empty")
    with pytest.raises(ValueError, match=r"no clips in .*empty"):
        make(read(write_sweep(GRID, fit_audio=str(tmp_path / "empty"))))


def test_bad_audio_to_fit_on_fails_the_points_of_the_fit(
    write_sweep: WriteSweep, bad_folder: Path, tmp_path: Path, in_process: None
) -> None:
    folder = tmp_path / "fit"
    folder.mkdir()
    (folder / "nan.wav").write_bytes((bad_folder / "nan.wav").read_bytes())
    outcome = run(make(read(write_sweep(GRID, fit_audio=str(folder)))), tmp_path / "out")
    failed = outcome.results[outcome.results["status"] == "failed"]
    assert set(failed["codec"]) == {"mdct"}
    assert len(failed) == 3
    assert failed["reason"].str.contains("nan.wav holds NaN").all()


def test_silence_to_fit_on(write_sweep: WriteSweep, tmp_path: Path, in_process: None) -> None:
    folder = tmp_path / "fit"
    folder.mkdir()
    put(folder, "silent", torch.zeros(1, RATE))
    outcome = run(make(read(write_sweep(GRID, fit_audio=str(folder)))), tmp_path / "out")
    table = outcome.results[outcome.results["codec"] == "mdct"]
    assert (table["status"] == "ok").all()  # a codebook of zeros decodes to silence
    assert table["si_sdr"].isna().all()
    assert table["reason"].str.contains("the estimate is silent").all()


# Reading and scoring


def test_read_names_what_is_wrong(bad_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nan\.wav holds NaN or infinite samples"):
        audio.read(bad_folder / "nan.wav")
    with pytest.raises(ValueError, match=r"cannot read .*text\.wav as audio"):
        audio.read(bad_folder / "text.wav")
    with pytest.raises(FileNotFoundError, match=r"no audio file at .*nothing\.wav"):
        audio.read(tmp_path / "nothing.wav")
    with pytest.raises(IsADirectoryError, match="is a folder, not an audio file"):
        audio.read(bad_folder)
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot read .*empty\.wav as audio"):
        audio.read(tmp_path / "empty.wav")


def test_read_keeps_what_is_odd(bad_folder: Path) -> None:
    shapes = {"short": (1, 160), "stereo": (2, RATE), "rate_8k": (1, 8000), "rate_96k": (1, 96000)}
    for name, shape in shapes.items():
        wav, _ = audio.read(bad_folder / f"{name}.wav")
        assert tuple(wav.shape) == shape
    assert audio.read(bad_folder / "rate_96k.wav")[1] == 96000
    assert float(audio.read(bad_folder / "beyond.wav")[0].abs().max()) > 1.5


def test_score_of_bad_signals(speech: Tensor) -> None:
    silent = torch.zeros_like(speech)
    scores = score(silent, silent, RATE, metrics=SCORES, kind="speech")
    assert {"pesq_wb", "stoi", "si_sdr"} <= scores.reasons.keys()
    assert all("\n" not in reason for reason in scores.reasons.values())
    with pytest.raises(ValueError, match="estimate holds NaN"):
        score(speech, speech * torch.nan, RATE, metrics=SCORES)
    with pytest.raises(ValueError, match="must be of one length"):
        score(speech, speech[:, 1:], RATE, metrics=SCORES)
    with pytest.raises(ValueError, match="must be one channel"):
        score(speech.expand(2, -1), speech.expand(2, -1), RATE, metrics=SCORES)
    with pytest.raises(ValueError, match="unknown metric 'pesk_wb'; did you mean 'pesq_wb'"):
        score(speech, speech, RATE, metrics=["pesk_wb"])


def test_clipping_costs_quality(speech: Tensor) -> None:
    clipped = (20 * speech).clamp(-1, 1)
    mild = (1.3 * speech).clamp(-1, 1)
    scores = [
        score(speech, estimate, RATE, metrics=["si_sdr", "pesq_wb"]) for estimate in (mild, clipped)
    ]
    assert scores[0]["si_sdr"] > scores[1]["si_sdr"]
    assert scores[0]["pesq_wb"] > scores[1]["pesq_wb"]


@pytest.mark.parametrize("name", ["pcm", "opus", "mp3", "aac", "mdct", "mel"])
def test_codecs_refuse_what_is_no_audio(name: str) -> None:
    codec = load(name)
    encode = codec.encode_latents if isinstance(codec, LatentCodec) else codec.encode
    for wav, message in (
        (torch.full((1, 1, 800), torch.nan), "NaN or infinite"),
        (torch.zeros(1, 1, 0), "not empty"),
        (torch.zeros(1, 2, 800), r"\[B, 1, T\]"),
        (torch.zeros(1, 1, 800, dtype=torch.int16), "float"),
    ):
        with pytest.raises(ValueError, match=message):
            encode(wav)


def test_unknown_codec_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown codec 'mdtc'; did you mean 'mdct'"):
        load("mdtc")
    with pytest.raises(ValueError, match="codec 'pcm' gives no latents"):
        load("pcm+rvq")


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_out_of_range(size: int) -> None:
    cases: list[dict[str, Any]] = [{"num_codebooks": size}, {"codebook_size": size}]
    for sizes in cases:
        with pytest.raises(ValueError, match=f"must be at least 1, got {size}"):
            load("mdct+rvq", **sizes)
