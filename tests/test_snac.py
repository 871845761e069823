"""SNAC: what the package gives, to the bit, and the same audio each time."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.loading import load
from neuralcodec.core.registry import REGISTRY
from neuralcodec.core.tokens import Tokens
from neuralcodec.weights import WeightsMissing
from neuralcodec.wrappers import snac as wrapper
from neuralcodec.wrappers.snac import PUBLISHED, Snac, random_network

SNAC: Any = vars(wrapper)["SNAC"]  # the package's, imported where its warning is silenced

MODELS = ("24khz", "32khz", "44khz")
UNITS = {"24khz": 4 * 512, "32khz": 32 * 384, "44khz": 32 * 384}  # samples that padding fills up


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny model, as models are published."""

    def folder(model: str) -> Path:
        path = base / model
        if not path.exists():
            path.mkdir()
            settings = {**PUBLISHED[model], "encoder_dim": 16, "decoder_dim": 64}
            (path / "config.json").write_text(json.dumps(settings))
            torch.manual_seed(3)
            network = SNAC(**settings)
            for name, parameter in network.named_parameters():
                if name.endswith("bias"):
                    parameter.data.zero_()  # else codes hardly change with the audio
                elif name.startswith("encoder") and name.endswith("original0"):
                    parameter.data.mul_(2**0.5)
            torch.save(network.state_dict(), path / "pytorch_model.bin")
        return path

    base = tmp_path_factory.mktemp("snac")
    return folder


def noise(length: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, 1, length, generator=generator) * 0.2


@torch.no_grad()
def by_package(network: Any, wav: Tensor) -> tuple[list[Tensor], Tensor]:
    """Give the package's own codes and audio; each clip is decoded under the same seed."""
    codes = network.encode(wav)
    clips = []
    for index in range(len(wav)):
        torch.manual_seed(0)
        clips.append(network.decode([stream[index : index + 1] for stream in codes]))
    return codes, torch.cat(clips)


def assert_like_package(codec: Snac, network: Any, wav: Tensor) -> Tokens:
    codes, audio = by_package(network, wav)
    tokens = codec.encode(wav)
    assert all(map(torch.equal, codes, tokens.streams))
    back = codec.decode(tokens)
    assert back.shape == wav.shape
    torch.testing.assert_close(back, audio[..., : wav.shape[-1]], atol=1e-5, rtol=0)
    return tokens


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_gives_what_the_package_gives(
    model: str, checkpoint: Callable[[str], Path]
) -> None:
    network = SNAC.from_pretrained(str(checkpoint(model)))
    codec = Snac(model, checkpoint(model))
    assert isinstance(codec, Codec)
    assert isinstance(codec, LatentCodec)
    assert not codec.is_chunkable  # the noise of the decoder hangs on the length
    unit = UNITS[model]
    for length, units in ((1, 1), (unit, 1), (unit + 1, 2)):
        tokens = assert_like_package(codec, network, noise(length, batch=2))
        seconds = units * unit / codec.sample_rate
        assert tokens.padded_duration == pytest.approx(seconds)
        spans = [
            s.shape[1] * stride for s, stride in zip(tokens.streams, codec.strides, strict=True)
        ]
        assert len(set(spans)) == 1
    assert not any("parametrizations" in name for name in codec.network.state_dict())


