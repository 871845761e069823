import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from neuralcodec import weights
from neuralcodec.core import chunks, torchaudio_guard
from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.registry import REGISTRY
from neuralcodec.core.tokens import Tokens
from neuralcodec.wrappers.transformers.codec import HuggingFace, XCodec
from neuralcodec.wrappers.transformers.mimi import Mimi

torchaudio_guard.load()

import transformers as hf  # noqa: E402  # it imports torchaudio
from transformers.utils import logging as their_logging  # noqa: E402  # likewise

DEPTH, SIZE = 4, 32  # codebooks and entries of the tiny models


def tiny_encodec(**changed: Any) -> Any:
    config = hf.EncodecConfig(
        **changed,
        num_filters=2,
        upsampling_ratios=[4, 2],
        hidden_size=16,
        codebook_size=SIZE,
        num_lstm_layers=1,
        target_bandwidths=[15.0, 30.0, 45.0, 60.0],  # kbit/s: 3000 frames/s of 5 bits each
    )
    return hf.EncodecModel(config)


def tiny_dac(strides: list[int], sample_rate: int) -> Any:
    config = hf.DacConfig(
        encoder_hidden_size=4,
        downsampling_ratios=strides,
        decoder_hidden_size=16,
        n_codebooks=DEPTH,
        codebook_size=SIZE,
        codebook_dim=4,
        sampling_rate=sample_rate,
    )
    return hf.DacModel(config)


def tiny_mimi(**changed: Any) -> Any:
    settings: dict[str, Any] = {
        "hidden_size": 16,
        "num_filters": 2,
        "upsampling_ratios": [4, 2],
        "codebook_size": SIZE,
        "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8,
        "num_quantizers": DEPTH,
        "num_hidden_layers": 2,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "upsample_groups": 16,
        "sliding_window": 6,
        "layer_scale_initial_scale": 0.5,  # else attention is hardly heard
    }
    return hf.MimiModel(hf.MimiConfig(**(settings | changed)))


def tiny_xcodec(kernel: int) -> Any:
    config = hf.XcodecConfig(
        acoustic_model_config=hf.DacConfig(
            encoder_hidden_size=4,
            downsampling_ratios=[5, 2],
            decoder_hidden_size=8,
        ),
        semantic_model_config=hf.HubertConfig(
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=8,
            conv_dim=[8, 8],
            conv_stride=[5, 2],
            conv_kernel=[kernel, 2],
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        ),
        target_bandwidths=[8.0, 16.0, 24.0, 32.0],  # kbit/s: 1600 frames/s of 5 bits each
        codebook_size=SIZE,
    )
    return hf.XcodecModel(config)


def padded(wav: Tensor, hop: int) -> Tensor:
    return functional.pad(wav, (0, -wav.shape[-1] % hop))


def by_bitrate(model: Any, wav: Tensor, depth: int) -> Tensor:
    codes: Tensor = model.encode(
        wav, bandwidth=model.config.target_bandwidths[depth - 1]
    ).audio_codes
    return codes


@dataclass(frozen=True)
class Family:
    """A tiny model; how the package encodes and decodes with it, and what it should be."""

    build: Callable[[], Any]
    encode: Callable[[Any, Tensor, int], Tensor]
    decode: Callable[[Any, Tensor], Tensor]
    hop: int
    sample_rate: int
    dim: int
    lead: int = 0
    causal: bool = False


def dac_family(strides: list[int], sample_rate: int, lead: int) -> Family:
    hop = strides[0] * strides[1]
    return Family(
        lambda: tiny_dac(strides, sample_rate),
        lambda model, wav, k: model.encode(padded(wav, hop), n_quantizers=k).audio_codes,
        lambda model, codes: model.decode(audio_codes=codes).audio_values[:, None],
        hop,
        sample_rate,
        dim=16,
        lead=lead,
    )


def mimi_family(**changed: Any) -> Family:
    return Family(
        lambda: tiny_mimi(**changed),
        lambda model, wav, k: model.encode(wav, num_quantizers=k).audio_codes,
        lambda model, codes: model.decode(codes).audio_values,
        16,
        24000,
        dim=16,
        causal=True,
    )


