"""What a command may write, and what it never replaces."""

import os
import threading
from pathlib import Path

import pytest

from neuralcodec.core.files import check_output, put, write_whole


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "in.wav"
    path.write_bytes(b"a recording")
    return path


def names_of(path: Path) -> list[Path]:
    """Other names of a file: links of both kinds, another spelling, a folder's link."""
    folder = path.parent
    (folder / "soft").symlink_to(path)
    (folder / "softer").symlink_to("soft")
    (folder / "hard").hardlink_to(path)
    (folder / "other").symlink_to(folder, target_is_directory=True)
    own = [folder / "soft", folder / "softer", folder / "hard", folder / "other" / path.name]
    return [path, *own, folder / "other" / ".." / folder.name / path.name]


def test_the_input_is_never_replaced_under_any_name(recording: Path) -> None:
    names = names_of(recording)
    for target in names:
        for source in names:
            with pytest.raises(ValueError, match="is the same file as the input"):
                check_output(target, [source], force=True, ours=lambda path: True)


def test_a_spelling_relative_to_the_working_folder(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recording.parent)
    for target, source in [("in.wav", "./in.wav"), ("./in.wav", str(recording))]:
        with pytest.raises(ValueError, match="is the same file as the input"):
            check_output(target, ["x.wav", source], force=True)


def test_the_same_file_in_another_case(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that ignores case says that both names are one file."""
    status = recording.stat()
    real = os.stat

    def without_case(path: os.PathLike[str] | str | int, **options: bool) -> os.stat_result:
        if not isinstance(path, int) and os.fspath(path).lower() == str(recording).lower():
            return status
        return real(path, **options)

    monkeypatch.setattr(os, "stat", without_case)
    with pytest.raises(ValueError, match="is the same file as the input"):
        check_output(recording.with_name("IN.WAV"), [recording], force=True)


def test_an_open_file_is_an_input(recording: Path) -> None:
    with (
        recording.open("rb") as stream,
        pytest.raises(ValueError, match="is the same file as the input standard input"),
    ):
        check_output(recording, [stream.fileno()], force=True)


def test_what_exists_is_replaced_only_by_force_or_if_ours(recording: Path) -> None:
    other = recording.with_name("other.wav")
    assert check_output(other, [recording]) == other
    other.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"other\.wav exists already; --force replaces it"):
        check_output(other, [recording])
    with pytest.raises(FileExistsError):
        check_output(other, [recording], ours=lambda path: b"ours" in path.read_bytes())
    assert check_output(other, [recording], force=True) == other
    other.write_bytes(b"ours")
    assert check_output(other, ours=lambda path: b"ours" in path.read_bytes()) == other


def test_a_link_stays_one(recording: Path) -> None:
    folder = recording.parent
    (folder / "deep").mkdir()
    real, link = folder / "deep" / "real.nct", folder / "link.nct"
    link.symlink_to(real)  # dangles
    assert check_output(link) == real
    put(check_output(link), b"first")
    assert real.read_bytes() == b"first"
    with pytest.raises(FileExistsError, match=r"link\.nct exists already"):
        check_output(link)
    write_whole(link, b"second")
    put(link, b"third")
    assert link.is_symlink()
    assert real.read_bytes() == b"third"
    assert sorted(path.name for path in folder.iterdir()) == ["deep", "in.wav", "link.nct"]
    assert list((folder / "deep").iterdir()) == [real]


def test_folders(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recording.parent)
    with pytest.raises(IsADirectoryError, match="is a folder: give the name of a file"):
        check_output(".", force=True)
    with pytest.raises(FileNotFoundError, match=r"no folder no to write 'a\.nct' in"):
        check_output("no/a.nct")
    Path("dangling").symlink_to("no/a.nct")
    with pytest.raises(FileNotFoundError, match="to write 'dangling' in"):
        check_output("dangling")


def test_devices_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    assert check_output(os.devnull, [os.devnull]) == Path(os.devnull)
    put(os.devnull, b"nothing")
    assert not Path(os.devnull).is_file()
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    assert check_output(pipe) == pipe
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    put(pipe, b"bytes")
    reader.join(10)
    assert got == [b"bytes"]
    assert pipe.is_fifo()
