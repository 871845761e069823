import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import neuralcodec
from neuralcodec.cli.settings import codec_names
from neuralcodec.core import audio
from neuralcodec.core.registry import REGISTRY, Entry
from neuralcodec.metrics import DEFAULT
from neuralcodec.wrappers.classical.pcm import Pcm

Cli = Callable[..., Any]
WriteSweep = Callable[..., Path]
GRID = "[grid.pcm]\nbits = [4, 8]"


def tone(seconds: float, rate: int) -> torch.Tensor:
    return 0.5 * torch.sin(torch.arange(int(seconds * rate)) * (2000 / rate))


def error_line(said: Any) -> str:
    """Give the one line of a command that failed."""
    assert said.status == 1
    assert said.err.startswith("neuralcodec: ")
    assert said.err.count("\n") == 1
    return str(said.err)


# list


def test_list_has_every_codec(cli: Cli) -> None:
    said = cli("list")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(REGISTRY) + 1]] == list(REGISTRY)
    (mdct,) = [line for line in lines if line.startswith("mdct ")]
    assert mdct.split() == ["mdct", "16", "50", "any", "any", "any", "yes"]
    (dac,) = [line for line in lines if line.startswith("dac_44khz ")]
    assert dac.split()[1:] == ["44.1", "86.13", "1..9", "1024", "0.861..7.752", "no"]
    (vocos,) = [line for line in lines if line.startswith("vocos_encodec_24khz ")]
    assert "  2 4 8 16  " in vocos  # not all numbers between them
    assert max(map(len, lines)) <= 80
    rows = pd.read_csv(io.StringIO(cli("list", "--csv").out)).set_index("codec")
    assert list(rows.index) == list(REGISTRY)
    assert rows.loc["dac_44khz", "reason"] == "neuralcodec weights fetch dac_44khz"
    assert rows.loc["mdct", "settings"] == "frame_rate, sample_rate"
    assert "frame_rate, sample_rate" in cli("list", "--long").out


def test_help_is_fast_since_it_imports_no_torch(cli: Cli) -> None:
    code = "import sys; from neuralcodec.__main__ import app; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
    assert cli("--version").out == f"neuralcodec {neuralcodec.__version__}\n"
    assert cli("-h").out == cli("--help").out
    assert "--install-completion" in cli("--help").out