def xcodec_family(kernel: int) -> Family:
    return Family(
        lambda: tiny_xcodec(kernel),
        lambda model, wav, k: by_bitrate(model, padded(wav, 10), k),
        lambda model, codes: model.decode(codes).audio_values,
        10,
        16000,
        dim=24,
    )


FAMILIES = {
    "encodec": Family(
        tiny_encodec,
        lambda model, wav, k: by_bitrate(model, wav, k)[0],
        lambda model, codes: model.decode(codes[None], [None]).audio_values,
        8,
        24000,
        dim=16,
        causal=True,
    ),
    "dac": dac_family([4, 2], 44100, lead=0),
    "dac-odd": dac_family([2, 5], 16000, lead=2),
    "mimi": mimi_family(),
    "mimi-semantic": mimi_family(num_semantic_quantizers=2),
    "xcodec": xcodec_family(10),
    "xcodec-longer": xcodec_family(5),  # one branch gives a frame more: the other one is padded
}


def enliven(model: Any) -> None:
    """Give convolutions the power to keep a signal's, and codebooks entries to choose from."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
                drawn = torch.randn(module.weight.shape) / module.weight[0].numel() ** 0.5
                if parametrize.is_parametrized(module):
                    module.weight = drawn  # which weight norm takes apart
                else:
                    module.weight.copy_(drawn)
        for name, tensor in model.state_dict().items():
            if name.endswith((".embed", ".embed_sum", ".codebook.weight")):
                tensor.normal_(std=0.3)
            if name.endswith(".cluster_usage"):
                tensor.uniform_(0.5, 2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each of the tiny models as the package saves it."""
    made = {}
    with torch.random.fork_rng(devices=[]):
        for seed, (name, family) in enumerate(FAMILIES.items()):
            torch.manual_seed(seed)
            model = family.build()
            enliven(model)
            made[name] = tmp_path_factory.mktemp(name)
            model.save_pretrained(made[name])
    return made


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def codec(name: str, folders: dict[str, Path]) -> HuggingFace:
    return HuggingFace(str(folders[name]))


@pytest.fixture
def mimi(folders: dict[str, Path]) -> Mimi:
    return Mimi(folders["mimi"])


def theirs(folder: Path) -> Any:
    """The model as the package loads it, with weight norm where it has some."""
    return hf.AutoModel.from_pretrained(folder)


def noise(rng: Generator, samples: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 1, samples, generator=rng) * 0.3


def array(tokens: Tokens) -> Tensor:
    assert isinstance(tokens.codes, Tensor)
    return tokens.codes


def varied(tokens: Tokens) -> list[int]:
    """Count the entries that each codebook is used with."""
    return [len(set(stream.flatten().tolist())) for stream in tokens.streams]


def test_codes_and_audio_are_the_packages(
    name: str, codec: HuggingFace, folders: dict[str, Path], rng: Generator
) -> None:
    family, model = FAMILIES[name], theirs(folders[name])
    hop = family.hop
    for samples in (1, hop - 1, 30 * hop, 500 * hop + 3):
        wav = noise(rng, samples)
        tokens = codec.encode(wav)
        for depth in (1, 2, DEPTH):
            if name == "mimi-semantic" and depth == 1:
                continue  # which the package refuses
            with torch.no_grad():
                codes = family.encode(model, wav, depth)
                audio = family.decode(model, codes)
            part = codec.encode(wav, depth)
            assert torch.equal(array(part), codes)
            assert torch.equal(array(tokens.prefix(depth)), codes)
            expected = functional.pad(audio, (family.lead, 0))[..., :samples]
            decoded = codec.decode(part)
            assert decoded.shape == wav.shape
            torch.testing.assert_close(decoded, expected, rtol=0, atol=1e-5)
            if samples > hop:
                assert decoded.std() > 0.01  # something that could differ
    assert min(varied(tokens)) >= SIZE / 8


