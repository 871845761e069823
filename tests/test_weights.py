import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pooch
import pytest

from loopback import CONTENT, SHA256, TOY, Server, cached, put, toy
from neuralcodec import weights
from neuralcodec.core.registry import REGISTRY, Entry
from neuralcodec.weights import CHECKPOINTS, WeightsMissing, listing, registry
from neuralcodec.weights.availability import why_unavailable

pytestmark = pytest.mark.usefixtures("own_weights")


# The catalogue


def test_catalogue_has_what_the_codecs_load_and_nothing_else() -> None:
    loaded = {name for entry in REGISTRY.values() for name in entry.checkpoints}
    assert set(CHECKPOINTS) - {"toy"} == loaded


def test_catalogue_is_consistent() -> None:
    entries = [entry for name, entry in CHECKPOINTS.items() if name != "toy"]
    assert len({entry.path for entry in entries}) == len({entry.url for entry in entries}) == 22
    for entry in entries:
        assert entry.url.startswith("https://")
        assert not Path(entry.path).is_absolute()
        assert entry.sha256 is None or set(entry.sha256) <= set("0123456789abcdef")
        assert len(entry.sha256 or "00000000") in (8, 64)
        assert entry.licence


def source(package: str, file: str) -> str:
    """Read a module of a package that takes seconds to import."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / file).read_text(encoding="utf-8")


def test_encodec_comes_from_where_its_package_says() -> None:
    text = source("encodec", "model.py")
    for entry in (CHECKPOINTS["encodec_24khz"], CHECKPOINTS["encodec_48khz"]):
        folder, _, file = entry.url.rpartition("/")
        assert f"ROOT_URL = '{folder}/'" in text
        assert f"checkpoint_name = '{file}'" in text
        assert Path(entry.path).name == file  # which is how it looks for a local one
        assert entry.sha256 is not None
        assert Path(file).stem.split("-")[1] == entry.sha256[:8]


def test_dac_comes_from_where_its_package_says() -> None:
    text = source("dac", "utils/__init__.py")
    for model in ("44khz", "24khz", "16khz"):
        entry = CHECKPOINTS[f"dac_{model}"]
        assert f'"{entry.url}"' in text
        assert f'("{model}", "8kbps"): "{entry.url.split("/")[-2]}"' in text  # its latest tag


def test_lyra_is_found_as_it_lies_there(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURALCODEC_WEIGHTS", str(shared / "models"))
    for name in ("lyra_encoder", "lyra_quantizer", "lyra_decoder"):
        found = weights.locate(name)
        assert found.parent == shared / "models" / "lyra"
        assert weights.check(name, found)


# Places


def test_order_of_places(mirror: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.find("toy") is None
    assert weights.locate("toy") == weights.find("toy") == cached()
    first, second = put(tmp_path / "first"), put(tmp_path / "second")
    folders = [str(tmp_path / "first"), str(tmp_path / "second")]
    monkeypatch.setenv("NEURALCODEC_WEIGHTS", os.pathsep.join(folders))
    assert weights.locate("toy") == first
    first.unlink()
    assert weights.locate("toy") == second
    own = put(tmp_path, b"the user's own", "own.bin")
    assert weights.locate("toy", own) == own
    assert len(mirror.asked) == 1


def test_own_folder_has_the_file_under_its_name(tmp_path: Path) -> None:
    put(tmp_path, b"mine", "toy.bin")
    assert weights.locate("toy", str(tmp_path)) == tmp_path / "toy.bin"
    with pytest.raises(WeightsMissing, match=r"no file .*lyragan\.tflite to load for lyra_decoder"):
        weights.locate("lyra_decoder", tmp_path)


def test_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.cache() == tmp_path / "cache" / "weights"
    monkeypatch.delenv("NEURALCODEC_CACHE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert weights.cache() == tmp_path / "xdg" / "neuralcodec" / "weights"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert weights.cache() == tmp_path / ".cache" / "neuralcodec" / "weights"


def test_unknown_name_and_folder_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown checkpoint 'lira_encoder'; did you mean 'lyra_e"):
        weights.find("lira_encoder")
    monkeypatch.setenv("NEURALCODEC_WEIGHTS", "/no/such/folder")
    with pytest.raises(ValueError, match="NEURALCODEC_WEIGHTS names '/no/such/folder'"):
        weights.find("toy")


def test_weights_import_no_torch() -> None:
    code = "import sys, neuralcodec.weights; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Checksums


def test_wrong_file_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = put(tmp_path / "mine", CONTENT[:-1] + b"?")
    monkeypatch.setenv("NEURALCODEC_WEIGHTS", str(tmp_path / "mine"))
    with pytest.raises(ValueError, match=f"^{wrong} is not .*{SHA256}; remove or replace it$"):
        weights.locate("toy")
    assert weights.find("toy") == wrong


def test_wrong_file_in_the_cache_stays_until_forced(mirror: Server) -> None:
    wrong = put(weights.cache(), b"damaged")
    with pytest.raises(ValueError, match=r"neuralcodec weights fetch toy --force$"):
        weights.locate("toy")
    assert wrong.read_bytes() == b"damaged"
    assert weights.fetch("toy", again=True).read_bytes() == CONTENT
    assert weights.locate("toy") == wrong


def test_a_file_is_hashed_once(mirror: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(weights.cache())
    calls = []
    real = pooch.file_hash

    def counted(file: str) -> str:
        calls.append(file)
        return str(real(file))

    monkeypatch.setattr(pooch, "file_hash", counted)
    for _ in range(3):
        weights.locate("toy")
    assert len(calls) == 1
    stamp = path.stat().st_mtime_ns
    for changes, content in enumerate((CONTENT[::-1], b"changed"), start=1):  # of any length
        path.write_bytes(content)
        os.utime(path, ns=(stamp, stamp + changes * 1_000_000))
        with pytest.raises(ValueError, match="is not the published file"):
            weights.locate("toy")
        assert len(calls) == 1 + changes


def test_leading_digits_are_enough_to_refuse(
    mirror: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, SHA256[:8])
    assert weights.locate("toy").read_bytes() == CONTENT
    toy(monkeypatch, f"{'0' if SHA256[0] != '0' else '1'}{SHA256[1:8]}")
    with pytest.raises(ValueError, match=r"expected [0-9a-f]{8}\.\.\.;"):
        weights.locate("toy")


@pytest.mark.parametrize("digits", [0, 8])
def test_first_download_is_trusted_and_held_later(
    digits: int, mirror: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, SHA256[:digits] or None)
    path = weights.locate("toy")
    assert registry.note_of(path).read_text() == f"{SHA256}  toy.bin\n"
    assert weights.check("toy", path)
    path.write_bytes(b"changed later")
    with pytest.raises(ValueError, match="is not the published file"):
        weights.locate("toy")
    mirror.files[f"/{TOY}"] = CONTENT + b"!" if not digits else CONTENT
    weights.fetch("toy", again=True)  # a new first download
    assert weights.locate("toy") == path


def test_unknown_checksum_of_a_file_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, None)
    path = put(tmp_path / "mine")
    monkeypatch.setenv("NEURALCODEC_WEIGHTS", str(tmp_path / "mine"))
    assert weights.locate("toy") == path
    assert not weights.check("toy", path)
    registry.note_of(path).write_text("nothing of use")
    with pytest.raises(ValueError, match=r"toy\.bin\.sha256 holds no sha256"):
        weights.locate("toy")


# The command line


def test_list_says_what_is_here(cli: Callable[..., Any], tmp_path: Path) -> None:
    path = put(weights.cache())
    said = cli("weights", "list")
    lines = {line.split()[0]: line for line in said.out.splitlines()}
    assert set(CHECKPOINTS) < set(lines)
    assert f"here ({path})" in lines["toy"]
    assert "CC-BY-NC-4.0" in lines["encodec_48khz"]
    assert "sha256, 8 digits" in lines["encodec_48khz"]
    assert "of the first download" in lines["xcodec"]
    assert lines["mimi"].endswith("not here")


def test_weights_are_here_if_all_that_a_codec_loads_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKPOINTS, "other", replace(CHECKPOINTS["toy"], path="toy/other.bin"))
    both = replace(REGISTRY["dac_16khz"], package=None, checkpoints=("toy", "other"))
    monkeypatch.setitem(REGISTRY, "dac_16khz", both)
    monkeypatch.setattr(listing, "names", lambda: ["dac_16khz"])  # the others take a while

    def listed() -> tuple[str, bool]:
        row = listing.list_codecs().set_index("codec").loc["dac_16khz"]
        return str(row["weights"]), bool(row["runs"])

    assert listed() == ("not here", False)
    put(weights.cache())
    assert listed() == ("not here", False)
    put(weights.cache(), path="toy/other.bin")
    assert listed() == ("here", True)


def test_fetch(cli: Callable[..., Any], mirror: Server) -> None:
    said = cli("weights", "fetch", "toy")
    assert (said.status, said.out) == (0, f"toy (MIT) {cached()}: downloaded\n")
    assert cli("weights", "fetch", "toy").out.endswith("here, checked\n")
    cached().write_bytes(b"damaged")
    said = cli("weights", "fetch", "toy")
    assert said.status == 1
    assert said.err.count("\n") == 1
    assert said.err.endswith("neuralcodec weights fetch toy --force\n")
    assert cli("weights", "fetch", "toy", "--force").status == 0
    assert cached().read_bytes() == CONTENT


def test_fetch_of_a_codec_is_all_that_it_loads(
    cli: Callable[..., Any], shared: Path, mirror: Server
) -> None:
    for name in REGISTRY["lyra_v2"].checkpoints:
        path = CHECKPOINTS[name].path
        mirror.files[f"/{path}"] = (shared / "models" / path).read_bytes()
    assert cli("weights", "fetch", "lyra_v2").status == 0
    assert all(weights.find(name) for name in REGISTRY["lyra_v2"].checkpoints)
    assert cli("weights", "verify").out.count(": right\n") == 3


def test_fetch_goes_on_after_a_failure(cli: Callable[..., Any], mirror: Server) -> None:
    said = cli("weights", "fetch", "mimi", "toy")
    assert said.status == 1
    assert said.err.count("\n") == 2  # mimi's configuration and its weights
    assert "toy (MIT)" in said.out


def test_fetch_refuses_what_it_cannot_mean(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "did you mean 'mimi'" in cli("weights", "fetch", "mimmi").err
    assert "codec 'opus' loads no checkpoint" in cli("weights", "fetch", "opus").err
    assert "or give --all" in cli("weights", "fetch").err
    put(tmp_path / "mine")
    monkeypatch.setenv("NEURALCODEC_WEIGHTS", str(tmp_path / "mine"))
    said = cli("weights", "fetch", "toy", "--force")
    assert said.status == 1
    assert "comes before the cache" in said.err


def test_fetch_all_offline_is_quick(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURALCODEC_OFFLINE", "1")
    said = cli("weights", "fetch", "--all")
    assert said.status == 1
    assert said.err.count("\n") == len(CHECKPOINTS)


def test_verify(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("weights", "verify") == (0, "no checkpoint is here\n", "")
    put(weights.cache())
    assert cli("weights", "verify") == (0, f"toy {cached()}: right\n", "")
    put(weights.cache(), b"{}", CHECKPOINTS["xcodec_config"].path)
    said = cli("weights", "verify", "toy", "xcodec_config")
    assert said.status == 0
    assert f"no checksum known, sha256 is {hashlib.sha256(b'{}').hexdigest()}" in said.out
    assert cli("weights", "verify", "lyra_v2").status == 1
    cached().write_bytes(b"damaged")
    said = cli("weights", "verify")
    assert said.status == 1
    assert said.err.startswith(f"neuralcodec: {cached()} is not the published file")
    assert said.err.count("\n") == 1


# Availability


@pytest.fixture
def needy(monkeypatch: pytest.MonkeyPatch) -> str:
    """A codec in the registry that loads the toy."""
    entry = Entry("no_such_module", "Some", "codecs", "loads the toy", checkpoints=("toy",))
    monkeypatch.setitem(REGISTRY, "needy", entry)
    return "needy"


def test_codec_with_all_it_needs_is_available(needy: str, mirror: Server) -> None:
    assert why_unavailable("pcm", {}) is None
    assert why_unavailable(needy, {}) is None
    assert weights.find("toy")  # it was downloaded
    assert "no_such_module" not in sys.modules


@pytest.mark.parametrize("suffix", ["", "+rvq"])
def test_missing_weights_are_one_line_with_the_cure(needy: str, suffix: str) -> None:
    reason = why_unavailable(needy + suffix, {})
    assert reason is not None
    assert "\n" not in reason
    assert f"put it at {cached()} or set NEURALCODEC_WEIGHTS" in reason
    assert why_unavailable(needy + suffix, {"weights": "random"}) is None


def test_wrong_weights_make_a_codec_unavailable(needy: str) -> None:
    put(weights.cache(), b"damaged")
    reason = why_unavailable(needy, {})
    assert reason is not None
    assert reason.endswith("neuralcodec weights fetch toy --force")


def test_missing_package_comes_before_weights(
    monkeypatch: pytest.MonkeyPatch, mirror: Server
) -> None:
    entry = Entry("m", "Some", "codecs", "", package="no_such_package", checkpoints=("toy",))
    monkeypatch.setitem(REGISTRY, "some", entry)
    cure = "codec 'some' needs 'no_such_package': pip install 'neuralcodec[codecs]'"
    assert why_unavailable("some", {"weights": "random"}) == cure
    assert not mirror.asked


def test_core_imports_no_weights() -> None:
    code = "import sys, neuralcodec.core.codec; sys.exit('neuralcodec.weights' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
