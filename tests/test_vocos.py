"""Vocos: the same audio as the package's own, from EnCodec's tokens and from log-mel frames."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from torch import Generator, Tensor

from neuralcodec.core import chunks, torchaudio_guard
from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.registry import REGISTRY
from neuralcodec.core.tokens import Tokens
from neuralcodec.weights import CHECKPOINTS, WeightsMissing
from neuralcodec.wrappers.encodec.model import random_model
from neuralcodec.wrappers.vocos.codec import VocosEncodec, VocosMel

torchaudio_guard.load()

from encodec.model import EncodecModel  # noqa: E402  # it imports torchaudio
from vocos.pretrained import Vocos  # noqa: E402

pytestmark = pytest.mark.usefixtures("slim_encodec")

MEL = """
feature_extractor:
  class_path: vocos.feature_extractors.MelSpectrogramFeatures
  init_args: {sample_rate: 24000, n_fft: 1024, hop_length: 256, n_mels: 100, padding: center}
backbone:
  class_path: vocos.models.VocosBackbone
  init_args: {input_channels: 100, dim: 32, intermediate_dim: 48, num_layers: 8}
head:
  class_path: vocos.heads.ISTFTHead
  init_args: {dim: 32, n_fft: 1024, hop_length: 256, padding: center}
"""
ENCODEC = """
feature_extractor:
  class_path: vocos.feature_extractors.EncodecFeatures
  init_args: {encodec_model: encodec_24khz, bandwidths: [1.5, 3.0, 6.0, 12.0]}
backbone:
  class_path: vocos.models.VocosBackbone
  init_args: {input_channels: 128, dim: 32, intermediate_dim: 48, num_layers: 8,
              adanorm_num_embeddings: 4}  # one a bandwidth
head:
  class_path: vocos.heads.ISTFTHead
  init_args: {dim: 32, n_fft: 1280, hop_length: 320, padding: same}
"""
ENDS = [1, 255, 256, 511, 512, 513, 1024, 5000]


def _save_config(folder: Path, name: str, text: str) -> Path:
    path = folder / CHECKPOINTS[f"{name}_config"].path
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def _randomize(model: Any) -> Any:
    """Give all weights a size at which every layer matters."""
    rng = Generator().manual_seed(5)
    for parameter in [*model.backbone.parameters(), *model.head.parameters()]:
        scale = 0.3 if parameter.ndim > 1 else 0.05
        parameter.data += scale * torch.randn(parameter.shape, generator=rng)
    return model.eval()


@pytest.fixture(scope="module")
def own_mel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The package's model of log-mel frames, and the folder with its two files."""
    config = _save_config(tmp_path_factory.mktemp("weights"), "vocos_mel_24khz", MEL)
    model = _randomize(Vocos.from_hparams(str(config)))
    torch.save(model.state_dict(), config.parent / "pytorch_model.bin")
    return model, config.parent


@pytest.fixture(scope="module")
def own_encodec(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path]:
    """The package's model of EnCodec's tokens, its folder, and the checkpoint of EnCodec."""
    root = tmp_path_factory.mktemp("weights")
    config = _save_config(root, "vocos_encodec_24khz", ENCODEC)
    encodec = random_model("encodec_24khz").eval()
    torch.save(encodec.state_dict(), root / "encodec.th")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncodecModel, "encodec_model_24khz", lambda pretrained: encodec)
        model = _randomize(Vocos.from_hparams(str(config)))
    state = model.state_dict()
    published = {key: t for key, t in state.items() if ".encodec." not in key}
    torch.save(published, config.parent / "pytorch_model.bin")
    return model, config.parent, root / "encodec.th"


@pytest.fixture(scope="module")
def mel(own_mel: tuple[Any, Path]) -> VocosMel:
    return VocosMel(own_mel[1])


@pytest.fixture(scope="module")
def encodec(own_encodec: tuple[Any, Path, Path]) -> VocosEncodec:
    _, folder, encodec = own_encodec
    return VocosEncodec(folder, encodec_weights=encodec, bandwidth_kbps=6.0)


@pytest.fixture
def wav(rng: Generator) -> Tensor:
    """Noise of changing loudness at 24 kHz, `[2, 1, 24123]`."""
    loudness = torch.rand(2, 1, 51, generator=rng).repeat_interleave(473, dim=-1)
    return torch.randn(2, 1, 24123, generator=rng) * loudness / 5


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=1e-5)