def test_a_part_of_the_semantic_codebooks_is_a_prefix(
    folders: dict[str, Path], rng: Generator
) -> None:
    codec = HuggingFace(str(folders["mimi-semantic"]))  # 2 of 4, which the package does not split
    wav = noise(rng, 500)
    first = codec.encode(wav, 1)
    assert torch.equal(array(first), array(codec.encode(wav))[:, :1])
    assert codec.decode(first).shape == wav.shape


def test_what_it_says_of_itself_is_true(name: str, codec: HuggingFace, rng: Generator) -> None:
    family = FAMILIES[name]
    assert isinstance(codec, Codec)
    assert isinstance(codec, LatentCodec)
    assert not codec.is_streaming
    assert codec.is_chunkable == name.startswith("dac")
    assert (codec.name, codec.channels, codec.num_codebooks) == ("huggingface", 1, DEPTH)
    assert (codec.sample_rate, codec.hop_length) == (family.sample_rate, family.hop)
    assert codec.frame_rates == (family.sample_rate / family.hop,) * DEPTH  # 5512.5 Hz in one
    assert codec.frame_rate == codec.frame_rates[0]
    assert codec.codebook_sizes == (SIZE,) * DEPTH
    assert (codec.dim, codec.delay_samples) == (family.dim, -family.lead)
    assert codec.is_causal == family.causal
    tokens = codec.encode(noise(rng, 20 * family.hop))
    assert tokens.frame_rates == codec.frame_rates
    assert array(tokens).shape == (2, DEPTH, 21 if name == "xcodec-longer" else 20)


def test_causal_ones_hear_nothing_ahead(folders: dict[str, Path], rng: Generator) -> None:
    codec = HuggingFace(str(folders["mimi"]))
    wav = noise(rng, 30 * 16)
    other = wav.clone()
    other[..., 20 * 16 :] = noise(rng, 10 * 16)
    z, changed = codec.encode_latents(wav).detach(), codec.encode_latents(other).detach()
    assert torch.equal(z[..., :20], changed[..., :20])
    assert not torch.isclose(z[..., 20], changed[..., 20]).any(dim=-1).all()


