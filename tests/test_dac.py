"""DAC: what the package gives, to the bit, in time with the input."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralcodec.core import chunks
from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.loading import load
from neuralcodec.core.registry import REGISTRY
from neuralcodec.weights import WeightsMissing
from neuralcodec.wrappers import dac as wrapper
from neuralcodec.wrappers.dac import Dac, random_network

DAC: Any = vars(wrapper)["DAC"]  # the package's, imported where torchaudio is seen to

MODELS = ("44khz", "24khz", "16khz")
RATES = {"44khz": [2, 4, 8, 8], "24khz": [2, 4, 5, 8], "16khz": [2, 4, 5, 8]}
SAMPLE_RATES = {"44khz": 44100, "24khz": 24000, "16khz": 16000}

pytestmark = pytest.mark.filterwarnings(  # the package's weight norm, where tests build it
    "ignore::FutureWarning:torch.nn.utils.weight_norm"
)


def tiny(model: str) -> Any:
    """Make a network of the package with the rates of `model` and few channels."""
    torch.manual_seed(3)
    network = DAC(
        encoder_dim=8,
        encoder_rates=RATES[model],
        decoder_dim=64,
        decoder_rates=RATES[model][::-1],
        n_codebooks=3,
        sample_rate=SAMPLE_RATES[model],
    )
    for name, parameter in network.encoder.named_parameters():
        if name.endswith("weight_g"):
            parameter.data.mul_(2**0.5)  # latents of the size of codebook entries
    return network.eval()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a tiny checkpoint of a model, as the package saves it."""
    folder = tmp_path_factory.mktemp("dac")

    def path(model: str) -> Path:
        file = folder / f"{model}.pth"
        if not file.exists():
            tiny(model).save(str(file), package=False)
        return file

    return path


def noise(length: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, 1, length, generator=generator) * 0.2


@torch.no_grad()
def by_package(network: Any, wav: Tensor, depth: int | None = None) -> tuple[Tensor, Tensor]:
    """Give the package's own codes and audio, as long as it makes it."""
    padded = network.preprocess(wav, network.sample_rate)
    codes = network.encode(padded, depth)[1]
    return codes, network.decode(network.quantizer.from_codes(codes)[0])