def test_facts_are_the_codecs(mel: VocosMel, encodec: VocosEncodec) -> None:
    for built in (mel, encodec):
        facts = REGISTRY[built.name].facts
        assert facts is not None
        for attribute in ("sample_rate", "channels", "is_causal", "dim"):
            assert getattr(built, attribute) == getattr(facts, attribute), attribute
        assert built.frame_rate == facts.frame_rates[0]
        assert isinstance(built, LatentCodec)
    facts = REGISTRY[encodec.name].facts
    assert facts is not None
    assert encodec.frame_rates == facts.frame_rates
    assert encodec.codebook_sizes == facts.codebook_sizes
    assert encodec.depths == facts.depths
    # EnCodec sees without limit: it takes streams, not chunks.
    assert isinstance(encodec, Codec)
    assert encodec.is_streaming
    assert not encodec.is_chunkable
    assert mel.is_chunkable
    assert not mel.num_codebooks


# Log-mel frames


@pytest.mark.parametrize("length", ENDS)
def test_mel_gives_the_packages_frames_and_audio(
    length: int, mel: VocosMel, own_mel: tuple[Any, Path], wav: Tensor
) -> None:
    part = wav[..., :length]
    with torch.no_grad():
        z = mel.encode_latents(part)
        estimate = mel.decode_latents(z, length)
    assert z.shape == (2, 100, length // 256 + 1)
    assert estimate.shape == part.shape
    rest = estimate[..., length // 256 * 256 :]  # behind the centre of the last frame
    assert not rest.numel() or float(rest.abs().max()) > 1e-3
    assert mel.decode_latents(z).shape == (2, 1, z.shape[-1] * 256)
    if length > 512:  # the package fails on less, and stops at the centre of the last frame
        with torch.inference_mode():
            assert torch.equal(z, own_mel[0].feature_extractor(part[:, 0]))
        own = own_mel[0](part[:, 0])
        assert own.shape[-1] == length // 256 * 256
        assert _close(estimate[:, 0, : own.shape[-1]], own)
        assert float(own.std()) > 1e-2


def test_mel_frames_see_as_far_as_they_say(mel: VocosMel, wav: Tensor) -> None:
    assert (mel.encode_context, mel.decode_context) == (2, 29)
    later, earlier = wav.clone(), wav.clone()
    later[..., 40 * 256 :] += 0.1
    earlier[..., : 41 * 256] += 0.1
    z, after, before = (mel.encode_latents(each) for each in (wav, later, earlier))
    assert torch.equal(after[..., : 40 - 2], z[..., : 40 - 2])
    assert torch.equal(before[..., 40 + 3 :], z[..., 40 + 3 :])
    assert not torch.equal(before[..., 40 + 2], z[..., 40 + 2])
    changed = z.clone()
    changed[..., 40] += 5
    moved = (mel.decode_latents(changed) != mel.decode_latents(z)).any(dim=(0, 1))
    frames = moved.reshape(-1, 256).any(dim=1).nonzero().flatten()
    assert 40 - 29 <= int(frames.min()) <= 40 - 27
    assert 40 + 27 <= int(frames.max()) <= 40 + 29


@pytest.mark.parametrize("length", [10240, 24123])
def test_mel_in_chunks(length: int, mel: VocosMel, wav: Tensor) -> None:
    z = mel.encode_latents(wav[..., :length])
    assert torch.equal(chunks.encode_latents(mel, wav[..., :length], seconds=0.1), z)
    estimate = chunks.decode_latents(mel, z, length, seconds=0.1)
    assert _close(estimate, mel.decode_latents(z, length))


# EnCodec's tokens


@pytest.mark.parametrize(("bandwidth_id", "depth"), [*enumerate((2, 4, 8, 16))])
def test_encodec_decodes_as_the_package(
    bandwidth_id: int,
    depth: int,
    encodec: VocosEncodec,
    own_encodec: tuple[Any, Path, Path],
    wav: Tensor,
) -> None:
    model = own_encodec[0]
    tokens = encodec.encode(wav, depth)
    codes = torch.stack(tokens.streams)  # [K, B, T], as the package has it
    chosen = torch.tensor([bandwidth_id])
    with torch.inference_mode():
        model.feature_extractor.encodec.bandwidth = 0.75 * depth
        assert torch.equal(codes, model.feature_extractor.get_encodec_codes(wav[:, 0]))
    assert tokens.bitrate_kbps == 0.75 * depth
    estimate = encodec.decode(tokens)
    assert estimate.shape == wav.shape
    own = model.decode(model.codes_to_features(codes), bandwidth_id=chosen)
    assert _close(estimate[:, 0], own[:, : wav.shape[-1]])
    assert _close(estimate[:, 0], model(wav[:, 0], bandwidth_id=chosen)[:, : wav.shape[-1]])
    assert float(estimate.std()) > 1e-2
    other = model.decode(model.codes_to_features(codes), bandwidth_id=(chosen + 1) % 4)
    assert not _close(estimate[:, 0], other[:, : wav.shape[-1]])


@pytest.mark.parametrize("length", [1, 319, 320, 321, 5000])
def test_encodec_gives_the_length_back(length: int, encodec: VocosEncodec, wav: Tensor) -> None:
    tokens = encodec.encode(wav[..., :length])
    assert tokens.num_codebooks == 16
    assert encodec.decode(tokens).shape == (2, 1, length)
    assert encodec.decode(tokens.prefix(2)).shape == (2, 1, length)


def test_encodec_refuses_other_depths(encodec: VocosEncodec, wav: Tensor) -> None:
    tokens = encodec.encode(wav[..., :4000])
    tries: list[Callable[[], object]] = [
        lambda: encodec.encode(wav, 3),
        lambda: encodec.stream(3),
        lambda: encodec.decode(tokens.prefix(3)),
        lambda: encodec.decode_stream().push(torch.stack(tokens.prefix(3).streams, dim=1)),
    ]
    for attempt in tries:
        with pytest.raises(ValueError, match=r"one of \[2, 4, 8, 16\], got 3"):
            attempt()
    short = Tokens(
        tokens.prefix(2).codes, (75.0,) * 2, (1024,) * 2, sample_rate=24000, num_samples=9999
    )
    with pytest.raises(ValueError, match="13 frames don't cover 9999 samples"):
        encodec.decode(short)


def test_encodec_latents_are_decoded_as_of_a_bandwidth(
    encodec: VocosEncodec, own_encodec: tuple[Any, Path, Path], wav: Tensor
) -> None:
    z = encodec.encode_latents(wav)
    assert torch.equal(z, encodec.encodec.encode_latents(wav))
    own = own_encodec[0].decode(z, bandwidth_id=torch.tensor([2]))  # 6 kbit/s
    assert _close(encodec.decode_latents(z)[:, 0], own)
    assert encodec.decode_latents(z, 24123).shape == wav.shape
    quantized = encodec.encodec.rvq.decode(torch.stack(encodec.encode(wav, 8).streams, dim=1))
    estimate = encodec.decode_latents(quantized, 24123)
    assert _close(estimate, encodec.decode(encodec.encode(wav, 8)))
    _, folder, weights = own_encodec
    with pytest.raises(ValueError, match=r"one of \[1.5, 3.0, 6.0, 12.0\], got 24"):
        VocosEncodec(folder, encodec_weights=weights, bandwidth_kbps=24)


def test_encodec_frames_see_as_far_as_they_say(encodec: VocosEncodec, wav: Tensor) -> None:
    assert encodec.decode_context == 29
    z = encodec.encode_latents(wav)
    changed = z.clone()
    changed[..., 36] += 5
    moved = (encodec.decode_latents(changed) != encodec.decode_latents(z)).any(dim=(0, 1))
    frames = moved.reshape(-1, 320).any(dim=1).nonzero().flatten()
    assert 36 - 29 <= int(frames.min()) <= 36 - 27
    assert 36 + 27 <= int(frames.max()) <= 36 + 29


@pytest.mark.parametrize("size", [1, 29, 30, 70, 200])
def test_encodec_in_pieces(size: int, encodec: VocosEncodec, wav: Tensor) -> None:
    tokens = encodec.encode(wav, 4)
    codes = torch.stack(tokens.streams, dim=1)
    stream = encodec.decode_stream()
    given = [stream.push(codes[..., at : at + size]) for at in range(0, codes.shape[-1], size)]
    joined = torch.cat([*given, stream.finish()], dim=-1)
    assert joined.shape == (2, 1, codes.shape[-1] * 320)
    assert _close(joined[..., : wav.shape[-1]], encodec.decode(tokens))
    heard = sum(piece.shape[-1] for piece in given)
    assert heard == (codes.shape[-1] - encodec.decode_context) * 320
    encoder = encodec.stream(4)
    again = torch.cat([encoder.push(wav), encoder.finish()], dim=-1)
    assert float((again != codes).float().mean()) < 2e-3


# Building


@pytest.mark.usefixtures("published_encodec")
def test_published_sizes_with_random_weights(wav: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EncodecModel, "_get_pretrained", None)  # nothing is downloaded
    state = torch.random.get_rng_state()
    mel, encodec = VocosMel("random"), VocosEncodec("random")
    assert torch.equal(torch.random.get_rng_state(), state)
    counts = [sum(p.numel() for p in each.network.parameters()) / 1e6 for each in (mel, encodec)]
    assert counts == pytest.approx([13.5, 7.9 + 2.1 + 7.4], abs=0.2)  # Vocos, books, encoder
    tokens = encodec.encode(wav[..., :8000])
    outs = [encodec.decode(tokens.prefix(depth)) for depth in encodec.depths]
    with torch.no_grad():
        outs.append(mel.decode_latents(mel.encode_latents(wav[..., :8000]), 8000))
    for estimate in outs:
        assert not estimate.is_inference()
        assert 1e-3 < float(estimate.std()) < 1


def test_files_side_by_side_will_do(
    own_mel: tuple[Any, Path], mel: VocosMel, wav: Tensor, tmp_path: Path
) -> None:
    z = mel.encode_latents(wav)
    beside = VocosMel(own_mel[1] / "pytorch_model.bin")
    assert torch.equal(beside.decode_latents(z), mel.decode_latents(z))
    with pytest.raises(WeightsMissing, match="vocos_mel_24khz_config"):
        VocosMel(tmp_path)
    (tmp_path / "config.yaml").write_text(ENCODEC, encoding="utf-8")
    torch.save(own_mel[0].state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="not of vocos_encodec_24khz"):
        VocosEncodec(tmp_path, encodec_weights="random")


def test_encodec_inside_the_checkpoint_is_left_out(
    own_encodec: tuple[Any, Path, Path], encodec: VocosEncodec, wav: Tensor, tmp_path: Path
) -> None:
    model, _, weights = own_encodec
    (tmp_path / "config.yaml").write_text(ENCODEC, encoding="utf-8")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    whole = VocosEncodec(tmp_path, encodec_weights=weights)
    tokens = encodec.encode(wav)
    assert torch.equal(whole.decode(tokens), encodec.decode(tokens))


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("backbone", "class_path", "os.system", "vocos.models.VocosBackbone"),
        ("head", "class_path", "vocos.heads.IMDCTCosHead", "vocos.heads.ISTFTHead"),
        ("feature_extractor", "class_path", "a.B", "MelSpectrogramFeatures"),
        ("feature_extractor", "padding", "same", "center"),
        ("backbone", "dim", -3, "greater than 0"),
        ("backbone", "shell", "rm", "Extra inputs"),
        ("backbone", "input_channels", 80, "input_channels must be 100 .* got 80"),
        ("head", "hop_length", 300, "hop_length must be 256 .* got 300"),
        ("head", "dim", 31, "head.dim must be 32 .* got 31"),
    ],
)
def test_bad_configurations(
    part: str, key: str, value: object, message: str, own_mel: tuple[Any, Path], tmp_path: Path
) -> None:
    config = yaml.safe_load(MEL)
    target = config[part] if key == "class_path" else config[part]["init_args"]
    target[key] = value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    torch.save(own_mel[0].state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=rf"(?s)config\.yaml is no configuration.*{message}"):
        VocosMel(tmp_path)


def test_bandwidths_are_whole_codebooks(tmp_path: Path) -> None:
    text = ENCODEC.replace("1.5, 3.0", "1.5, 3.1")
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"(?s)is no configuration.*multiple of 0\.75"):
        VocosEncodec(tmp_path, encodec_weights="random")


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "!!python/name:os.system"])
def test_texts_that_are_no_configuration(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml is no configuration"):
        VocosMel(tmp_path)


def test_bad_shapes(mel: VocosMel, encodec: VocosEncodec, wav: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[B, 1, T\]"):
        mel.encode_latents(wav[:, 0])
    with pytest.raises(ValueError, match=r"\[B, 100, T\]"):
        mel.decode_latents(torch.zeros(1, 80, 4))
    with pytest.raises(ValueError, match=r"\[B, 128, T\]"):
        encodec.decode_latents(torch.zeros(1, 128, 0))
    tokens = encodec.encode(wav[..., :4000], 2)
    foreign = Tokens(tokens.codes, (50.0, 50.0), (1024, 1024), 24000, 4000)
    with pytest.raises(ValueError, match="not of vocos_encodec_24khz"):
        encodec.decode(foreign)