@pytest.mark.parametrize("norm_type", ["weight_norm", "time_group_norm"])
@pytest.mark.parametrize("convolutions", [True, False])
def test_encodec_is_causal_if_and_only_if_it_hears_nothing_ahead(
    tmp_path: Path, rng: Generator, norm_type: str, convolutions: bool
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tiny_encodec(norm_type=norm_type, use_causal_conv=convolutions)
        enliven(model)
    model.save_pretrained(tmp_path)
    codec = HuggingFace(str(tmp_path))
    wav = noise(rng, 30 * 8)
    other = wav.clone()
    other[..., 20 * 8 :] = noise(rng, 10 * 8)
    z, changed = codec.encode_latents(wav).detach(), codec.encode_latents(other).detach()
    assert codec.is_causal == torch.allclose(z[..., :20], changed[..., :20], rtol=0, atol=1e-6)


def test_latents_lie_on_both_sides_of_the_quantizer(
    name: str, codec: HuggingFace, rng: Generator
) -> None:
    wav = noise(rng, 300 * codec.hop_length)
    tokens, z = codec.encode(wav), codec.encode_latents(wav).detach()
    assert z.shape == (2, codec.dim, array(tokens).shape[-1])
    ours = codec.rvq.encode(z)
    assert (ours == array(tokens)).float().mean() > 0.99  # near ties may fall otherwise
    decoded = codec.decode_latents(codec.rvq.decode(array(tokens)), wav.shape[-1])
    torch.testing.assert_close(decoded, codec.decode(tokens), rtol=0, atol=1e-4)
    assert codec.decode_latents(z).shape[-1] == z.shape[-1] * codec.hop_length
    assert codec.decode_latents(z[..., :2], 5).shape == (2, 1, 5)


def test_results_can_be_worked_on(codec: HuggingFace, rng: Generator) -> None:
    tokens = codec.encode(noise(rng, 100))
    array(tokens)[0] = 0
    z = codec.encode_latents(noise(rng, 100)).detach()
    factor = torch.ones(1, requires_grad=True)
    torch.autograd.grad((z * factor).sum(), factor)  # inference tensors refuse this
    codec.decode(tokens)[0] = 0


@torch.no_grad()
def test_a_beam_comes_nearer(name: str, folders: dict[str, Path], rng: Generator) -> None:
    wav = noise(rng, 2000)
    errors = []
    for width in (1, 8):
        codec = HuggingFace(str(folders[name]), beam_width=width)
        error = codec.rvq.decode(array(codec.encode(wav))) - codec.encode_latents(wav).detach()
        errors.append(float(error.square().mean()))
    # Mimi's parts are searched in their own spaces, apart, and not for the sum that is decoded.
    assert errors[1] < errors[0] or (name.startswith("mimi") and errors[1] != errors[0])


def test_the_network_can_be_trained_on(name: str, codec: HuggingFace, rng: Generator) -> None:
    wav = noise(rng, 20 * codec.hop_length)
    codec.decode(codec.encode(wav))  # keeps nothing that autograd refuses
    codes = FAMILIES[name].encode(codec.network, wav, DEPTH)
    loss = FAMILIES[name].decode(codec.network, codes).square().sum()
    parameters = list(codec.network.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", ["dac", "dac-odd"])
def test_contexts_are_all_that_a_frame_depends_on(codec: HuggingFace, rng: Generator) -> None:
    hop, frames = codec.hop_length, 201
    wav = noise(rng, frames * hop, batch=1)
    other = wav.clone()
    other[..., 100 * hop : 101 * hop] += 1
    z = codec.encode_latents(wav).detach()
    moved = (codec.encode_latents(other).detach() - z).abs().amax(
        dim=(0, 1)
    ).nonzero().flatten() - 100
    assert int(moved.abs().max()) == codec.encode_context
    # Far off, a change in float32 is lost in rounding.
    decoder, z = codec.network.decoder.double(), z.double()
    changed = z.clone()
    changed[..., 100] += 1
    with torch.no_grad():
        difference = (decoder(changed) - decoder(z)).abs()
    difference = functional.pad(difference, (-codec.delay_samples, 0))
    moved = difference.reshape(frames, hop).amax(dim=1).nonzero().flatten() - 100
    decoder.float()
    assert int(moved.abs().max()) == codec.decode_context
    tokens = codec.encode(wav)
    seconds = 50 / codec.frame_rate
    assert torch.equal(array(chunks.encode(codec, wav, seconds=seconds)), array(tokens))
    pieces = chunks.decode(codec, tokens, seconds=seconds)
    torch.testing.assert_close(pieces, codec.decode(tokens), rtol=0, atol=1e-5)


def streamed(codec: Mimi, wav: Tensor, sizes: list[int], depth: int | None = None) -> Tensor:
    stream = codec.stream(depth)
    pieces, start = [], 0
    for size in sizes:
        pieces.append(stream.push(wav[..., start : start + size]))
        start += size
        assert sum(piece.shape[-1] for piece in pieces) == min(start, wav.shape[-1]) // 16
    assert start >= wav.shape[-1]
    return torch.cat([*pieces, stream.finish()], dim=-1)


@pytest.mark.parametrize(
    ("samples", "size"),
    [(5, 1), (16, 7), (17, 16), (160, 1), (16 * 60 + 7, 7), (16 * 60 + 13, 40), (16 * 60, 2000)],
)
def test_an_encode_stream_gives_what_encode_does(
    mimi: Mimi, rng: Generator, samples: int, size: int
) -> None:
    # 60 frames are 120 steps of the transformers, whose windows have 6.
    wav = noise(rng, samples)
    sizes = [size, 0] * -(-samples // size)
    expected = array(mimi.encode(wav))
    assert torch.equal(streamed(mimi, wav, sizes), expected)
    if size == 40:
        assert torch.equal(streamed(mimi, wav, sizes, 2), expected[:, :2])


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("depth", [1, DEPTH])
def test_a_decode_stream_gives_what_decode_does(
    mimi: Mimi, rng: Generator, size: int, depth: int
) -> None:
    tokens = mimi.encode(noise(rng, 16 * 60), depth)
    stream = mimi.decode_stream()
    pieces = []
    for codes in torch.split(array(tokens), size, dim=-1):
        pieces += [stream.push(codes), stream.push(codes[..., :0])]
        assert pieces[-2].shape[-1] == codes.shape[-1] * 16
    wav = torch.cat([*pieces, stream.finish()], dim=-1)
    torch.testing.assert_close(wav, mimi.decode(tokens), rtol=0, atol=1e-5)


def test_streams_go_on_in_long_audio(mimi: Mimi, rng: Generator) -> None:
    wav = noise(rng, 16 * 300 + 3)
    tokens = mimi.encode(wav)
    found = chunks.encode(mimi, wav, seconds=0.05)
    assert torch.equal(array(found), array(tokens))
    decoded = chunks.decode(mimi, tokens, seconds=0.05)
    torch.testing.assert_close(decoded, mimi.decode(tokens), rtol=0, atol=1e-5)


def test_bad_pieces_of_a_stream_are_named(mimi: Mimi) -> None:
    with pytest.raises(ValueError, match=r"num_codebooks must be 1\.\.4, got 5"):
        mimi.stream(5)
    with pytest.raises(ValueError, match=r"wav must be \[B, 1, T\]"):
        mimi.stream().push(torch.zeros(1, 2, 0))
    with pytest.raises(ValueError, match=r"codes must be \[B, 1\.\.4, frames\], got \[1, 4\]"):
        mimi.decode_stream().push(torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"0\.\.31, got 0\.\.32"):
        mimi.decode_stream().push(torch.tensor([[[0, 32]]]))


def test_mimi_streams_by_its_own_name_only(mimi: Mimi) -> None:
    assert mimi.is_streaming
    assert not mimi.is_chunkable
    assert mimi.name == "mimi"


def test_a_checkpoint_is_found_by_its_published_path(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / weights.CHECKPOINTS["xcodec_config"].path
    checkpoint.parent.parent.mkdir(parents=True)
    checkpoint.parent.symlink_to(folders["xcodec"])
    monkeypatch.setenv("NEURALCODEC_WEIGHTS", str(tmp_path))
    assert XCodec().codebook_sizes == XCodec(folders["xcodec"]).codebook_sizes == (SIZE,) * DEPTH
    found = HuggingFace(str(checkpoint.parent.relative_to(tmp_path)))
    assert found.sample_rate == 16000
    with pytest.raises(weights.WeightsMissing, match="no file"):
        Mimi(tmp_path)


def test_loading_leaves_no_trace(
    folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    level, state = their_logging.get_verbosity(), torch.get_rng_state()
    bars: list[Any] = []
    hook = their_logging.set_tqdm_hook(lambda bar, args, options: bars.append(args))
    try:
        HuggingFace(str(folders["mimi"]))
        assert their_logging.set_tqdm_hook(hook) is not None
    finally:
        their_logging.set_tqdm_hook(hook)
    assert bars == []
    assert capfd.readouterr() == ("", "")
    assert their_logging.get_verbosity() == level != logging.CRITICAL
    assert torch.equal(torch.get_rng_state(), state)


def test_old_names_of_weight_norm_are_read(
    folders: dict[str, Path], tmp_path: Path, rng: Generator
) -> None:
    state = load_file(folders["encodec"] / "model.safetensors")
    renamed = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in state.items()
    }
    assert renamed.keys() != state.keys()
    save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((folders["encodec"] / "config.json").read_bytes())
    wav = noise(rng, 800)
    codes = [array(HuggingFace(str(path)).encode(wav)) for path in (tmp_path, folders["encodec"])]
    assert torch.equal(*codes)


Change = Callable[[dict[str, Any], dict[str, Tensor]], None]


@pytest.fixture
def changed(folders: dict[str, Path], tmp_path: Path) -> Callable[[str, Change], Path]:
    """Copy a model after a change of its configuration or its weights."""

    def make(name: str, change: Change) -> Path:
        config = json.loads((folders[name] / "config.json").read_bytes())
        state = load_file(folders[name] / "model.safetensors")
        change(config, state)
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "mimi",
            lambda c, s: c.update(model_type="mini"),
            "model_type 'mini'; did you mean 'mimi'",
        ),
        ("mimi", lambda c, s: c.pop("model_type"), "is no configuration"),
        ("mimi", lambda c, s: c.update(hidden_size="16"), "can't be loaded: .*hidden_size"),
        ("mimi", lambda c, s: c.update(use_causal_conv=False), "use_causal_conv False"),
        ("mimi", lambda c, s: s.popitem(), "1 tensors are missing or of another shape"),
        (
            "dac",
            lambda c, s: c.update(codebook_size=16),
            "4 tensors .*codebook.weight",
        ),
        ("encodec", lambda c, s: c.update(normalize=True), "'encodec_48khz' does that"),
        ("encodec", lambda c, s: c.update(chunk_length_s=1.0), "'encodec_48khz' does that"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    changed: Callable[[str, Change], Path], name: str, change: Change, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        HuggingFace(str(changed(name, change)))


def test_only_safetensors_are_read(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        HuggingFace(str(tmp_path))
    (tmp_path / "config.json").write_bytes((folders["mimi"] / "config.json").read_bytes())
    state = load_file(folders["mimi"] / "model.safetensors")
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        HuggingFace(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"no tensors at all")
    with pytest.raises(ValueError, match="can't be loaded"):
        HuggingFace(str(tmp_path))


def test_a_model_of_another_kind_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="model_type 'xcodec'; Known: mimi"):
        Mimi(folders["xcodec"])


def test_bad_input_is_named(codec: HuggingFace, rng: Generator) -> None:
    wav = noise(rng, 100)
    for depth in (0, 5):
        with pytest.raises(ValueError, match=f"num_codebooks must be 1..4, got {depth}"):
            codec.encode(wav, depth)
    with pytest.raises(ValueError, match=r"wav must be \[B, 1, T\]"):
        codec.encode(wav.expand(2, 2, 100))
    with pytest.raises(ValueError, match="z must be float"):
        codec.decode_latents(torch.zeros(1, codec.dim + 1, 3))
    tokens = codec.encode(wav)
    with pytest.raises(ValueError, match="are not of huggingface"):
        codec.decode(replace(tokens, sample_rate=8000))
    with pytest.raises(ValueError, match="are not of huggingface"):
        codec.decode(replace(tokens, codebook_sizes=(64,) * DEPTH))
    with pytest.raises(ValueError, match="frames don't cover 1000 samples"):
        codec.decode(replace(tokens, num_samples=1000))


def test_a_beam_must_have_a_width(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="beam_width must be at least 1, got 0"):
        Mimi(folders["mimi"], beam_width=0)


@pytest.mark.parametrize(
    ("make", "length"), [(Mimi, 24000), pytest.param(XCodec, 4800, marks=pytest.mark.slow)]
)
def test_published_architectures_run_with_random_weights(
    make: type[Mimi] | type[XCodec], length: int, rng: Generator
) -> None:
    state = torch.get_rng_state()
    codec = make("random")
    assert torch.equal(torch.get_rng_state(), state)
    facts = REGISTRY[codec.name].facts
    assert facts is not None
    assert all(getattr(codec, key) == getattr(facts, key) for key in ("dim", "frame_rates"))
    assert (codec.sample_rate, codec.channels) == (facts.sample_rate, facts.channels)
    assert (codec.codebook_sizes, codec.is_causal) == (facts.codebook_sizes, facts.is_causal)
    wav = noise(rng, length, batch=1) * torch.linspace(0, 2, length)
    tokens = codec.encode(wav)
    frames = array(tokens).shape[-1]
    assert min(varied(tokens)) > frames / 3
    decoded = codec.decode(tokens)
    with torch.no_grad():
        assert torch.equal(array(tokens), codec.network.encode(wav).audio_codes)
        expected = codec.network.decode(array(tokens)).audio_values[..., :length]
    torch.testing.assert_close(decoded, expected, rtol=0, atol=1e-5)
    assert 0.01 < decoded.std() < 1
