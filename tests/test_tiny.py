"""The tiny codec's network and the codec around it, with random weights and small sizes."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from neuralcodec.core import chunks
from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.loading import find
from neuralcodec.quantize import ResidualVectorQuantizer
from neuralcodec.tiny import checkpoint
from neuralcodec.tiny.codec import Tiny
from neuralcodec.tiny.model import SAMPLE_RATE, TinyConfig, TinyModel
from neuralcodec.tiny.spectra import HOP, analyse, compress, expand, synthesise

SMALL = TinyConfig(
    num_codebooks=4,
    codebook_size=32,
    dim=8,
    width=24,
    encoder_depth=2,
    decoder_depth=2,
    fine_width=16,
)
SIZES = [
    replace(SMALL, frame_rate=rate, causal=causal)
    for rate in (12.5, 25.0, 50.0, 100.0)
    for causal in (False, True)
] + [replace(SMALL, frame_rate=25.0, trunk_rate=trunk) for trunk in (50.0, 100.0)]


def ids(config: TinyConfig) -> str:
    trunk = "" if config.trunk_rate is None else f"_of_{config.trunk_rate:g}"
    return f"{config.frame_rate:g}hz{trunk}{'_causal' * config.causal}"


def build(config: TinyConfig, seed: int = 0) -> TinyModel:
    """A model with random weights that are not small, so that whatever it sees matters."""
    torch.manual_seed(seed)
    model = TinyModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("scale"):
                parameter.fill_(1.0)
    books = torch.randn(config.num_codebooks, config.codebook_size, config.dim) * 0.3
    model.rvq = ResidualVectorQuantizer.from_codebooks(books, frame_rate=config.frame_rate)
    return model.eval()


@pytest.mark.parametrize("lead", [HOP // 2, HOP])
def test_spectra_give_the_audio_back(lead: int, rng: Generator) -> None:
    wav = torch.randn(2, 7 * HOP, generator=rng)
    spectra = analyse(wav, lead=lead)
    assert spectra.shape == (2, 7, 161)
    # the whole overlap on one side leaves the last hop to a frame that isn't there
    end = 7 * HOP if lead < HOP else 6 * HOP
    assert torch.allclose(synthesise(spectra, lead=lead)[:, :end], wav[:, :end], atol=1e-5)


def test_spectra_keep_energy(rng: Generator) -> None:
    wav = torch.randn(1, 400 * HOP, generator=rng)
    spectra = analyse(wav, lead=HOP // 2)
    both = 2 * spectra.abs().square().sum() - spectra[..., [0, -1]].abs().square().sum()
    assert float(both / wav.square().sum()) == pytest.approx(1, abs=0.01)


def test_compression_is_undone_and_keeps_the_phase(rng: Generator) -> None:
    spectra = torch.complex(*torch.randn(2, 3, 5, 161, generator=rng).mul(3))
    small = compress(spectra)
    assert torch.allclose(small.abs(), spectra.abs().pow(0.3), rtol=1e-4)
    assert torch.allclose(small.angle(), spectra.angle(), atol=1e-5)
    assert torch.allclose(expand(small.real, small.imag), spectra, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("config", SIZES, ids=ids)
def test_latents_and_audio_have_the_length_that_was_promised(config: TinyConfig) -> None:
    codec = Tiny.of(build(config))
    assert isinstance(codec, Codec)
    assert isinstance(codec, LatentCodec)
    assert codec.is_chunkable
    for length in (1, config.hop_length, config.hop_length + 1, 5000):
        wav = torch.linspace(-0.5, 0.5, length)[None, None]
        frames = math.ceil(length / config.hop_length)
        z = codec.encode_latents(wav)
        assert z.shape == (1, config.dim, frames)
        assert codec.decode_latents(z).shape == (1, 1, frames * config.hop_length)
        tokens = codec.encode(wav, 2)
        assert tokens.tokens_per_second == pytest.approx(2 * config.frame_rate)
        assert tokens.bitrate_kbps == pytest.approx(2 * 5 * config.frame_rate / 1000)
        assert codec.decode(tokens).shape == wav.shape


def changed_frames(model: TinyModel, wav: Tensor, place: int) -> Tensor:
    """Latents that change when one sample does."""
    other = wav.clone()
    other[:, place] += 0.5
    with torch.inference_mode():
        difference = (model.encoder(wav) - model.encoder(other)).abs().amax(dim=1)[0]
    changed: Tensor = (difference > 1e-6).nonzero()[:, 0]
    return changed


def changed_samples(model: TinyModel, z: Tensor, place: int) -> Tensor:
    other = z.clone()
    other[..., place] += 0.5
    with torch.inference_mode():
        difference = (model.decoder(z) - model.decoder(other)).abs()[0]
    changed: Tensor = (difference > 1e-7).nonzero()[:, 0]
    return changed


@pytest.mark.parametrize("config", SIZES, ids=ids)
def test_networks_see_no_more_than_their_contexts(config: TinyConfig, rng: Generator) -> None:
    model, hop = build(config), config.hop_length
    frames = 2 * max(config.encode_context, config.decode_context) + 5
    middle = frames // 2
    wav = torch.randn(1, frames * hop, generator=rng) * 0.1
    z = torch.randn(1, config.dim, frames, generator=rng)

    seen = changed_frames(model, wav, middle * hop + hop // 2)
    assert len(seen) > 0
    assert seen.min() >= middle - (0 if config.causal else config.encode_context)
    assert seen.max() <= middle + config.encode_context

    heard = changed_samples(model, z, middle)
    assert heard.max() < (middle + config.decode_context + 1) * hop
    first = middle - 1 if config.causal else middle - config.decode_context
    assert heard.min() >= first * hop


@pytest.mark.parametrize("config", SIZES, ids=ids)
def test_chunks_give_the_tokens_and_the_audio_of_the_whole(
    config: TinyConfig, rng: Generator
) -> None:
    codec = Tiny.of(build(config))
    wav = torch.randn(1, 1, 40 * config.hop_length + 77, generator=rng) * 0.1
    whole = codec.encode(wav)
    seconds = 12 / config.frame_rate
    parts = chunks.encode(codec, wav, seconds=seconds)
    assert torch.equal(torch.stack(parts.streams), torch.stack(whole.streams))
    joined = chunks.decode(codec, whole, seconds=seconds)
    assert torch.allclose(joined, codec.decode(whole), atol=1e-5)


@pytest.mark.parametrize("config", SIZES, ids=ids)
def test_no_sample_waits_longer_than_the_delay(config: TinyConfig, rng: Generator) -> None:
    model, hop = build(config), config.hop_length
    frames = 2 * (config.encode_context + config.decode_context) + 5
    wav = torch.randn(1, frames * hop, generator=rng) * 0.1
    place = frames // 2 * hop + hop - 1
    other = wav.clone()
    other[:, place:] += torch.randn(1, frames * hop - place, generator=rng)
    with torch.inference_mode():
        heard = (model.decoder(model.encoder(wav)) - model.decoder(model.encoder(other))).abs()[0]
    first = int((heard > 1e-5).nonzero()[0, 0])
    wait = (place - first) / SAMPLE_RATE
    assert (0 if config.causal else config.delay / 2) < wait < config.delay


def test_causal_delay_is_less() -> None:
    both = [replace(SMALL, causal=causal).delay for causal in (True, False)]
    assert float(both[0]) == 0.04  # a latent and the next one
    assert both[1] > both[0]


def test_shipped_sizes_are_small() -> None:
    for rate in (12.5, 25.0, 50.0, 100.0):
        model = TinyModel(TinyConfig(frame_rate=rate))
        assert sum(parameter.numel() for parameter in model.parameters()) < 6_000_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_rate": 75.0}, "frame_rate must divide 100 Hz, .* got 75"),
        ({"frame_rate": 0.0}, "frame_rate must divide 100 Hz, .* got 0"),
        ({"trunk_rate": 75.0}, "trunk_rate must divide 100 Hz .* the frame rate, 50 Hz, got 75"),
        ({"trunk_rate": 25.0}, "be a multiple of the frame rate, 50 Hz, got 25"),
        ({"kernel_size": 4}, "kernel_size must be odd, got 4"),
        ({"width": 0}, "width must be at least 1, got 0"),
    ],
)
def test_bad_sizes_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TinyConfig(**change)  # type: ignore[arg-type]  # that is the point


def saved(path: Path, config: TinyConfig = SMALL) -> TinyModel:
    model = build(config)
    checkpoint.save_model(path, config, model.state_dict(), model.rvq.codebooks, {"seed": 7})
    return model


def assert_kept(weight: torch.Tensor, original: torch.Tensor) -> None:
    """Check that a weight is what its file can hold: 8 bits a value of a matrix, or a half."""
    if weight.ndim == 2:
        step = original.abs().amax(dim=1, keepdim=True) / 127
        assert ((weight - original).abs() <= 0.51 * step).all()
    else:
        assert torch.equal(weight, original.half().float())


def test_model_comes_back_from_its_file(tmp_path: Path, rng: Generator) -> None:
    model = saved(tmp_path / "m.safetensors")
    codec = Tiny(weights=tmp_path / "m.safetensors")
    assert codec.facts["seed"] == 7
    assert codec.name == "tiny_50hz"
    assert codec.codebook_sizes == (32,) * 4
    for name, parameter in codec.network.named_parameters():
        assert_kept(parameter, dict(model.named_parameters())[name])
    assert torch.equal(codec.network.rvq.codebooks, model.rvq.codebooks.half().float())
    wav = torch.randn(1, 1, 4000, generator=rng) * 0.1
    assert codec.decode(codec.encode(wav)).shape == wav.shape


def test_a_beam_codes_with_a_smaller_error(tmp_path: Path, rng: Generator) -> None:
    saved(tmp_path / "m.safetensors")
    wav = torch.randn(1, 1, 16000, generator=rng) * 0.1
    errors = []
    for width in (1, 16):
        codec = Tiny(weights=tmp_path / "m.safetensors", beam_width=width)
        z = codec.encode_latents(wav).detach()
        codes = torch.stack(codec.encode(wav).streams, dim=1)
        errors.append(float((codec.network.rvq.decode(codes) - z).square().mean()))
    assert errors[1] < errors[0]


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        Tiny(weights=tmp_path / "none.safetensors")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no model at all")
    with pytest.raises(ValueError, match="is no checkpoint of a tiny codec"):
        Tiny(weights=bad)
    model = build(SMALL)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("decoder.end")}
    checkpoint.save_model(bad, SMALL, state, model.rvq.codebooks, {})
    with pytest.raises(
        ValueError, match=r"is no model of its configuration: without .*decoder\.end"
    ):
        Tiny(weights=bad)
    with pytest.raises(ValueError, match="holds values that half precision can't: not written"):
        checkpoint.save_model(bad, SMALL, {"encoder.x": torch.tensor([1e6])}, torch.zeros(1), {})
    with pytest.raises(ValueError, match=r"model must be one of .*, got '33hz'"):
        Tiny("33hz")
    saved(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="beam_width must be at least 1, got 0"):
        Tiny(weights=tmp_path / "m.safetensors", beam_width=0)


def test_a_model_begins_with_what_fits_of_another(tmp_path: Path) -> None:
    source = saved(tmp_path / "m.safetensors")
    other = build(replace(SMALL, frame_rate=25.0), seed=5)
    left = checkpoint.begin_with(other, tmp_path / "m.safetensors")
    assert {name.split(".")[1] for name in left} == {"join", "direct", "split"}
    ours, theirs = dict(other.named_parameters()), dict(source.named_parameters())
    assert_kept(ours["decoder.end.weight"], theirs["decoder.end.weight"])


def test_a_model_of_the_same_sizes_begins_as_a_copy(tmp_path: Path, rng: Generator) -> None:
    saved(tmp_path / "m.safetensors")
    copy = build(SMALL, seed=5)
    assert checkpoint.begin_with(copy, tmp_path / "m.safetensors") == []
    source, _ = checkpoint.load_model(tmp_path / "m.safetensors")
    wav = 0.1 * torch.randn(1, 1, 8000, generator=rng)
    ours, theirs = (Tiny.of(model).encode(wav) for model in (copy, source))
    assert torch.equal(torch.stack(ours.streams), torch.stack(theirs.streams))
    assert torch.equal(Tiny.of(copy).decode(ours), Tiny.of(source).decode(theirs))


def test_stacked_latents_begin_as_those_of_another_model_side_by_side(
    tmp_path: Path, rng: Generator
) -> None:
    saved(tmp_path / "m.safetensors", replace(SMALL, frame_rate=100.0))
    source, _ = checkpoint.load_model(tmp_path / "m.safetensors")
    stacked = build(replace(SMALL, frame_rate=25.0, trunk_rate=100.0, dim=32), seed=5)
    assert checkpoint.begin_with(stacked, tmp_path / "m.safetensors") == []
    wav = 0.1 * torch.randn(1, 16000, generator=rng)
    with torch.inference_mode():
        z, latents = stacked.eval().encoder(wav), source.encoder(wav)
        assert torch.allclose(z.mT.reshape(1, -1, 8), latents.mT, atol=1e-5)
        assert torch.allclose(stacked.decoder(z), source.decoder(latents), atol=1e-5)


def test_the_registry_has_them() -> None:
    assert find("tiny_50hz") is Tiny