@pytest.mark.parametrize(
    ("model", "tokens_per_second", "bitrate_kbps", "millions"),
    # The README of hubertsiuzdak/snac has 0.98, 1.9 and 2.6 kbps, 19.8, 54.5 and 54.5 M.
    [
        ("24khz", 82.03, 0.9844, 19.8),
        ("32khz", 156.25, 1.875, 54.5),
        ("44khz", 215.33, 2.584, 54.5),
    ],
)
def test_the_published_configuration_gives_what_the_package_gives(
    model: str,
    tokens_per_second: float,
    bitrate_kbps: float,
    millions: float,
) -> None:
    network = random_network(model).eval()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.05)
    codec = load(f"snac_{model}", weights="random")
    assert isinstance(codec, Snac)
    tokens = assert_like_package(codec, network, noise(UNITS["24khz"] * 3))
    assert tokens.tokens_per_second == pytest.approx(tokens_per_second, abs=0.005)
    assert tokens.bitrate_kbps == pytest.approx(bitrate_kbps, abs=0.00005)
    facts = REGISTRY[f"snac_{model}"].facts
    assert facts is not None
    assert codec.name == f"snac_{model}"
    for name in ("sample_rate", "channels", "frame_rates", "codebook_sizes", "is_causal", "dim"):
        assert getattr(codec, name) == getattr(facts, name)
    assert codec.num_codebooks == len(facts.codebook_sizes)
    finest = tokens.streams[-1][0].tolist()
    assert len(set(finest)) > len(finest) / 4  # half the frames are of padding at 32 kHz
    assert 0.005 < float(codec.decode(tokens).std()) < 0.5


def test_a_random_network_is_always_the_same() -> None:
    state = torch.random.get_rng_state()
    first = dict(random_network("24khz").named_parameters())
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(1)
    again = random_network("24khz").named_parameters()
    assert all(torch.equal(first[name], parameter) for name, parameter in again)


@pytest.mark.parametrize("model", ["24khz", "32khz"])
@torch.no_grad()
def test_any_prefix_decodes(model: str, checkpoint: Callable[[str], Path]) -> None:
    network = SNAC.from_pretrained(str(checkpoint(model)))
    codec = Snac(model, checkpoint(model))
    wav = noise(UNITS[model] - 100)
    tokens = codec.encode(wav)
    for depth in range(1, codec.num_codebooks + 1):
        shallow = codec.encode(wav, depth)
        assert all(map(torch.equal, shallow.streams, tokens.prefix(depth).streams))
        network.quantizer.n_codebooks = depth  # all that its from_codes looks at
        torch.manual_seed(0)
        audio = network.decode([*shallow.streams])[..., : wav.shape[-1]]
        for back in (codec.decode(shallow), codec.decode(tokens.prefix(depth))):
            torch.testing.assert_close(back, audio, atol=1e-5, rtol=0)


def test_decoding_is_deterministic(checkpoint: Callable[[str], Path]) -> None:
    codec = Snac("24khz", checkpoint("24khz"))
    tokens = codec.encode(noise(3000).expand(3, -1, -1))
    torch.manual_seed(77)
    state = torch.random.get_rng_state()
    wav = codec.decode(tokens)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(5)
    assert torch.equal(codec.decode(tokens), wav)
    assert torch.equal(wav, wav[:1].expand_as(wav))  # whatever else is in the batch


def test_the_decoder_is_noisy(checkpoint: Callable[[str], Path]) -> None:
    network = SNAC.from_pretrained(str(checkpoint("24khz")))
    codes = network.encode(noise(3000))
    assert not torch.equal(network.decode(codes), network.decode(codes))


