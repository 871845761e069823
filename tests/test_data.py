import csv
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

from neuralcodec.core import audio
from neuralcodec.core.audio import KINDS, AudioWarning
from neuralcodec.data import STARTER, Clip, clips, starter_credits

SHARED_EVAL = Path(__file__).parents[2] / "shared" / "audio" / "eval"
RATE = 8_000


def put(path: Path, *, peak: float = 0.5, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, torch.full((channels, 100), peak), RATE)
    return path


def put_manifest(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    return folder


def rows_of(name: str) -> list[dict[str, str]]:
    with (STARTER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def decibels(power: float) -> float:
    return float(10 * torch.tensor(power, dtype=torch.float64).log10())


# The starter set


def test_starter_is_its_two_splits() -> None:
    fit, test, both = clips("starter:fit"), clips("starter:test"), clips("starter")
    assert {clip.name for clip in fit} | {clip.name for clip in test} == {c.name for c in both}
    assert len(fit) + len(test) == len(both) == len({clip.digest() for clip in both})
    assert all(clip.name.startswith("fit/") for clip in fit)


def test_starter_holds_the_files_of_its_manifest_and_is_small() -> None:
    files = [path for path in STARTER.rglob("*") if path.is_file()]
    flacs = {path.relative_to(STARTER).as_posix() for path in files if path.suffix == ".flac"}
    assert flacs == {clip.name for clip in clips("starter")}
    assert {path.name for path in files if path.suffix != ".flac"} == {
        "manifest.csv",
        "CREDITS.csv",
    }
    assert sum(path.stat().st_size for path in files) < 8_000_000


def test_starter_test_split_has_twelve_clips_of_four_to_eight_seconds() -> None:
    test = clips("starter:test")
    kinds = [clip.kind for clip in test]
    assert [kinds.count(kind) for kind in KINDS] == [5, 4, 3, 0]
    for clip in test:
        assert clip.read().shape[1] == round(clip.duration * clip.sample_rate)
        assert 4 <= clip.duration <= 8, clip.name


def test_starter_fit_split_has_three_to_four_minutes() -> None:
    seconds = dict.fromkeys(KINDS, 0.0)
    for clip in clips("starter:fit"):
        seconds[clip.kind] += clip.duration
    assert 180 <= sum(seconds.values()) <= 240
    assert 110 <= seconds["speech"] <= 150
    assert seconds["music"] >= 50


def test_starter_manifest_tells_the_truth() -> None:
    for row in rows_of("manifest.csv"):
        info = soundfile.info(STARTER / row["file"])
        assert (info.format, info.subtype, info.channels) == ("FLAC", "PCM_16", 1)
        assert info.samplerate == int(row["sample_rate"])
        assert info.duration == pytest.approx(float(row["seconds"]), abs=5e-4)
        assert info.samplerate == (16_000 if row["kind"] == "speech" else 44_100)
        assert row["file"].startswith(f"{row['split']}/{row['kind']}_")


def test_starter_levels_are_sensible() -> None:
    for clip in clips("starter"):
        wav, rate = clip.read(), clip.sample_rate
        power = wav.double().square()
        assert -30 < decibels(float(power.mean())) < -10, clip.name
        full = (wav[0].abs() >= 1 - 2**-15).int()
        assert int((full[:-2] + full[1:-1] + full[2:]).max()) < 3, f"{clip.name} is clipped"
        if clip.name.startswith("test/"):
            assert float(wav.abs().max()) < 0.95, clip.name
            halves = power[0, : power.shape[1] // (rate // 2) * (rate // 2)].reshape(-1, rate // 2)
            loud = sum(decibels(float(half.mean()) + 1e-12) > -50 for half in halves)
            assert loud >= 0.9 * len(halves), f"{clip.name} is mostly silent"


def test_starter_speech_of_the_test_split_has_transcripts() -> None:
    for clip in clips("starter:test"):
        assert bool(clip.transcript) == bool(clip.speaker) == (clip.kind == "speech")
        if clip.transcript:
            words_per_second = len(clip.transcript.split()) / clip.duration
            assert 2 < words_per_second < 4, clip.name


def test_starter_splits_share_no_speaker_recording_or_author() -> None:
    def of(split: str) -> tuple[set[str], ...]:
        found = [credit for credit in starter_credits() if credit.file.startswith(f"{split}/")]
        return (
            {clip.speaker for clip in clips(f"starter:{split}")} - {""},
            {credit.source for credit in found},
            {credit.author for credit in found},
            {credit.origin for credit in found},
        )

    for in_fit, in_test in zip(of("fit"), of("test"), strict=True):
        assert in_fit
        assert in_test
        assert not in_fit & in_test


def test_every_starter_clip_is_credited_and_free() -> None:
    found = starter_credits()
    assert {credit.file for credit in found} == {clip.name for clip in clips("starter")}
    assert len({credit.source for credit in found}) == len(found)
    for credit in found:
        assert credit.author
        assert credit.changes
        assert re.fullmatch(
            r"(asterisk-core-sounds-(en|fr|it)-g722|sonic-pi-samples): usr/share/\S+", credit.source
        )
        licence = credit.licence.split(" https://creativecommons.org/")[0]
        if credit.source.startswith("sonic-pi"):
            assert licence == "CC0 1.0"
            assert credit.origin.startswith("https://freesound.org/people/")
        else:
            assert licence == {"Carlo Flora": "CC BY 3.0"}.get(credit.author, "CC BY-SA 3.0")
            assert credit.origin.startswith("Copyright ")
            assert credit.author in credit.origin
    used = " ".join(credit.source for credit in found)
    for unfree in ("loop_amen", "guit_em9", "loop_tabla", "vinyl_hiss"):
        assert unfree not in used


def test_starter_names_its_splits() -> None:
    with pytest.raises(ValueError, match=r"unknown starter split 'tset'; did you mean 'test'"):
        clips("starter:tset")


# Folders


def test_folder_is_searched_and_sorted_by_name(tmp_path: Path) -> None:
    for name in ("b.wav", "A/z.FLAC", "A/speech/deep/c.wav", "Music/d.wav", "a.wav"):
        put(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no clip")
    (tmp_path / "folder.wav").mkdir()
    found = clips(tmp_path)
    assert [(clip.name, clip.kind) for clip in found] == [
        ("A/speech/deep/c.wav", "speech"),
        ("A/z.FLAC", "unknown"),
        ("Music/d.wav", "music"),
        ("a.wav", "unknown"),
        ("b.wav", "unknown"),
    ]
    assert all(clip.path == tmp_path / clip.name for clip in found)
    assert found == clips(str(tmp_path))


def test_kind_comes_from_the_nearest_folder_below_or_at_the_source(tmp_path: Path) -> None:
    put(tmp_path / "speech" / "music" / "a.wav")
    put(tmp_path / "speech" / "b.wav")
    assert [clip.kind for clip in clips(tmp_path)] == ["speech", "music"]
    assert [clip.kind for clip in clips(tmp_path / "speech")] == ["speech", "music"]
    put(tmp_path / "music" / "set" / "c.wav")  # above the source a name says nothing
    assert [clip.kind for clip in clips(tmp_path / "music" / "set")] == ["unknown"]


def test_kind_argument_fills_in_unknown_kinds_alone(tmp_path: Path) -> None:
    put(tmp_path / "a.wav")
    put(tmp_path / "music" / "b.wav")
    assert [clip.kind for clip in clips(tmp_path, kind="sound")] == ["sound", "music"]
    with pytest.raises(ValueError, match="unknown kind 'speach'; did you mean 'speech'"):
        clips(tmp_path, kind="speach")


def test_listing_opens_no_audio_and_reading_names_the_bad_file(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio at all")
    (clip,) = clips(tmp_path)
    with pytest.raises(ValueError, match=r"cannot read .*text\.wav as audio"):
        clip.read()


def test_hidden_files_and_folders_are_no_clips(tmp_path: Path) -> None:
    folder = tmp_path / ".set"  # above the source a name says nothing
    for name in ("a.wav", "b/c.wav"):
        put(folder / name)
    for name in ("._a.wav", ".b.wav", ".git/d.wav", "b/.cache/e.wav", "__MACOSX/b/._c.wav"):
        put(folder / name)
    assert [clip.name for clip in clips(folder)] == ["a.wav", "b/c.wav"]
    with pytest.raises(ValueError, match=r"no clips in .*not hidden"):
        clips(folder / "__MACOSX")


def test_links_to_nothing_are_named(tmp_path: Path) -> None:
    put(tmp_path / "set" / "a.wav")
    (tmp_path / "set" / "b.wav").symlink_to(put(tmp_path / "other.wav"))
    (tmp_path / "set" / "notes.txt").symlink_to(tmp_path / "gone.txt")
    assert [clip.name for clip in clips(tmp_path / "set")] == ["a.wav", "b.wav"]
    (tmp_path / "set" / "sub").mkdir()
    (tmp_path / "set" / "sub" / "c.wav").symlink_to(tmp_path / "gone.wav")
    with pytest.raises(FileNotFoundError, match=r"sub/c\.wav is a link to a file that does not"):
        clips(tmp_path / "set")
    (tmp_path / "set" / "manifest.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(FileNotFoundError, match=r"manifest\.csv"):
        clips(tmp_path / "set")


def test_folders_that_cannot_be_listed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.wav")
    put(tmp_path / "locked" / "b.wav")
    listed = os.scandir

    def fail(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", fail)  # the tests may run as root, whom no mode stops
    with pytest.raises(PermissionError, match=r"cannot list .*locked: Permission denied"):
        clips(tmp_path)


@pytest.mark.parametrize("source", ["", "  ", "\n"])
def test_an_empty_source_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    put(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)  # which an empty path would be
    with pytest.raises(ValueError, match=f"'starter', got {source!r}".replace("\\", r"\\")):
        clips(source)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "set" / "a.wav")
    put(tmp_path / "~odd" / "b.wav")
    assert clips("~/set") == clips(Path("~/set")) == clips(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    assert [clip.name for clip in clips("~odd")] == ["b.wav"]  # no user's home
    put_manifest(tmp_path / "list", "file\n~/set/a.wav\n")
    assert clips("~/list/manifest.csv")[0].path == tmp_path / "set" / "a.wav"


def test_names_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    for name in (b"caf\xe9.wav", b"caf\xe8.wav", "café.wav".encode()):
        put(tmp_path / os.fsdecode(name))
    found = clips(tmp_path)
    assert {clip.name for clip in found} == {r"caf\udce9.wav", r"caf\udce8.wav", "café.wav"}
    assert all(clip.read().shape == (1, 100) for clip in found)
    put(tmp_path / r"caf\udce9.wav")
    with pytest.raises(ValueError, match=r"two files that are written 'caf\\\\udce9\.wav'"):
        clips(tmp_path)


def test_sources_without_clips_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone; 'starter' is"):
        clips(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"no clips in .*\.flac"):
        clips(tmp_path)
    with pytest.raises(ValueError, match=r"a\.wav is no folder and no \.csv manifest"):
        clips(put(tmp_path / "a.wav"))


# Manifests


def test_folder_is_read_through_its_manifest(tmp_path: Path) -> None:
    for name in ("b.wav", "sub/a.wav", "unlisted.wav"):
        put(tmp_path / name)
    put_manifest(
        tmp_path,
        "\ufeffspeaker,file,extra,kind,transcript\n"
        'Ann,sub/a.wav,7,speech,"Well, yes."\n'
        ",./b.wav,,,\n",
    )
    expected = [
        Clip("sub/a.wav", tmp_path / "sub/a.wav", "speech", "Well, yes.", "Ann"),
        Clip("b.wav", tmp_path / "b.wav", "unknown", "", ""),
    ]
    assert clips(tmp_path) == clips(tmp_path / "manifest.csv") == expected
    assert [clip.kind for clip in clips(tmp_path, kind="music")] == ["speech", "music"]


@pytest.mark.parametrize(
    "text",
    [
        'file, kind, transcript, speaker\na.wav, music, "Well, yes.", Ann\n',
        'FILE,Kind,TRANSCRIPT,Speaker\r\na.wav,music,"Well, yes.",Ann\r\n',
        '\ufeff file , kind ,transcript , speaker,,\n a.wav , music , "Well, yes.", Ann ,,\n\n',
    ],
)
def test_blanks_and_case_in_a_manifest_do_not_matter(tmp_path: Path, text: str) -> None:
    put(tmp_path / "a.wav")
    (clip,) = clips(put_manifest(tmp_path, text))
    assert clip == Clip("a.wav", tmp_path / "a.wav", "music", "Well, yes.", "Ann")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("file,kind,Kind \na.wav,music,speech\n", ValueError, "has two columns named 'kind'"),
        ("file,x,y,x,y\na.wav,,,,\n", ValueError, "has two columns named 'x', 'y'"),
        ("name,kind\na.wav,music\n", ValueError, "needs a header with the column 'file', found na"),
        ("", ValueError, "column 'file', found nothing"),
        ("file\n", ValueError, "no clips in"),
        ("file\na.wav\ngone.wav\n", FileNotFoundError, r"row 2: no file 'gone\.wav'"),
        ("file,kind\n,music\n", FileNotFoundError, "row 1: no file ''"),
        ("file\na.wav\n./a.wav\n", ValueError, r"row 2: '\./a\.wav' stands there twice"),
        ("file,kind\na.wav,musik\n", ValueError, r"row 1: 'musik'; did you mean 'music'"),
        ("file,kind\na.wav\n", ValueError, "row 1: not as many fields"),
        ("file\na.wav,music\n", ValueError, "row 1: not as many fields"),
        ('file\n"a.wav\n', ValueError, "as CSV in UTF-8"),
    ],
)
def test_bad_manifests_are_refused(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    put(tmp_path / "a.wav")
    with pytest.raises(error, match=message):
        clips(put_manifest(tmp_path, text))


@pytest.mark.parametrize("name", ["./a.wav", "../{folder}/a.wav", "link.wav", "{path}"])
def test_a_file_under_two_names_is_refused(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / "a.wav")
    (tmp_path / "link.wav").symlink_to(path)
    name = name.format(folder=tmp_path.name, path=path)
    with pytest.raises(ValueError, match=rf"row 2: '{re.escape(name)}' stands there twice"):
        clips(put_manifest(tmp_path, f"file\na.wav\n{name}\n"))


def test_manifest_in_another_encoding_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.wav")
    (tmp_path / "manifest.csv").write_bytes("file,speaker\na.wav,Jérôme\n".encode("latin-1"))
    with pytest.raises(ValueError, match="as CSV in UTF-8"):
        clips(tmp_path)


def test_the_shared_evaluation_set_loads() -> None:
    if not SHARED_EVAL.is_dir():
        pytest.skip(f"no evaluation set at {SHARED_EVAL}")
    found = clips(SHARED_EVAL)
    kinds = [clip.kind for clip in found]
    assert [kinds.count(kind) for kind in KINDS] == [13, 8, 4, 0]
    assert sum(clip.transcript != "" for clip in found) == 11
    for clip in found:
        wav = clip.read(16_000, channels=1)
        assert wav.shape == (1, pytest.approx(16_000 * clip.duration, abs=1))
        assert float(wav.abs().max()) <= 1


# One clip


def noise(channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return ((torch.rand(channels, 400, generator=generator) - 0.5) * 32768).round() / 32768


def put_wav(path: Path, wav: Tensor) -> Clip:
    audio.write(path, wav, RATE)
    return Clip(path.name, path)


@pytest.mark.parametrize("channels", [2, 6])
def test_read_averages_the_channels_and_says_so_once(tmp_path: Path, channels: int) -> None:
    wav = noise(channels)
    clip = put_wav(tmp_path / "a.wav", wav)
    with pytest.warns(
        AudioWarning, match=rf"a\.wav: {channels} channels averaged to one, \d"
    ) as said:
        mono = clip.read()
    assert len(said) == 1
    torch.testing.assert_close(mono, wav.mean(0, keepdim=True))
    assert torch.equal(clip.read(), mono)  # a warning would be an error
    other = put_wav(tmp_path / "b.wav", wav)
    assert torch.equal(other.read(channels=1), mono)  # asked for
    with pytest.warns(AudioWarning, match=r"b\.wav"):
        other.read()


def test_equal_channels_lose_nothing(tmp_path: Path) -> None:
    wav = noise(1)
    assert torch.equal(put_wav(tmp_path / "a.wav", wav.repeat(2, 1)).read(), wav)


@pytest.mark.parametrize("pairs", [1, 3])
@pytest.mark.parametrize("channels", [None, 1])
def test_channels_that_cancel_are_refused(tmp_path: Path, pairs: int, channels: int | None) -> None:
    wav = noise(1)
    clip = put_wav(tmp_path / "a.wav", torch.cat([wav, -wav]).repeat(pairs, 1))
    with pytest.raises(ValueError, match=rf"a\.wav: the {2 * pairs} channels cancel"):
        clip.read(16_000, channels=channels)
    assert clip.read(channels="keep").shape == (2 * pairs, 400)


def test_read_gives_the_channels_that_are_wanted(tmp_path: Path) -> None:
    wav = noise(6)
    one, six = put_wav(tmp_path / "1.wav", wav[:1]), put_wav(tmp_path / "6.wav", wav)
    assert torch.equal(six.read(channels="keep"), wav)
    assert torch.equal(six.read(channels=6), wav)
    assert torch.equal(one.read(channels=6), wav[:1].repeat(6, 1))
    assert torch.equal(one.read(channels="keep"), wav[:1])
    with pytest.raises(ValueError, match=r"6\.wav has 6 channels, which cannot become 2"):
        six.read(channels=2)
    for bad in (0, -1, 1.0, True, "mix"):
        with pytest.raises(ValueError, match=f"channels must be None, 'keep' or .* got {bad!r}"):
            one.read(channels=bad)  # type: ignore[arg-type]  # which the check is for


def test_a_clip_knows_its_header(tmp_path: Path) -> None:
    clip = put_wav(tmp_path / "a.flac", noise(2))
    assert (clip.sample_rate, clip.channels, clip.duration) == (RATE, 2, 400 / RATE)
    content = clip.path.read_bytes()  # the samples, 36 bits from byte 21: not known
    clip.path.write_bytes(content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:])
    assert (clip.sample_rate, clip.channels, clip.duration) == (RATE, 2, 400 / RATE)
    assert torch.equal(clip.read(channels="keep"), noise(2))


def test_read_resamples_only_when_asked(tmp_path: Path) -> None:
    clip = Clip("a.wav", put(tmp_path / "a.wav"))
    assert clip.read().shape == clip.read(RATE).shape == (1, 100)
    assert clip.read(2 * RATE).shape == (1, 200)
    with pytest.raises(ValueError, match="must be positive"):
        clip.read(0)


def test_read_scales_down_what_is_louder_than_one_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wav = torch.tensor([[0.5, -2.0, 1.0]])
    audio.write(tmp_path / "a.wav", wav, RATE, subtype="FLOAT")
    with caplog.at_level(logging.INFO, logger="neuralcodec.data.clip"):
        assert torch.equal(Clip("a.wav", tmp_path / "a.wav").read(), wav / 2)
    assert "peak of 2.0000" in caplog.text


def test_read_scales_down_what_resampling_made_louder_than_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    square = (torch.arange(4000) // 20 % 2 * 2 - 1).float()[None]
    audio.write(tmp_path / "a.wav", square, RATE)
    clip = Clip("a.wav", tmp_path / "a.wav")
    with caplog.at_level(logging.INFO, logger="neuralcodec.data.clip"):
        assert float(clip.read().abs().max()) == 1
        assert not caplog.records
        raw = audio.resample(clip.read(), RATE, 16_000)
        assert float(raw.abs().max()) > 1.05
        wav = clip.read(16_000)
    assert float(wav.abs().max()) == 1
    torch.testing.assert_close(wav, raw / raw.abs().max())
    assert len(caplog.records) == 1


def test_digest_depends_on_the_content_alone(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"abc")
    clip = Clip("a.wav", tmp_path / "a.wav")
    assert clip.digest() == "ba7816bf8f01cfea"  # of FIPS 180-2, appendix B.1
    (tmp_path / "b.wav").write_bytes(b"abc")
    assert Clip("b.wav", tmp_path / "b.wav", "music").digest() == clip.digest()
    (tmp_path / "b.wav").write_bytes(b"abd")
    assert Clip("b.wav", tmp_path / "b.wav").digest() != clip.digest()