def assert_like_package(codec: Dac, expected: tuple[Tensor, Tensor], wav: Tensor) -> None:
    codes, audio = expected
    tokens = codec.encode(wav, codes.shape[1])
    assert isinstance(tokens.codes, Tensor)
    assert torch.equal(codes, tokens.codes)
    lead = -codec.delay_samples
    back = codec.decode(tokens)
    assert back.shape == wav.shape
    assert not back[..., :lead].any()
    got = back[..., lead:]
    torch.testing.assert_close(got, audio[..., : got.shape[-1]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_gives_what_the_package_gives(
    model: str, checkpoint: Callable[[str], Path]
) -> None:
    network = DAC.load(str(checkpoint(model))).eval()
    codec = Dac(model, checkpoint(model))
    assert isinstance(codec, Codec)
    assert isinstance(codec, LatentCodec)
    assert codec.is_chunkable
    for length in (1, codec.hop_length, codec.hop_length + 1, 12 * codec.hop_length - 1):
        for depth in (1, 2, None):
            wav = noise(length, batch=2)
            assert_like_package(codec, by_package(network, wav, depth), wav)
    assert not any(hasattr(module, "weight_g") for module in codec.network.modules())


@pytest.mark.parametrize("model", MODELS)
def test_the_published_configuration_gives_what_the_package_gives(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network(model).eval()
    wav = noise(SAMPLE_RATES[model] // 10)
    expected = by_package(network, wav)
    monkeypatch.setattr(wrapper, "random_network", lambda model: network)  # it takes a second
    codec = load(f"dac_{model}", weights="random")
    assert isinstance(codec, Dac)
    assert_like_package(codec, expected, wav)
    facts = REGISTRY[f"dac_{model}"].facts
    assert facts is not None
    assert codec.name == f"dac_{model}"
    for name in ("sample_rate", "channels", "frame_rates", "codebook_sizes", "is_causal", "dim"):
        assert getattr(codec, name) == getattr(facts, name)
    assert codec.num_codebooks == len(facts.codebook_sizes)
    tokens = codec.encode(wav)
    frames = len(tokens.streams[0][0])
    assert all(len(torch.unique(stream)) > frames / 2 for stream in tokens.streams)
    assert 0.01 < float(codec.decode(tokens).std()) < 0.5


def test_networks_are_always_built_the_same() -> None:
    state = torch.random.get_rng_state()
    first = dict(wrapper._build({"encoder_dim": 8, "decoder_dim": 64}).named_parameters())
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(1)
    again = wrapper._build({"encoder_dim": 8, "decoder_dim": 64}).named_parameters()
    assert all(torch.equal(first[name], parameter) for name, parameter in again)


def test_decoding_a_prefix_is_decoding_a_shallow_code(checkpoint: Callable[[str], Path]) -> None:
    codec = Dac("24khz", checkpoint("24khz"))
    wav = noise(5000)
    tokens = codec.encode(wav)
    for depth in (1, 2):
        shallow = codec.encode(wav, depth)
        assert all(map(torch.equal, tokens.prefix(depth).streams, shallow.streams))
        assert tokens.prefix(depth).bitrate_kbps == shallow.bitrate_kbps == 0.75 * depth
        assert torch.equal(codec.decode(tokens.prefix(depth)), codec.decode(shallow))
    assert not torch.equal(codec.decode(tokens.prefix(1)), codec.decode(tokens))


def test_a_batch_is_its_clips(checkpoint: Callable[[str], Path]) -> None:
    codec = Dac("16khz", checkpoint("16khz"))
    wav = noise(3000, batch=3)
    tokens = codec.encode(wav)
    for index in range(3):
        alone = codec.encode(wav[index : index + 1])
        assert torch.equal(torch.stack(alone.streams), torch.stack(tokens.streams)[:, [index]])
        torch.testing.assert_close(codec.decode(alone)[0], codec.decode(tokens)[index])


@torch.no_grad()
def test_latents_lie_on_both_sides_of_the_quantizer(checkpoint: Callable[[str], Path]) -> None:
    codec = Dac("24khz", checkpoint("24khz"))
    wav = noise(2000, batch=2)
    z = codec.encode_latents(wav)
    assert z.shape == (2, codec.dim, 7)
    tokens = codec.encode(wav)
    quantized, codes, *_ = codec.network.quantizer(z)
    assert torch.equal(codes, torch.stack(tokens.streams, 1))
    torch.testing.assert_close(codec.decode_latents(quantized, 2000), codec.decode(tokens))
    assert codec.decode_latents(z).shape == (2, 1, 7 * 320)
    assert torch.equal(codec.decode_latents(z)[..., :2000], codec.decode_latents(z, 2000))


def test_what_comes_back_can_be_trained_with(checkpoint: Callable[[str], Path]) -> None:
    codec = Dac("16khz", checkpoint("16khz"))
    tokens = codec.encode(noise(1000))
    z = codec.encode_latents(noise(1000))
    for tensor in (z, codec.decode(tokens), codec.decode_latents(z), *tokens.streams):
        assert not tensor.is_inference()


# Alignment


def floor_padded(network: Any) -> Any:
    """Let a decoder take floor(stride / 2) samples off both ends in place of ceil."""
    for layer in network.decoder.modules():
        if isinstance(layer, nn.ConvTranspose1d):
            layer.padding = (layer.stride[0] // 2,)
    return network


@pytest.mark.parametrize(("model", "lead"), [("44khz", 0), ("24khz", 8), ("16khz", 8)])
@torch.no_grad()
def test_the_lead_is_what_rounding_the_padding_up_cuts_off(
    model: str, lead: int, checkpoint: Callable[[str], Path]
) -> None:
    codec = Dac(model, checkpoint(model))
    assert codec.delay_samples == -lead
    z = torch.randn(1, codec.dim, 60, generator=torch.Generator().manual_seed(0))
    wav, short = codec.decode_latents(z), codec.network.decode(z)
    assert short.shape[-1] == 60 * codec.hop_length - lead
    once = floor_padded(codec.network).decode(z)
    assert once.shape[-1] == 60 * codec.hop_length + lead
    inner = slice(20 * codec.hop_length, 40 * codec.hop_length)  # where no padding reaches
    torch.testing.assert_close(wav[..., inner], once[..., inner], atol=1e-6, rtol=0)
    for shift in (-8, -1, 1, 8):
        moved = once.roll(shift, -1)[..., inner]
        assert float((moved - wav[..., inner]).abs().max()) > 1e-3


# Limited sight


def seen_from(z: Tensor, wav: Tensor) -> tuple[int, int]:
    """Give the first and last element of `wav [..., T]` that a scalar `z` depends on."""
    (gradient,) = torch.autograd.grad(z, wav)
    places = gradient.flatten(0, -2).any(0).nonzero()
    return int(places[0]), int(places[-1])


@pytest.mark.parametrize("model", MODELS)
def test_contexts_are_exactly_what_is_seen(model: str, checkpoint: Callable[[str], Path]) -> None:
    codec = Dac(model, checkpoint(model))
    hop, frame = codec.hop_length, 12
    network = codec.network.double()
    wav = noise(25 * hop).double().requires_grad_()
    first, last = seen_from(network.encoder(wav)[..., frame].sum(), wav)
    assert max(frame - first // hop, last // hop - frame) == codec.encode_context
    z = torch.randn(1, codec.dim, 25, generator=torch.Generator().manual_seed(0)).double()
    z.requires_grad_()
    lead = -codec.delay_samples
    audio = network.decoder(z)[..., frame * hop - lead : (frame + 1) * hop - lead]
    first, last = seen_from(audio.square().sum(), z)
    assert max(frame - first, last - frame) == codec.decode_context


@pytest.mark.parametrize("model", MODELS)
def test_chunks_change_nothing(model: str, checkpoint: Callable[[str], Path]) -> None:
    codec = Dac(model, checkpoint(model))
    wav = noise(61 * codec.hop_length + 17)
    seconds = 10 * codec.hop_length / codec.sample_rate
    whole = codec.encode(wav)
    pieces = chunks.encode(codec, wav, seconds=seconds)
    assert all(map(torch.equal, pieces.streams, whole.streams))
    back, expected = chunks.decode(codec, whole, seconds=seconds), codec.decode(whole)
    torch.testing.assert_close(back, expected, atol=1e-6, rtol=0)
    z = codec.encode_latents(wav)
    inner = chunks.encode_latents(codec, wav, seconds=seconds)
    torch.testing.assert_close(inner, z, atol=1e-5, rtol=0)
    back = chunks.decode_latents(codec, z, wav.shape[-1], seconds=seconds)
    torch.testing.assert_close(back, codec.decode_latents(z, wav.shape[-1]), atol=1e-6, rtol=0)
    codec.decode_context -= 6  # the last frames seen weigh little in a random network
    assert float((chunks.decode(codec, whole, seconds=seconds) - expected).abs().max()) > 1e-5


# Our quantizer


@torch.no_grad()
def test_a_beam_comes_nearer(checkpoint: Callable[[str], Path]) -> None:
    greedy = Dac("16khz", checkpoint("16khz"))
    beam = Dac("16khz", checkpoint("16khz"), beam_width=8)
    wav = noise(320 * 200)
    z = greedy.encode_latents(wav)

    def error(codec: Dac, depth: int) -> float:
        codes = torch.stack(codec.encode(wav, depth).streams, 1)
        quantized = codec.network.quantizer.from_codes(codes)[0]
        return float((quantized - z).square().mean())

    for depth in (1, 2, 3):
        assert error(beam, depth) < error(greedy, depth)
    assert beam.decode(beam.encode(wav)).shape == wav.shape
    ours, theirs = greedy.rvq.encode(z), greedy.encode(wav).codes
    assert isinstance(theirs, Tensor)
    assert float((ours == theirs).float().mean()) > 0.99
    assert greedy.rvq.frame_rate == 50.0
    assert not greedy.rvq.codebooks.is_inference()


# Bad input


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('executed')",)


def test_bad_checkpoints_are_refused(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    path = tmp_path / "bad.pth"
    good = torch.load(checkpoint("24khz"), weights_only=True)

    def refused(content: object, match: str) -> None:
        torch.save(content, path)
        with pytest.raises(ValueError, match=match):
            Dac("24khz", path)

    refused({"state_dict": {}, "metadata": Harmful()}, "bad.pth is no checkpoint of tensors")
    refused({"state_dict": {}}, "must hold state_dict and metadata.kwargs")
    refused([1, 2], "must hold state_dict and metadata.kwargs")
    refused(good | {"state_dict": [1]}, "state_dict and metadata.kwargs of .* must be dicts")
    refused(good | {"metadata": {"kwargs": None}}, "must be dicts")
    kwargs = good["metadata"]["kwargs"]
    for key, value, match in (
        ("sample_rate", 16000, "sample rate of .* is 16000, not 24000"),
        ("encoder_rates", [2, 4, 8, 8], "of the encoder of .* is 512, not 320"),
        ("decoder_rates", [8, 8, 4, 2], "of the decoder of .* is 512, not 320"),
        ("n_codebooks", 4, "don't fit its settings"),
        ("encoder_rates", "2458", r"bad\.pth holds settings that make no DAC: "),
        ("codebook_size", None, r"bad\.pth holds settings that make no DAC: "),
    ):
        refused(good | {"metadata": {"kwargs": kwargs | {key: value}}}, match)
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(ValueError, match=r"bad\.pth is no checkpoint"):
        Dac("24khz", path)
    with pytest.raises(WeightsMissing, match=r"nowhere\.pth"):
        Dac("24khz", tmp_path / "nowhere.pth")


def test_bad_settings_are_refused(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="unknown DAC model '48khz'; did you mean"):
        Dac("48khz", "random")
    with pytest.raises(ValueError, match="beam_width must be at least 1, got 0"):
        Dac("16khz", checkpoint("16khz"), beam_width=0)


def test_bad_input_is_refused(checkpoint: Callable[[str], Path]) -> None:
    codec = Dac("16khz", checkpoint("16khz"))
    for depth in (0, 4, True, 2.0):
        with pytest.raises(ValueError, match=rf"num_codebooks must be 1\.\.3, got {depth}"):
            codec.encode(noise(400), depth)  # type: ignore[arg-type]  # that is the point
    for wav in (torch.zeros(1, 2, 400), torch.full((1, 1, 400), math.nan), torch.zeros(1, 1, 0)):
        with pytest.raises(ValueError, match="wav"):
            codec.encode(wav)
        with pytest.raises(ValueError, match="wav"):
            codec.encode_latents(wav)
    tokens = codec.encode(noise(400))
    for foreign in (
        replace(tokens, sample_rate=8000),
        replace(tokens, frame_rates=(25.0,) * 3),
        replace(tokens, codebook_sizes=(2048,) * 3),
    ):
        with pytest.raises(ValueError, match="are not of dac_16khz"):
            codec.decode(foreign)
    with pytest.raises(ValueError, match="2 frames don't cover 641 samples"):
        codec.decode(replace(tokens, num_samples=641))
    with pytest.raises(ValueError, match=r"z must be float \[B, 128, T\]"):
        codec.decode_latents(torch.zeros(1, 64, 3))
