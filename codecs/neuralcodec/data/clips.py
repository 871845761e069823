"""Sets of clips: a folder, a manifest, or the starter set, listed without opening the audio."""

import csv
import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from torch import Tensor

from neuralcodec.core import audio
from neuralcodec.core.audio import KINDS
from neuralcodec.core.names import unknown
from neuralcodec.data.starter_set import SPLITS, STARTER

MANIFEST = "manifest.csv"
"""A folder that holds a file of this name is read through it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """One audio file of a set.

    Attributes:
        name: unique in its set: the path relative to the set's folder, with forward slashes.
        path: the file.
        kind: one of `KINDS`.
        transcript: what is said, "" where not known.
        speaker: who says it, "" where not known.
    """

    name: str
    path: Path
    kind: str = "unknown"
    transcript: str = ""
    speaker: str = ""

    def read(self, sample_rate: int | None = None) -> tuple[Tensor, int]:
        """Read the clip as mono: the mean of its channels.

        Lossy files, float files and resampling may give peaks beyond +-1, which codecs and
        converters would clip. Such a clip is scaled down to a peak of 1, and a log record of this
        module says so (level INFO). No other clip is scaled.

        Args:
            sample_rate: Hz to resample to; as stored without.

        Returns:
            wav `[1, T]` float32 in [-1, 1], and its sample rate in Hz.

        Raises:
            FileNotFoundError: if the file is gone.
            ValueError: if it is no audio, is empty, or holds NaN or infinite samples; or
                `sample_rate` is not positive.
        """
        wav, stored_rate = audio.read(self.path)
        wav = audio.mix_down(wav)
        if sample_rate is None:
            sample_rate = stored_rate
        wav = audio.resample(wav, stored_rate, sample_rate)
        peak = float(wav.abs().max())
        if peak > 1:
            _log.info("%s scaled down by its peak of %.4f at %d Hz", self.path, peak, sample_rate)
            wav = wav / peak
        return wav, sample_rate

    def digest(self) -> str:
        """Hash the file's bytes: the first 16 hex digits of their SHA-256."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _read_rows(manifest: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file whose header has a column "file"."""
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets add a BOM
            reader = csv.DictReader(file, strict=True)
            if "file" not in (reader.fieldnames or []):
                found = ", ".join(reader.fieldnames or []) or "nothing"
                raise ValueError(f"{manifest} needs a header with the column 'file', found {found}")
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {manifest} as CSV in UTF-8: {error}") from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise ValueError(f"{manifest}, row {number}: not as many fields as the header has")
    return rows


def _from_manifest(manifest: Path, *, split: str | None = None) -> list[Clip]:
    """List the clips of a manifest, in its order; of one split, if given."""
    found: dict[Path, Clip] = {}
    for number, row in enumerate(_read_rows(manifest), start=1):
        where = f"{manifest}, row {number}"
        name = PurePosixPath(row["file"].strip()).as_posix()
        path = manifest.parent / name
        kind = row.get("kind", "").strip() or "unknown"
        if kind not in KINDS:
            raise unknown(f"kind in {where}:", kind, KINDS)
        if not path.is_file():
            raise FileNotFoundError(f"{where}: no file {row['file']!r} in {manifest.parent}")
        if path.resolve() in found:
            raise ValueError(f"{where}: {row['file']!r} stands there twice; remove one row")
        if split in (None, row.get("split")):
            found[path.resolve()] = Clip(
                name, path, kind, row.get("transcript", ""), row.get("speaker", "")
            )
    return list(found.values())


def _kind_of(parts: tuple[str, ...]) -> str:
    """Take the kind from the names of the folders around a file, the nearest first."""
    return next((part.lower() for part in reversed(parts) if part.lower() in KINDS), "unknown")


def _from_folder(folder: Path) -> list[Clip]:
    """List the audio files in a folder and those below it, sorted by name."""
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in audio.EXTENSIONS)
    named = {path.relative_to(folder): path for path in paths if path.is_file()}
    return [
        Clip(name.as_posix(), path, _kind_of((folder.absolute().name, *name.parts[:-1])))
        for name, path in sorted(named.items(), key=lambda item: item[0].as_posix())
    ]


def clips(source: str | Path, *, kind: str | None = None) -> list[Clip]:
    """List the clips of a set. No audio file is opened: what is no audio shows when it is read.

    Args:
        source: one of

            - "starter", or one split of it, "starter:fit" or "starter:test" (a folder of that name
              is "./starter");
            - a manifest: a CSV file with the column `file`, relative to the manifest, and if
              wanted `kind`, `transcript`, `speaker`; other columns are ignored;
            - a folder. One that holds a manifest.csv is read through it. Any other is searched for
              files with one of `audio.EXTENSIONS`, sub-folders included, links to folders not; the
              kind is the name of the nearest folder around the file, up to `source` itself, that
              is one of `KINDS`.
        kind: the kind of those clips whose kind is "unknown".

    Returns:
        At least one clip, with unique names: in the manifest's order, or sorted by name.

    Raises:
        FileNotFoundError: if there is no such file or folder, or a file in the manifest is missing.
        ValueError: if there is no clip, the manifest has no column `file`, a row with too many or
            too few fields, an unknown kind or a file twice; or `kind` or the split is unknown.

    >>> len(clips("starter:test")), clips("starter:test")[-1].kind
    (12, 'speech')
    """
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    path = Path(source)
    if isinstance(source, str) and (source == "starter" or source.startswith("starter:")):
        split = source.partition(":")[2] if ":" in source else None
        if split is not None and split not in SPLITS:
            raise unknown("starter split", split, SPLITS)
        found = _from_manifest(STARTER / MANIFEST, split=split)
    elif path.is_dir():
        manifest = path / MANIFEST
        found = _from_manifest(manifest) if manifest.is_file() else _from_folder(path)
    elif path.is_file() and path.suffix.lower() == ".csv":
        found = _from_manifest(path)
    elif path.is_file():
        raise ValueError(f"{path} is no folder and no .csv manifest; give the folder it lies in")
    else:
        raise FileNotFoundError(
            f"no folder or manifest at {path}; 'starter' is the set that comes along"
        )
    if not found:
        endings = " ".join(sorted(audio.EXTENSIONS))
        raise ValueError(f"no clips in {path}; files that count end in one of {endings}")
    if kind is None:
        return found
    return [replace(clip, kind=kind) if clip.kind == "unknown" else clip for clip in found]