def test_codec_names_are_completed() -> None:
    assert codec_names("encodec_") == ["encodec_24khz", "encodec_48khz"]
    assert set(codec_names("")) >= set(REGISTRY)
    code = "from neuralcodec.cli.settings import codec_names as n; n(''); import sys; "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_list_says_why_a_codec_cannot_run(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("no_such_package_of_ours", "Some", "codecs", "needs what is missing")
    monkeypatch.setitem(REGISTRY, "some", entry)
    said = cli("list", "--long")
    assert said.status == 0
    (line,) = [line for line in said.out.splitlines() if line.startswith("some ")]
    assert "codec 'some' needs 'no_such_package_of_ours': pip install" in line
    assert "Traceback" not in said.out + said.err


# sweep


def test_dry_run_makes_nothing(cli: Cli, write_sweep: WriteSweep, tmp_path: Path) -> None:
    said = cli("sweep", write_sweep(GRID), "--dry-run", "--out", tmp_path / "out")
    assert said == (0, "tiny: 2 points on 3 clips, 6 rows\n", "")
    assert not (tmp_path / "out").exists()


def test_sweep_writes_results_and_plots(
    cli: Cli, write_sweep: WriteSweep, tmp_path: Path, in_process: None
) -> None:
    out = tmp_path / "out"
    said = cli("sweep", write_sweep(GRID), "--out", out)
    assert (said.status, said.err) == (0, "")
    assert f"6 rows made, 0 kept from before: {out / 'results.csv'}" in said.out
    assert f"4 plots: {out / 'plots'}" in said.out
    assert {path.name for path in out.iterdir()} == {"cache", "plots", "results.csv", "rows.sqlite"}
    assert len(list((out / "plots").iterdir())) == 4
    assert "0 rows made, 6 kept from before" in cli("sweep", write_sweep(GRID), "--out", out).out


def test_results_lie_under_the_name_of_the_sweep(
    cli: Cli,
    write_sweep: WriteSweep,
    tmp_path: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("sweep", write_sweep("[grid.pcm]", name="mine")).status == 0
    assert (tmp_path / "results" / "mine" / "results.csv").is_file()


def test_home_is_expanded(
    cli: Cli, write_sweep: WriteSweep, tmp_path: Path, in_process: None, monkeypatch: Any
) -> None:
    file = write_sweep("[grid.pcm]")
    monkeypatch.setenv("HOME", str(tmp_path))  # which no shell expands in --out=~/mine
    assert cli("sweep", f"~/{file.name}", "--out=~/mine").status == 0
    assert (tmp_path / "mine" / "results.csv").is_file()
    assert cli("plot", "~/mine").status == 0


def test_audio_of_the_users_own(
    cli: Cli, write_sweep: WriteSweep, tmp_path: Path, in_process: None
) -> None:
    (tmp_path / "mine").mkdir()
    audio.write(tmp_path / "mine" / "a.wav", tone(1.0, 16000), 16000)
    file = write_sweep("[grid.pcm]", metrics=["stoi", "si_sdr"])
    options = ("--audio", tmp_path / "mine", "--out", tmp_path / "out")
    said = cli("sweep", file, *options)
    assert said.status == 0
    assert "1 clips are of unknown kind, so metrics made for speech leave them out" in said.out
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    assert table["clip"].tolist() == ["a.wav"]
    assert table["kind"].tolist() == ["unknown"]
    assert table["stoi"].isna().all()
    assert table["reason"].str.startswith("stoi: defined for speech only").all()

    said = cli("sweep", file, *options, "--kind", "speech")  # scored anew: a kind is no detail
    assert "1 rows made, 0 kept" in said.out
    assert "unknown kind" not in said.out
    assert pd.read_csv(tmp_path / "out" / "results.csv")["stoi"].notna().all()


def test_failed_rows_are_told_last_with_exit_status_1(
    cli: Cli,
    write_sweep: WriteSweep,
    tmp_path: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, out = write_sweep("[grid.pcm]\nbits = [4, 99]"), tmp_path / "out"
    said = cli("sweep", file, "--out", out)
    assert said.status == 1
    assert said.out.splitlines()[-2:] == [
        "3 failed: bits must be 1..16, got 99",
        "3 of 6 rows failed; --retry runs them again",
    ]
    assert (out / "plots" / "quality_bitrate.png").is_file()
    assert "0 rows made, 6 kept" in cli("sweep", file, "--out", out).out
    assert "3 rows made, 3 kept" in cli("sweep", file, "--out", out, "--retry").out


def test_sweep_in_which_all_fails(
    cli: Cli, write_sweep: WriteSweep, tmp_path: Path, in_process: None
) -> None:
    said = cli("sweep", write_sweep("[grid.pcm]\nbits = 99"), "--out", tmp_path / "out")
    assert said.status == 1
    assert "no row has a score, so there is no plot" in said.out
    assert said.out.endswith("3 of 3 rows failed; --retry runs them again\n")


def test_sweep_names_what_cannot_run_with_the_cure_and_runs_the_rest(
    cli: Cli, write_sweep: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURALCODEC_OFFLINE", "1")
    monkeypatch.setenv("NEURALCODEC_CACHE", str(tmp_path / "cache"))
    path = write_sweep("[grid.lyra_v2]\nnum_codebooks = [4, 8]\n[grid.pcm]")
    said = cli("sweep", path, "--out", tmp_path / "out", "--workers", 1)
    (line,) = [line for line in said.out.splitlines() if line.startswith("lyra_v2 can't run here")]
    assert "soundstream_encoder.tflite" in line
    assert f"put it at {tmp_path / 'cache'}" in line
    assert said.status == 1
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    assert rows.groupby("codec")["status"].unique().map(list).to_dict() == {
        "lyra_v2": ["failed"],
        "pcm": ["ok"],
    }


@pytest.mark.parametrize("written", ["results.csv", "plots"])
def test_full_disk_is_one_line(
    cli: Cli,
    write_sweep: WriteSweep,
    tmp_path: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file, out = write_sweep("[grid.pcm]"), tmp_path / "out"
    with monkeypatch.context() as patch:
        if written == "plots":
            patch.setattr(Figure, "savefig", full)
        else:
            patch.setattr(Path, "write_bytes", full)
        line = error_line(cli("sweep", file, "--out", out))
    assert "No space left on device" in line
    assert "0 rows made, 3 kept" in cli("sweep", file, "--out", out).out


def test_ctrl_c_is_one_line(
    cli: Cli,
    write_sweep: WriteSweep,
    tmp_path: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("neuralcodec.cli.sweeps._draw", interrupted)
    said = cli("sweep", write_sweep("[grid.pcm]"), "--out", tmp_path / "out")
    assert said.status == 130
    assert said.err == "neuralcodec: stopped; finished rows are kept, run it again to go on\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--audio", "no_such_folder"], "no folder or manifest at no_such_folder"),
        (["--kind", "speach"], "unknown kind 'speach'; did you mean 'speech'?"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
    ],
)
def test_bad_option_is_one_line(
    cli: Cli, write_sweep: WriteSweep, tmp_path: Path, options: list[str], message: str
) -> None:
    said = cli("sweep", write_sweep("[grid.pcm]"), "--out", tmp_path / "out", *options)
    assert message in error_line(said)


def test_bad_file_is_one_line(cli: Cli, write_sweep: WriteSweep, tmp_path: Path) -> None:
    assert "no sweep file at" in error_line(cli("sweep", tmp_path / "nothing.toml"))
    assert "did you mean 'opus'?" in error_line(cli("sweep", write_sweep("[grid.opsu]")))
    assert "did you mean 'bits'?" in error_line(cli("sweep", write_sweep("[grid.pcm]\nbit = 1")))


def test_out_that_is_a_file_is_one_line(
    cli: Cli, write_sweep: WriteSweep, tmp_path: Path, in_process: None
) -> None:
    (tmp_path / "out").write_text("mine")
    said = cli("sweep", write_sweep("[grid.pcm]"), "--out", tmp_path / "out")
    assert "out" in error_line(said)
    assert (tmp_path / "out").read_text() == "mine"


# plot


def test_plot_draws_from_the_csv_alone(
    cli: Cli, write_sweep: WriteSweep, tmp_path: Path, in_process: None
) -> None:
    cli("sweep", write_sweep(GRID), "--out", tmp_path / "out")
    (tmp_path / "copy").mkdir()
    table = (tmp_path / "out" / "results.csv").read_bytes()
    (tmp_path / "copy" / "results.csv").write_bytes(table)
    said = cli("plot", tmp_path / "copy")
    assert said == (0, f"4 plots: {tmp_path / 'copy' / 'plots'}\n", "")
    for path in (tmp_path / "out" / "plots").iterdir():
        assert path.read_bytes() == (tmp_path / "copy" / "plots" / path.name).read_bytes()


def test_plot_without_rows_is_one_line(cli: Cli, tmp_path: Path) -> None:
    assert "no results at" in error_line(cli("plot", tmp_path))
    (tmp_path / "results.csv").write_text("")
    assert error_line(cli("plot", tmp_path))
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    assert "these are no rows of a sweep: they lack codec" in error_line(cli("plot", tmp_path))


# metrics


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    wav = tone(1.0, 16000)
    audio.write(tmp_path / "reference.wav", wav, 16000)
    audio.write(
        tmp_path / "estimate.wav", Pcm(bits=6).decode(Pcm(6).encode(wav[None, None]))[0], 16000
    )
    return tmp_path / "reference.wav", tmp_path / "estimate.wav"


def values_of(out: str) -> dict[str, float]:
    return {line.split()[0]: float(line.split()[1]) for line in out.splitlines()[1:]}


def test_metrics_of_two_files(cli: Cli, pair: tuple[Path, Path]) -> None:
    said = cli("metrics", *pair, "--kind", "music")
    assert (said.status, said.err) == (0, "")
    assert said.out.split("\n")[0].split() == "metric value unit better range note".split()
    values = values_of(said.out)
    assert [*values] == [*DEFAULT]
    assert 20 < values["si_sdr"] < 45
    assert "defined for speech only, the clip is music" in said.out


def test_metrics_asked_for_by_name(cli: Cli, pair: tuple[Path, Path]) -> None:
    said = cli("metrics", *pair, "--metric", "si_sdr", "--metric", "log_mel_distance")
    assert [*values_of(said.out)] == ["si_sdr", "log_mel_distance"]
    same = cli("metrics", pair[0], pair[0], "--metric", "si_sdr", "--metric", "log_mel_distance")
    assert values_of(same.out) == {"si_sdr": float("inf"), "log_mel_distance": 0.0}


def test_metrics_make_sample_rates_equal(cli: Cli, pair: tuple[Path, Path], tmp_path: Path) -> None:
    wav, rate = audio.read(pair[1])
    alone = values_of(cli("metrics", *pair, "--metric", "si_sdr").out)["si_sdr"]
    for other, length in ((44100, 15999), (8000, 15999), (44100, 16000)):
        cut = wav[:, :length]
        audio.write(tmp_path / "cut.wav", audio.read(pair[0])[0][:, :length], rate)
        audio.write(tmp_path / "other.wav", audio.resample(cut, rate, other).clamp(-1, 1), other)
        said = cli("metrics", tmp_path / "cut.wav", tmp_path / "other.wav", "--metric", "si_sdr")
        assert said.status == 0, said.err
        assert said.err.endswith(f"other.wav resampled from {other} to 16000 Hz\n")
        if other > rate:
            assert values_of(said.out)["si_sdr"] == pytest.approx(alone, abs=1.0)


def test_metrics_of_stereo_are_of_its_mean(
    cli: Cli, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    wav, rate = audio.read(pair[1])
    audio.write(tmp_path / "stereo.wav", wav.expand(2, -1), rate)
    said = cli("metrics", pair[0], tmp_path / "stereo.wav", "--metric", "si_sdr")
    assert values_of(said.out) == values_of(cli("metrics", *pair, "--metric", "si_sdr").out)


def test_metrics_errors_are_one_line(cli: Cli, pair: tuple[Path, Path], tmp_path: Path) -> None:
    audio.write(tmp_path / "short.wav", tone(0.5, 16000), 16000)
    (tmp_path / "text.wav").write_text("no audio at all")
    first, second = pair
    line = error_line(cli("metrics", first, tmp_path / "short.wav"))
    assert "must be of one length, got 16000 and 8000 samples" in line
    line = error_line(cli("metrics", first, tmp_path / "text.wav"))
    assert "text.wav as audio" in line
    assert "no audio file at" in error_line(cli("metrics", first, tmp_path / "nothing.wav"))
    line = error_line(cli("metrics", first, second, "--metric", "pesq"))
    assert "unknown metric 'pesq'; did you mean 'pesq_" in line
    line = error_line(cli("metrics", first, second, "--kind", "speach"))
    assert "unknown kind 'speach'; did you mean 'speech'?" in line


# The program


def test_program_as_installed_has_no_traceback() -> None:
    command = [sys.executable, "-m", "neuralcodec"]
    bad = subprocess.run(
        [*command, "sweep", "nothing.toml"], capture_output=True, text=True, check=False
    )
    assert bad.returncode == 1
    assert bad.stdout == ""
    assert bad.stderr == "neuralcodec: no sweep file at nothing.toml\n"


def test_wrong_usage(cli: Cli) -> None:
    for arguments in (["sweeep"], ["sweep"], ["plot", "a", "b"], ["list", "--bogus"]):
        said = cli(*arguments)
        assert said.status == 2
        assert "Traceback" not in said.err
    assert "list" in cli("--help").out


def test_a_table_that_no_sweep_wrote_is_not_replaced(
    cli: Cli, write_sweep: WriteSweep, tmp_path: Path, in_process: None
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    foreign = out / "results.csv"
    foreign.write_text("my,own\n1,2\n")
    said = cli("sweep", write_sweep(GRID), "--out", out)
    assert "results.csv exists already; --force replaces it" in error_line(said)
    assert foreign.read_text() == "my,own\n1,2\n"
    assert cli("sweep", write_sweep(GRID), "--out", out, "--force").status == 0
    assert foreign.read_text().startswith("codec,")
    assert cli("sweep", write_sweep(GRID), "--out", out).status == 0  # its own


def test_a_depth_that_is_not_there_names_all_that_are(
    cli: Cli, write_sweep: WriteSweep, tmp_path: Path, in_process: None
) -> None:
    grid = "[grid.tiny_25hz]\nnum_codebooks = [2, 9]"
    out = tmp_path / "out"
    assert cli("sweep", write_sweep(grid), "--out", out).status == 1
    rows = pd.read_csv(out / "results.csv")
    assert set(rows[rows["status"] == "failed"]["reason"]) == {"num_codebooks must be 1..8, got 9"}
    assert set(rows[rows["status"] == "ok"]["num_codebooks"]) == {2}
