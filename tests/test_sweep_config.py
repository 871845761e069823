import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from neuralcodec.core import audio
from neuralcodec.core.registry import REGISTRY, Entry
from neuralcodec.metrics import DEFAULT
from neuralcodec.sweep import Experiment, Plan, make, read

HEAD = 'name = "a"\n'
GOOD = """
name = "good-1"
question = "What for?"

[base]
metrics = ["si_sdr"]
seed = 3

[grid.mdct]
frame_rate = [25, 50.0]
codebook_size = [16, 64]
num_codebooks = [4, 1, 2]

[grid.pcm]
bits = 8
"""
SWEPT = """
[grid.mdct]
frame_rate = 100
codebook_size = [16]
num_codebooks = [1, 2]
"""


def put(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return path


def points_of(plan: Plan) -> set[str]:
    return {key.point for key in plan.keys}


# The file


def test_a_byte_order_mark_and_home_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = read(put(tmp_path, GOOD))
    assert read(put(tmp_path, "\ufeff" + GOOD)) == experiment
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("~/sweep.toml") == experiment


@pytest.mark.parametrize("key", ["audio", "fit_audio"])
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_source_is_refused(tmp_path: Path, key: str, value: str) -> None:
    path = put(tmp_path, f'{HEAD}[base]\n{key} = "{value}"\n[grid.pcm]\n')
    with pytest.raises(ValueError, match=rf"sweep\.toml: base\.{key}: must be .*, got '{value}'"):
        read(path)
    experiment = read(put(tmp_path, f"{HEAD}{SWEPT}"))
    options = {key: value}
    with pytest.raises(ValueError, match="'starter', got"):
        make(experiment, **options)


def test_good_file(tmp_path: Path) -> None:
    experiment = read(put(tmp_path, GOOD))
    assert (experiment.name, experiment.question) == ("good-1", "What for?")
    assert experiment.base.metrics == ("si_sdr",)
    assert (experiment.base.seed, experiment.base.audio) == (3, "starter:test")
    (mdct,), (pcm,) = experiment.grid["mdct"], experiment.grid["pcm"]
    assert (mdct.num_codebooks, mdct.codebook_size) == ((4, 1, 2), (16, 64))
    assert mdct.settings == {"frame_rate": (25, 50)}
    assert pcm.settings == {"bits": (8,)}


def test_base_has_defaults(tmp_path: Path) -> None:
    base = read(put(tmp_path, HEAD + "[grid.pcm]")).base
    assert (base.fit_audio, base.metrics, base.sample_rate) == ("starter:fit", DEFAULT, 16000)


def test_the_sweeps_of_the_project_are_good() -> None:
    for path in (Path(__file__).parents[1] / "experiments").glob("*.toml"):
        plan = make(read(path))
        assert len(points_of(plan)) >= 30
        assert read(path).name == path.stem


BAD = {
    "misspelled name": ('nmae = "a"\n[grid.pcm]', "unknown key 'nmae'; did you mean 'name'?"),
    "misspelled grid": (HEAD + "[gird.pcm]", "unknown key 'gird'; did you mean 'grid'?"),
    "unknown top key": (
        HEAD + 'questoin = "?"\n[grid.pcm]',
        "unknown key 'questoin'; did you mean 'question'? Known: base, grid, name, question",
    ),
    "unknown key of base": (
        HEAD + "[base]\nsead = 1\n[grid.pcm]",
        "unknown key in [base] 'sead'; did you mean 'seed'?",
    ),
    "no table": (HEAD + "base = 3\n[grid.pcm]", "base: "),
    "unknown codec": (
        HEAD + "[grid.opsu]",
        "grid: unknown codec 'opsu'; did you mean 'opus'?",
    ),
    "unknown codec with rvq": (
        HEAD + '[grid."mdtc+rvq"]',
        "unknown codec 'mdtc'; did you mean 'mdct'?",
    ),
    "codec no table": (HEAD + "[grid]\nopus = 3", "opus must be a table [grid.opus], got 3"),
    "unknown metric": (
        HEAD + '[base]\nmetrics = ["pesqwb"]\n[grid.pcm]',
        "base.metrics: unknown metric 'pesqwb'; did you mean 'pesq_wb'?",
    ),
    "no metric": (HEAD + "[base]\nmetrics = []\n[grid.pcm]", "must name metrics"),
    "metric twice": (
        HEAD + '[base]\nmetrics = ["stoi", "stoi"]\n[grid.pcm]',
        "base.metrics: must name metrics, each once, got ['stoi', 'stoi']",
    ),
    "seed": (HEAD + "[base]\nseed = -1\n[grid.pcm]", "base.seed: "),
    "rate": (HEAD + '[base]\nsample_rate = "16k"\n[grid.pcm]', "got '16k'"),
    "no grid": (HEAD, "grid: Field required"),
    "empty grid": (HEAD + "[grid]", "grid: must have a table [grid.CODEC]"),
    "empty axis": (HEAD + "[grid.pcm]\nbits = []", "pcm.bits must have values, each once, got []"),
    "twice": (
        HEAD + "[grid.mdct]\nframe_rate = [25, 50, 25.0]",
        "mdct.frame_rate must have values, each once, got [25, 50, 25.0]",
    ),
    "K 0": (HEAD + "[grid.mel]\nnum_codebooks = 0", "num_codebooks: must be at least 1, got 0"),
    "K negative": (HEAD + "[grid.mel]\nnum_codebooks = [1, -2]", "must be at least 1, got -2"),
    "K string": (HEAD + '[grid.mel]\nnum_codebooks = "8"', "valid integer, got '8'"),
    "K fraction": (HEAD + "[grid.mel]\nnum_codebooks = 1.5", "valid integer, got 1.5"),
    "K boolean": (HEAD + "[grid.mel]\nnum_codebooks = true", "valid integer, got True"),
    "V 0": (HEAD + "[grid.mel]\ncodebook_size = 0", "codebook_size: must be at least 1, got 0"),
    "V string": (HEAD + '[grid.mel]\ncodebook_size = "big"', "valid integer, got 'big'"),
    "nested": (HEAD + "[grid.mel]\nnum_codebooks = [[1, 2]]", "mel.num_codebooks must have"),
    "table": (HEAD + "[grid.mel.frame_rate]\nx = 1", "mel.frame_rate must have"),
    "date": (HEAD + "[grid.mel]\nframe_rate = 2020-01-01", "mel.frame_rate must have"),
    "name": ('name = "../x"\n[grid.pcm]', "got '../x'"),
    "name with a folder": ('name = "a/b"\n[grid.pcm]', "got 'a/b'"),
    "name of dots": ('name = ".."\n[grid.pcm]', "got '..'"),
    "name of a line": ('name = "a\\n"\n[grid.pcm]', r"got 'a\n'"),
    "no name": ('name = ""\n[grid.pcm]', "got ''"),
    "no TOML": ("name = ", "is no valid TOML"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    text, message = BAD[case]
    path = put(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said


def test_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"sweep\.toml is no valid TOML"):
        read(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no sweep file at .*nothing\.toml"):
        read(tmp_path / "nothing.toml")


# The plan: what a codec cannot have


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("[grid.opus]\nbitrate = 6", "unknown setting of codec 'opus': 'bitrate'; did you mean 'b"),
        ("[grid.mel]\nframerate = 50", "setting of codec 'mel': 'framerate'; did you mean 'frame_"),
        ("[grid.pcm]\ncodebook_size = 16", "grid.pcm.codebook_size: this codec has its own"),
        ("[grid.mel]\ncodebook_size = 1", "grid.mel.codebook_size: must be at least 2, got 1"),
        ('[grid."pcm+rvq"]', "grid.pcm+rvq: codec 'pcm' gives no latents to quantize"),
    ],
)
def test_bad_axis(write_sweep: Callable[..., Path], grid: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make(read(write_sweep(grid)))
    assert "\n" not in str(caught.value)


def test_codec_that_cannot_run_here_is_planned(
    write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry("no_such_package_of_ours", "Some", "codecs", "needs what is missing")
    monkeypatch.setitem(REGISTRY, "some", entry)
    plan = make(read(write_sweep("[grid.some]\nnum_codebooks = [1, 2]")))
    assert len(plan.keys) == 2 * 3


def test_bad_audio(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    experiment = read(write_sweep(SWEPT))
    with pytest.raises(FileNotFoundError, match="no folder or manifest at"):
        make(experiment, audio=tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no clips in"):
        make(experiment, audio=tmp_path / "empty")
    with pytest.raises(ValueError, match="unknown kind 'speach'; did you mean 'speech'"):
        make(experiment, kind="speach")


def test_clip_both_fitted_on_and_scored_is_refused(
    write_sweep: Callable[..., Path], fit_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    source = next(fit_folder.rglob("*.flac"))
    (tmp_path / "mine" / "other_name.flac").write_bytes(source.read_bytes())
    message = rf"clip other_name\.flac is also fitted on, as speech/{source.name}"
    with pytest.raises(ValueError, match=message):
        make(read(write_sweep(SWEPT)), audio=tmp_path / "mine")
    make(read(write_sweep("[grid.pcm]")), audio=tmp_path / "mine")  # fits nothing


# The plan: what is shared


def test_one_job_serves_all_depths_and_one_fit_all_clips(write_sweep: Callable[..., Path]) -> None:
    grid = """
    [grid.mdct]
    frame_rate = [50, 100]
    codebook_size = [16, 32]
    num_codebooks = [8, 1, 2]
    [grid.pcm]
    bits = [4, 8]
    """
    plan = make(read(write_sweep(grid)))
    assert len(plan.jobs) == (2 * 2 + 2) * 3  # by clip, whatever the number of depths
    assert len(plan.keys) == len(set(plan.keys)) == (2 * 2 * 3 + 2) * 3
    fits = {job.setup.fit for job in plan.jobs if job.setup.fit}
    assert len(fits) == len({fit.signature for fit in fits}) == 2 * 2
    assert {fit.num_codebooks for fit in fits} == {8}
    assert {job.setup.depths for job in plan.jobs} == {(1, 2, 8), (None,)}


def test_one_fit_serves_all_widths_of_the_beam(write_sweep: Callable[..., Path]) -> None:
    plan = make(read(write_sweep("[grid.mdct]\nbeam_width = [1, 4, 16]\nstack = [1, 2]")))
    fits = {job.setup.fit for job in plan.jobs}
    assert {fit.settings for fit in fits if fit} == {(("stack", 1),), (("stack", 2),)}
    assert len({point for job in plan.jobs for _, point in job.points}) == 6


def test_latent_codec_gets_default_sizes(write_sweep: Callable[..., Path]) -> None:
    (setup,) = {job.setup for job in make(read(write_sweep("[grid.mel]"))).jobs}
    assert (setup.depths, setup.codebook_size) == ((8,), 1024)


def test_the_smallest_codebook_has_two_entries(write_sweep: Callable[..., Path]) -> None:
    plan = make(read(write_sweep("[grid.mdct]\ncodebook_size = [2, 3]")))
    assert {job.setup.codebook_size for job in plan.jobs} == {2, 3}
    with pytest.raises(ValueError, match=r"mdct\.codebook_size: must be at least 2, got 1"):
        make(read(write_sweep("[grid.mdct]\ncodebook_size = [2, 1]")))


def test_key_order_of_the_file_does_not_matter(write_sweep: Callable[..., Path]) -> None:
    first = make(read(write_sweep("[grid.pcm]\nbits = [4, 8]\nsample_rate = [8000, 16000]")))
    second = make(read(write_sweep("[grid.pcm]\nsample_rate = [16000, 8000]\nbits = [8, 4]")))
    assert points_of(first) == points_of(second)
    assert len(points_of(first)) == 4


def test_whole_floats_are_the_same_point(write_sweep: Callable[..., Path]) -> None:
    first = make(read(write_sweep("[grid.mdct]\nframe_rate = 50")))
    assert make(read(write_sweep("[grid.mdct]\nframe_rate = 50.0"))).keys == first.keys


def test_new_values_keep_old_points(write_sweep: Callable[..., Path]) -> None:
    old = make(read(write_sweep(SWEPT)))
    grid = """
    [grid.mdct]
    frame_rate = [50, 100]
    codebook_size = [8, 16]
    num_codebooks = [1, 2, 3]
    [grid.pcm]
    """
    new = make(read(write_sweep(grid)))
    assert set(old.keys) < set(new.keys)
    left = new.without(set(old.keys))
    assert set(left.keys) == set(new.keys) - set(old.keys)
    assert old.without(set(old.keys)).jobs == ()


@pytest.mark.parametrize(
    "base", [{"seed": 1}, {"metrics": ["si_sdr"]}, {"sample_rate": 8000}, {"fit_audio": "fit"}]
)
def test_changed_base_is_another_point(
    write_sweep: Callable[..., Path],
    tmp_path: Path,
    rng: torch.Generator,
    base: dict[str, object],
) -> None:
    if "fit_audio" in base:
        (tmp_path / "fit").mkdir()
        audio.write(tmp_path / "fit" / "a.wav", torch.rand(1, 16000, generator=rng), 16000)
        base = {"fit_audio": str(tmp_path / "fit")}
    old = make(read(write_sweep(SWEPT)))
    new = make(read(write_sweep(SWEPT, **base)))
    assert not points_of(old) & points_of(new)


def test_order_of_metrics_is_the_same_point(write_sweep: Callable[..., Path]) -> None:
    old = make(read(write_sweep(SWEPT, metrics=["si_sdr", "stoi"])))
    assert make(read(write_sweep(SWEPT, metrics=["stoi", "si_sdr"]))).keys == old.keys


def test_order_of_fit_clips_is_another_fit(
    write_sweep: Callable[..., Path], fit_folder: Path, tmp_path: Path
) -> None:
    for number, path in enumerate(sorted(fit_folder.rglob("*.flac"), reverse=True)):
        (tmp_path / "turned").mkdir(exist_ok=True)
        (tmp_path / "turned" / f"{number}.flac").write_bytes(path.read_bytes())
    old = make(read(write_sweep(SWEPT)))
    new = make(read(write_sweep(SWEPT, fit_audio=str(tmp_path / "turned"))))
    assert not points_of(old) & points_of(new)  # the k-means start depends on it


def test_seed_does_not_matter_where_nothing_is_fitted(write_sweep: Callable[..., Path]) -> None:
    old = make(read(write_sweep("[grid.pcm]")))
    assert make(read(write_sweep("[grid.pcm]", seed=1))).keys == old.keys


def test_changed_content_or_kind_of_a_clip_is_another_row(
    write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    audio.write(folder / "a.wav", torch.full((1, 1600), 0.5), 16000)
    experiment = read(write_sweep("[grid.pcm]"))
    (old,) = make(experiment, audio=folder).keys
    (speech,) = make(experiment, audio=folder, kind="speech").keys  # PESQ runs on it
    audio.write(folder / "a.wav", torch.full((1, 1600), 0.4), 16000)
    (new,) = make(experiment, audio=folder).keys
    assert old.point == new.point == speech.point
    assert old.clip == new.clip == speech.clip
    assert len({old.clip_digest, new.clip_digest, speech.clip_digest}) == 3


def test_plan_is_the_same_every_time(write_sweep: Callable[..., Path]) -> None:
    experiment = read(write_sweep(SWEPT))
    assert make(experiment).keys == make(experiment).keys


def test_signature_of_a_fit_depends_on_all_that_determines_it(
    write_sweep: Callable[..., Path],
) -> None:
    fit = make(read(write_sweep(SWEPT))).jobs[0].setup.fit
    assert fit is not None
    others = [
        replace(fit, codec="mel"),
        replace(fit, settings=(("frame_rate", 25),)),
        replace(fit, codebook_size=17),
        replace(fit, num_codebooks=9),
        replace(fit, seed=1),
        replace(fit, audio_digest="0" * 16),
    ]
    assert len({fit.signature, *(other.signature for other in others)}) == 7
    assert replace(fit).signature == fit.signature
    assert re.fullmatch("[0-9a-f]{16}", fit.signature)


def test_codec_with_several_tables(write_sweep: Callable[..., Path]) -> None:
    grid = """
    [[grid.mdct]]
    codebook_size = 16
    num_codebooks = [1, 6]
    [[grid.mdct]]
    codebook_size = 64
    num_codebooks = [1, 4]
    """
    plan = make(read(write_sweep(grid)))
    setups = {job.setup for job in plan.jobs}
    assert {(setup.codebook_size, setup.depths) for setup in setups} == {
        (16, (1, 6)),
        (64, (1, 4)),
    }


def test_tables_with_a_point_in_common_are_refused(write_sweep: Callable[..., Path]) -> None:
    grid = "[[grid.pcm]]\nbits = [4, 8]\n[[grid.pcm]]\nbits = 8"
    with pytest.raises(ValueError, match=r"grid\.pcm: two of its tables have a point in common"):
        make(read(write_sweep(grid)))


def test_only_clips_of_the_kinds_asked_for_are_scored(write_sweep: Callable[..., Path]) -> None:
    plan = make(read(write_sweep("[grid.pcm]", kinds=["speech"])))
    assert [job.clip.kind for job in plan.jobs] == ["speech", "speech"]
    with pytest.raises(ValueError, match="no clip to score is of kind sound; --kind"):
        make(read(write_sweep("[grid.pcm]", kinds=["sound"])))
    with pytest.raises(ValueError, match="unknown kind 'speach'; did you mean 'speech'"):
        read(write_sweep("[grid.pcm]", kinds=["speach"]))


def test_other_audio_to_fit_on(write_sweep: Callable[..., Path], fit_folder: Path) -> None:
    experiment = read(write_sweep("[grid.mdct]", fit_audio="nowhere"))
    plan = make(experiment, fit_audio=fit_folder)
    assert plan.jobs[0].setup.fit is not None
    assert len(plan.jobs[0].setup.fit.audio) == 2


def test_timing_is_an_axis_of_requantized_codecs_alone(write_sweep: Callable[..., Path]) -> None:
    plan = make(read(write_sweep('[grid."mdct+rvq"]\nstack = [1, 2]')))
    assert len({job.setup for job in plan.jobs}) == 2
    with pytest.raises(ValueError, match="unknown setting of codec 'pcm': 'stack'"):
        make(read(write_sweep("[grid.pcm]\nstack = 2")))


def test_label_names_the_points_of_a_table(write_sweep: Callable[..., Path]) -> None:
    plan = make(read(write_sweep('[[grid.pcm]]\nbits = 4\nlabel = "coarse"\n[[grid.pcm]]')))
    assert list(plan.labels.values()) == ["coarse", "pcm"]
    assert {key.point for key in plan.keys} == plan.labels.keys()
    with pytest.raises(ValueError, match=r"pcm\.label must be a text that is not empty, got 3"):
        read(write_sweep("[grid.pcm]\nlabel = 3"))


def test_points_do_not_collide(tmp_path: Path) -> None:
    """With 32 bits, 19 of 320,000 points had the signature of another."""
    experiment = Experiment.model_validate(
        {
            "name": "large",
            "base": {"audio": "starter:test"},
            "grid": {"pcm": {"sample_rate": list(range(8000, 28000)), "bits": [4, 8]}},
        }
    )
    plan = make(experiment)
    assert len(plan.labels) == 40_000  # about 0.2 collisions of 32 bits among them
    assert {len(point) for point in plan.labels} == {16}
