import pytest
import torch

from neuralcodec.core.codec import Codec
from neuralcodec.core.loading import find, load
from neuralcodec.core.names import unknown
from neuralcodec.core.registry import REGISTRY, Entry
from neuralcodec.wrappers.classical.ffmpeg import Opus

CLASSICAL = ["pcm", "opus", "mp3", "aac"]


@pytest.mark.parametrize("name", CLASSICAL)
def test_classical_codecs_keep_the_protocol(name: str) -> None:
    built = load(name)
    assert isinstance(built, Codec)
    assert built.name == name
    assert (built.channels, built.num_codebooks) == (1, 1)
    assert len(built.codebook_sizes) == built.num_codebooks
    assert len(built.frame_rates) in (0, built.num_codebooks)
    assert built.is_causal == (name == "pcm")
    tokens = built.encode(torch.zeros(1, 1, 1600))
    assert tokens.sample_rate == built.sample_rate
    assert tokens.codebook_sizes == built.codebook_sizes
    assert built.decode(tokens).shape == (1, 1, 1600)


@pytest.mark.parametrize("name", CLASSICAL)
def test_registry_names_the_class_and_no_extra(name: str) -> None:
    assert find(name).__name__.lower() == name
    assert REGISTRY[name].extra is None
    assert REGISTRY[name].summary


def test_settings_reach_the_codec() -> None:
    built = load("opus", bitrate_kbps=20, sample_rate=24000)
    assert isinstance(built, Opus)
    assert (built.bitrate_kbps, built.sample_rate) == (20, 24000)


def test_unknown_codec_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown codec 'opsu'; did you mean 'opus'"):
        load("opsu")
    with pytest.raises(ValueError, match=r"unknown codec 'qqqqqq'; Known: .*aac, .*pcm"):
        find("qqqqqq")


@pytest.mark.parametrize("known", ["opus", "Opus", "OPUS"])
@pytest.mark.parametrize("name", ["opsu", "OPSU", "Op"])
def test_the_nearest_name_is_found_in_any_case(name: str, known: str) -> None:
    assert f"unknown codec {name!r}; did you mean {known!r}?" in str(
        unknown("codec", name, ["mp3", known, "AAC"])
    )


def test_unknown_setting_names_the_nearest() -> None:
    message = "unknown setting of codec 'opus': 'bitrate'; did you mean 'bitrate_kbps'"
    with pytest.raises(ValueError, match=message):
        load("opus", bitrate=12)


def test_setting_out_of_range_is_the_codecs_own_error() -> None:
    with pytest.raises(ValueError, match=r"must be 6\.\.256, got 1"):
        load("opus", bitrate_kbps=1)


def test_missing_extra_names_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("no_such_package_of_ours", "Some", "codecs", "needs a package that is missing")
    monkeypatch.setitem(REGISTRY, "some", entry)
    cure = r"codec 'some' needs 'no_such_package_of_ours': pip install 'neuralcodec\[codecs\]'"
    with pytest.raises(ImportError, match=cure):
        load("some")


def test_broken_install_is_not_blamed_on_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Entry("neuralcodec.wrappers.no_such_module", "Some", "codecs", "a module of ours")
    plain = Entry("no_such_package_of_ours", "Some", None, "needs no extra")
    for entry in (inner, plain):
        monkeypatch.setitem(REGISTRY, "some", entry)
        with pytest.raises(ModuleNotFoundError, match="No module named"):
            load("some")


def test_a_setting_that_a_codec_needs_is_named() -> None:
    with pytest.raises(ValueError, match="codec 'huggingface' needs the setting model"):
        load("huggingface")