@pytest.mark.parametrize("model", ["24khz", "32khz"])
@torch.no_grad()
def test_latents_lie_on_both_sides_of_the_quantizer(
    model: str, checkpoint: Callable[[str], Path]
) -> None:
    codec = Snac(model, checkpoint(model))
    wav = noise(UNITS[model] // 2, batch=2)
    z = codec.encode_latents(wav)
    hop = math.prod(PUBLISHED[model]["encoder_rates"])
    assert z.shape == (2, codec.dim, UNITS[model] // hop)
    assert codec.frame_rate == codec.sample_rate / hop
    tokens = codec.encode(wav)
    quantized, codes = codec.network.quantizer(z)
    assert all(map(torch.equal, codes, tokens.streams))
    back = codec.decode_latents(quantized, wav.shape[-1])
    torch.testing.assert_close(back, codec.decode(tokens), atol=1e-5, rtol=0)
    assert codec.decode_latents(z).shape == (2, 1, UNITS[model])
    assert codec.decode_latents(z[..., :3]).shape == (2, 1, 3 * hop)  # less than a window


def test_what_comes_back_can_be_trained_with(checkpoint: Callable[[str], Path]) -> None:
    codec = Snac("24khz", checkpoint("24khz"))
    tokens = codec.encode(noise(1000))
    z = codec.encode_latents(noise(1000))
    for tensor in (z, codec.decode(tokens), codec.decode_latents(z), *tokens.streams):
        assert not tensor.is_inference()


# Bad input


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('executed')",)


def test_bad_checkpoints_are_refused(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    good = checkpoint("24khz")
    settings = json.loads((good / "config.json").read_text())
    state = torch.load(good / "pytorch_model.bin", weights_only=True)

    def refused(config: object, content: object, match: str) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        torch.save(content, tmp_path / "pytorch_model.bin")
        with pytest.raises(ValueError, match=match):
            Snac("24khz", tmp_path)

    with pytest.raises(WeightsMissing, match=r"config\.json"):
        Snac("24khz", tmp_path)
    refused(settings, {"weight": Harmful()}, "are no SNAC checkpoint")
    refused(settings, [1, 2], "doesn't fit")
    refused(settings, {**state, "extra": torch.zeros(1)}, "doesn't fit")
    refused([1, 2], state, "must hold settings of SNAC")
    refused({**settings, "extra": 1}, state, "must hold settings of SNAC")
    for key, value, match in (
        ("sampling_rate", 32000, "sampling_rate of .* is 32000, not 24000 as in SNAC 24khz"),
        ("encoder_rates", [2, 3, 8, 8], "hop length of .* is 384, not 512"),
        ("decoder_rates", [8, 8, 3, 2], "hop length decoded of .* is 384, not 512"),
        ("vq_strides", [2, 1], r"vq_strides of .* is \[2, 1\], not \[4, 2, 1\]"),
        ("codebook_size", 64, "doesn't fit"),
        ("codebook_size", None, r"config\.json holds settings that make no SNAC: "),
        ("encoder_rates", "2488", r"config\.json holds settings that make no SNAC: "),
    ):
        refused({**settings, key: value}, state, match)
    (tmp_path / "config.json").write_text("no JSON")
    with pytest.raises(ValueError, match="are no SNAC checkpoint"):
        Snac("24khz", tmp_path)


def test_bad_input_is_refused(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="unknown SNAC model '48khz'; did you mean"):
        Snac("48khz", "random")
    codec = Snac("32khz", checkpoint("32khz"))
    for depth in (0, 5):
        with pytest.raises(ValueError, match=rf"num_codebooks must be 1\.\.4, got {depth}"):
            codec.encode(noise(400), depth)
    for wav in (torch.zeros(1, 2, 400), torch.full((1, 1, 400), math.nan), torch.zeros(1, 1, 0)):
        with pytest.raises(ValueError, match="wav"):
            codec.encode(wav)
        with pytest.raises(ValueError, match="wav"):
            codec.encode_latents(wav)
    tokens = codec.encode(noise(400))
    for foreign in (
        replace(tokens, sample_rate=44100),
        replace(tokens, frame_rates=tuple(rate * 1.1 for rate in tokens.frame_rates)),
        replace(tokens, codebook_sizes=(8192,) * 4),
    ):
        with pytest.raises(ValueError, match="are not of snac_32khz"):
            codec.decode(foreign)
    with pytest.raises(ValueError, match="32 frames don't cover 12289 samples"):
        codec.decode(replace(tokens, num_samples=12289))
    first, *rest = tokens.streams
    with pytest.raises(ValueError, match=r"\[4, 8, 16, 31\] codes span different times"):
        codec.decode(replace(tokens, codes=(first, *rest[:2], rest[2][:, :-1])))
    half = tuple(stream[:, : stream.shape[1] // 2] for stream in tokens.streams)
    with pytest.raises(ValueError, match="16 frames are no multiple of a window of 32"):
        codec.decode(replace(tokens, codes=half))
    with pytest.raises(ValueError, match=r"z must be float \[B, 256, T\]"):
        codec.decode_latents(torch.zeros(1, 64, 3))
