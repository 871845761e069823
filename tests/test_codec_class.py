"""What the base class promises for every codec, on codecs with shipped or random weights."""

import copy
import pickle
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import neuralcodec
from neuralcodec import Codec, LatentCodec, Tokens, load
from neuralcodec.core.digests import digest_of
from neuralcodec.core.networks import seeded
from neuralcodec.core.registry import REGISTRY
from neuralcodec.wrappers.dac import Dac
from neuralcodec.wrappers.transformers.codec import TransformersCodec, XCodec
from neuralcodec.wrappers.transformers.mimi import Mimi
from neuralcodec.wrappers.transformers.models import finish
from test_dac import tiny as tiny_dac
from test_huggingface import tiny_mimi, tiny_xcodec

LATENT = ["mdct", "mel", "vocos_mel_24khz"]
TORCH = [
    *("tiny_50hz", "mdct+rvq", "encodec_24khz", "encodec_48khz", "dac_16khz"),
    *("vocos_encodec_24khz", "snac_24khz", "mimi", "xcodec"),
]
CPU = ["pcm", "opus", "mp3", "aac", "lyra_v2"]
PLAIN = {"mdct", "mel", "tiny_50hz", "pcm", "opus", "mp3", "aac"}


def tiny_one(name: str) -> Codec:
    """A model of the package's own classes, in a size that tests can afford."""
    if name == "dac_16khz":
        with TemporaryDirectory() as folder, warnings.catch_warnings():
            # The package was written for the weight norm that torch replaced since.
            warnings.filterwarnings("ignore", "", FutureWarning, r"torch\.nn\.utils\.weight_norm")
            tiny_dac("16khz").save(f"{folder}/dac.pth", package=False)
            return Dac("16khz", Path(folder) / "dac.pth")
    kind, network = {"mimi": (Mimi, tiny_mimi()), "xcodec": (XCodec, tiny_xcodec(10))}[name]
    codec = kind.__new__(kind)
    with seeded():
        for parameter in network.parameters():
            parameter.data += 0.01 * torch.randn(parameter.shape)
    TransformersCodec.__init__(codec, name, finish(network), 1)
    return codec


@cache
def built(name: str) -> Codec:
    """The codec `name` with random weights where it has none of its own, made once."""
    if name in ("dac_16khz", "mimi", "xcodec"):
        return tiny_one(name)
    if name == "mdct+rvq":
        return load(name, codebook_size=16, num_codebooks=2)
    if name == "lyra_v2":
        folder = Path(__file__).parents[2] / "shared" / "models" / "lyra"
        if not folder.is_dir():
            pytest.skip(f"Lyra's weights are not at {folder}")
        return load(name, weights=str(folder))
    return load(name) if name in PLAIN else load(name, weights="random")


@pytest.fixture(params=[*TORCH, *CPU])
def codec(request: pytest.FixtureRequest) -> Codec:
    return built(request.param)


@pytest.fixture(params=TORCH)
def torch_codec(request: pytest.FixtureRequest) -> Codec:
    return built(request.param)


@pytest.fixture(params=[*LATENT, *(name for name in TORCH if name != "encodec_48khz")])
def latents(request: pytest.FixtureRequest) -> LatentCodec:
    found = built(request.param)
    assert isinstance(found, LatentCodec)
    return found


def audio(codec: Codec, seconds: float = 0.1, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(round(1000 * seconds))
    shape = (batch, codec.channels, round(seconds * codec.sample_rate))
    return torch.rand(shape, generator=generator) * 0.4 - 0.2


def depth(codec: Codec) -> int:
    return codec.depths[min(2, len(codec.depths) - 1)]


def results(codec: Codec, wav: Tensor) -> list[Tensor]:
    tokens = codec.encode(wav, depth(codec))
    return [*tokens.streams, codec.decode(tokens)]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def test_it_is_a_module_that_declares_what_the_program_asks(codec: Codec) -> None:
    assert isinstance(codec, nn.Module)
    assert codec.num_codebooks == len(codec.codebook_sizes) > 0
    assert max(codec.depths) == codec.num_codebooks
    assert len(codec.frame_rates) in (0, codec.num_codebooks)
    assert codec.nested
    assert codec.device == torch.device("cpu")
    learned = codec.name in REGISTRY and bool(REGISTRY[codec.name].facts)
    assert (len(codec.digest) == 64) == (learned or codec.name.endswith("+rvq"))
    assert codec.encode(audio(codec)).codebook_sizes == codec.codebook_sizes


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_around_it_changes_nothing(codec: Codec, half: torch.dtype) -> None:
    wav = audio(codec)
    plain = results(codec, wav)
    with torch.autocast("cpu", dtype=half):
        assert equal(results(codec, wav), plain)
    assert plain[-1].dtype == torch.float32


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_latents(latents: LatentCodec, half: torch.dtype) -> None:
    wav = audio(latents)
    with torch.no_grad():
        z = latents.encode_latents(wav)
        back = latents.decode_latents(z, wav.shape[-1])
        with torch.autocast("cpu", dtype=half):
            assert torch.equal(latents.encode_latents(wav), z)
            assert torch.equal(latents.decode_latents(z, wav.shape[-1]), back)


def test_autocast_changes_no_stream() -> None:
    codec = built("encodec_24khz")
    wav = audio(codec, 0.3)

    def streamed() -> Tensor:
        stream = codec.stream(2)
        return torch.cat(
            [*map(stream.push, torch.split(wav, 1000, dim=-1)), stream.finish()], dim=-1
        )

    plain = streamed()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(streamed(), plain)


def test_copies_give_the_same(codec: Codec) -> None:
    wav = audio(codec)
    before = results(codec, wav)  # what a call leaves behind must not stand in the way
    assert equal(results(copy.deepcopy(codec), wav), before)
    assert equal(results(pickle.loads(pickle.dumps(codec)), wav), before)


class Encoded(torch.utils.data.Dataset[Tensor]):
    """Clips that the worker of a data loader encodes."""

    def __init__(self, codecs: list[Codec]) -> None:
        self.codecs = codecs

    def __len__(self) -> int:
        return len(self.codecs)

    def __getitem__(self, index: int) -> Tensor:
        codec = self.codecs[index]
        return codec.encode(audio(codec), 1).streams[0]


def test_a_spawned_worker_encodes() -> None:
    names = ["mimi", "snac_24khz", "xcodec", "tiny_50hz", "opus"]
    codecs = [built(name) for name in names]
    loader = DataLoader(
        Encoded(codecs), batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    for codes, codec in zip(loader, codecs, strict=True):
        assert torch.equal(codes, codec.encode(audio(codec), 1).streams[0])


def test_on_meta_shapes_and_devices_flow_through(torch_codec: Codec) -> None:
    wav = audio(torch_codec, batch=2)
    real = results(torch_codec, wav)
    moved = copy.deepcopy(torch_codec).to("meta")
    assert moved.device.type == "meta"
    traced = results(moved, wav.to("meta"))
    assert all(each.is_meta for each in traced)
    assert [each.shape for each in traced] == [each.shape for each in real]
    assert all(not each.is_meta for each in torch_codec.state_dict().values())


def test_latents_flow_through_meta(latents: LatentCodec) -> None:
    wav = audio(latents)
    moved = copy.deepcopy(latents).to("meta")
    z = moved.encode_latents(wav.to("meta"))
    assert z.is_meta
    assert z.shape == latents.encode_latents(wav).shape
    assert moved.decode_latents(z, wav.shape[-1]).shape == wav.shape


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*TORCH, *CPU])
def test_codes_come_back_on_the_callers_device(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    codec = built(name)
    wav = audio(codec)
    there = copy.deepcopy(codec)
    if "cpu" not in codec.device_types:
        there = there.to("cuda")
    for place in ("cuda", "cpu"):
        tokens = there.encode(wav.to(place), depth(codec))
        assert tokens.device.type == there.decode(tokens).device.type == place
        near = codec.encode(wav, depth(codec))
        pairs = zip(tokens.streams, near.streams, strict=True)
        apart = sum(int((a.cpu() != b).sum()) for a, b in pairs)
        assert apart <= 0.02 * sum(stream.numel() for stream in near.streams)


@pytest.mark.parametrize("name", ["pcm", "opus", "mp3", "aac", "lyra_v2"])
def test_what_runs_on_the_cpu_alone_says_so(name: str) -> None:
    codec = built(name)
    assert codec.to("cpu") is codec
    for device in ("meta", torch.device("cuda", 0)):
        with pytest.raises(ValueError, match=f"{name} runs on cpu only, not on {device}"):
            codec.to(device)
    inside = nn.ModuleList([codec]).to("meta")  # a model around it may move
    assert torch.equal(codec.encode(audio(codec)).streams[0], results(codec, audio(codec))[0][:])
    assert len(inside) == 1


def test_device_is_a_setting_of_load() -> None:
    assert load("mdct", device="meta").device.type == "meta"
    assert load("opus", device="cpu").device.type == "cpu"
    with pytest.raises(ValueError, match="opus runs on cpu only, not on meta"):
        load("opus", device="meta")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", torch.device("xpu")])
def test_a_device_that_is_not_there_is_named(device: str | torch.device) -> None:
    with pytest.raises(ValueError, match=f"device '{device}' can't be used here: "):
        load("tiny_50hz", device=device)
    with pytest.raises(ValueError, match=f"device '{device}' can't be used here: "):
        built("mdct").to(device=device)


def test_clips_of_different_lengths_are_coded_as_each_alone(codec: Codec) -> None:
    wavs = [audio(codec, seconds)[0] for seconds in (0.1, 0.07, 0.1, 0.043)]
    alone = [codec.encode(wav, depth(codec)) for wav in wavs]
    together = codec.encode(wavs, depth(codec))
    lengths = tuple(wav.shape[-1] for wav in wavs)
    assert together.lengths == lengths
    padded = torch.stack([nn.functional.pad(w, (0, lengths[0] - w.shape[-1])) for w in wavs])
    assert codec.encode(padded, depth(codec), lengths=lengths) == together
    assert codec.encode(padded, depth(codec), lengths=torch.tensor(lengths)) == together
    back = codec.decode(together)
    assert back.shape == padded.shape
    for clip, own, wav in zip(together, alone, together.unpad(back), strict=True):
        assert clip.num_samples == wav.shape[-1] == own.num_samples
        assert clip.frame_rates == own.frame_rates
        assert clip.bitrate_kbps == own.bitrate_kbps
        flips = sum(
            int((a != b).sum()) for a, b in zip(clip.streams, own.streams, strict=True)
        )  # two clips of one length share a batch, whose sums may be rounded otherwise
        assert flips <= 0.01 * own.num_tokens
        if not flips:
            assert torch.allclose(wav, codec.decode(own)[0], atol=1e-5)
    assert not back[1, :, lengths[1] :].any()


@pytest.mark.parametrize(
    ("lengths", "message"),
    [([1600], "2 numbers"), ([0, 5], r"in 1\.\.1600"), ([5, 1601], r"in 1\.\.1600")],
)
def test_lengths_that_do_not_fit_are_refused(lengths: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built("pcm").encode(torch.zeros(2, 1, 1600), lengths=lengths)


def test_shapes_with_fewer_axes_are_one_clip() -> None:
    codec = built("tiny_50hz")
    wav = audio(codec)
    tokens = codec.encode(wav)
    assert codec.encode(wav[0]) == codec.encode(wav[0, 0]) == codec.encode([wav[0, 0]]) == tokens
    clip = neuralcodec.clips("starter:test")[-1]
    assert codec.encode(clip.read(codec.sample_rate)).batch_size == 1


def test_gradients_reach_audio_latents_and_weights(latents: LatentCodec) -> None:
    wav = audio(latents).requires_grad_()
    z = latents.encode_latents(wav)
    (gradient,) = torch.autograd.grad(z.square().sum(), wav, retain_graph=True)
    assert gradient.abs().sum() > 0
    z = z.detach().requires_grad_()
    estimate = latents.decode_latents(z, wav.shape[-1])
    (gradient,) = torch.autograd.grad(estimate.square().sum(), z, retain_graph=True)
    assert gradient.abs().sum() > 0
    trained = [each for each in latents.parameters() if each.requires_grad]
    if trained:
        found = torch.autograd.grad(estimate.square().sum(), trained, allow_unused=True)
        assert any(each is not None and bool(each.abs().sum() > 0) for each in found)


def test_tokens_and_decoded_audio_carry_no_gradient(codec: Codec) -> None:
    wav = audio(codec).requires_grad_()
    tokens = codec.encode(wav, depth(codec))
    back = codec.decode(tokens)
    assert not back.requires_grad
    assert not back.is_inference()
    assert not any(stream.is_inference() for stream in tokens.streams)


def test_a_model_around_it_may_train(torch_codec: Codec) -> None:
    wav = audio(torch_codec)
    before = results(torch_codec, wav)
    nn.Sequential(torch_codec).train()
    assert not any(module.training for module in torch_codec.modules())
    assert equal(results(torch_codec, wav), before)


def test_audio_far_out_of_range_is_refused_with_its_peak(codec: Codec) -> None:
    wav = audio(codec)
    with pytest.raises(ValueError, match=r"32768|divide"):
        codec.encode(wav * 32768)
    wav[..., 100] = 1.0
    with pytest.raises(ValueError, match=r"peak of 32768\b"):
        codec.encode(wav * 32768)


def numpy_of(wav: Tensor) -> Any:
    return wav.numpy()


def test_arrays_are_told_how_to_become_tensors() -> None:
    codec = built("tiny_50hz")
    assert isinstance(codec, LatentCodec)
    wav = audio(codec)
    for call in (codec.encode, codec.encode_latents):
        with pytest.raises(ValueError, match=r"torch\.from_numpy\(wav\)"):
            call(numpy_of(wav))
    with pytest.raises(ValueError, match=r"torch\.from_numpy\(z\)"):
        codec.decode_latents(numpy_of(codec.encode_latents(wav).detach()))
    tokens = codec.encode(wav)
    for codes in (tokens.codes, tokens.numpy()):
        with pytest.raises(ValueError, match=r"decode takes Tokens, got .*codec\.tokens\(codes\)"):
            codec.decode(codes)  # type: ignore[arg-type]


def test_bare_codes_become_tokens(codec: Codec) -> None:
    wav = audio(codec)
    tokens = codec.encode(wav, depth(codec))
    if not codec.frame_rates:
        with pytest.raises(ValueError, match="has no frames of a fixed length"):
            codec.tokens(tokens.codes)
        return
    same = codec.tokens(tokens.codes, tokens.num_samples)
    if not tokens.side:
        assert same == tokens
        assert codec.tokens(tokens.codes).num_samples >= wav.shape[-1]
    with pytest.raises(ValueError, match=r"codes .*0\.\.|codes must lie"):
        codec.tokens(torch.full((1, 1, 4), codec.codebook_sizes[0]))


def test_a_latent_codec_says_how_to_get_tokens() -> None:
    codec = built("mel")
    assert codec.num_codebooks == 0
    for call in (
        lambda: codec.encode(audio(codec)),
        lambda: codec.decode(Tokens(torch.zeros(1, 1, 1).long(), (50.0,), (2,), 16000, 1)),
        lambda: codec.stream(),
    ):
        with pytest.raises(ValueError, match=r"neuralcodec\.load\('mel\+rvq'\)"):
            call()


def test_what_does_not_stream_says_what_to_use() -> None:
    for call in (built("tiny_50hz").stream, built("tiny_50hz").decode_stream):
        with pytest.raises(ValueError, match=r"has no streams; neuralcodec\.core\.chunks"):
            call()


def test_it_shows_itself_in_one_line_and_a_card(codec: Codec) -> None:
    line = repr(codec)
    assert "\n" not in line
    assert len(line) < 160
    assert repr(codec.name) in line
    assert f"{codec.sample_rate / 1000:g} kHz" in line
    card = codec._repr_html_()
    assert card.startswith("<table>")
    assert codec.name in card
    assert "src=" not in card


def test_requantized_counts_each_codebook() -> None:
    from neuralcodec.latent.requantized import Requantized
    from neuralcodec.quantize import ResidualVectorQuantizer

    mdct = built("mdct")
    assert isinstance(mdct, LatentCodec)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, mdct.dim, 500, generator=generator)
    rvq = ResidualVectorQuantizer(mdct.dim, 2, (16, 4)).fit(z)
    codec = Requantized(mdct, rvq)
    assert codec.codebook_sizes == (16, 4)
    tokens = codec.encode(audio(codec, 1))
    assert tokens.bitrate_kbps == pytest.approx(50 * (4 + 2) / 1000)
    assert tokens.prefix(1).bitrate_kbps == pytest.approx(0.2)


def test_the_digest_is_that_of_all_that_was_learned() -> None:
    tiny, again, other = built("tiny_50hz"), load("tiny_50hz"), load("tiny_100hz")
    assert tiny.digest == again.digest != other.digest
    assert load("tiny_50hz", weights="random").digest not in (tiny.digest, "")
    assert built("mdct").digest == built("opus").digest == ""
    one, two = (load("mdct+rvq", codebook_size=4, num_codebooks=1, seed=s) for s in (0, 1))
    assert one.digest != two.digest


def test_a_digest_depends_on_names_types_shapes_and_values_alone() -> None:
    zeros = torch.zeros(2, 3)
    kinds = [
        {"a": zeros, "b": zeros},
        {"a": zeros},
        {"a": zeros, "c": zeros},
        {"a": zeros, "b": zeros.int()},  # the same bytes
        {"a": zeros, "b": zeros.T},
        {"a": zeros, "b": zeros + 1},
    ]
    assert len({digest_of(kind) for kind in kinds}) == len(kinds)
    ramp = torch.arange(6.0).view(3, 2)
    turned = {"b": ramp.T, "a": nn.Parameter(zeros)}  # neither contiguous nor in order
    assert digest_of(turned) == digest_of({"a": zeros, "b": ramp.T.contiguous()})


def test_the_names_of_the_package() -> None:
    public = {name for name in dir(neuralcodec) if not name.startswith("_")}
    assert public == {
        *("Codec", "LatentCodec", "Tokens", "clips", "list_codecs", "load", "score"),
    }
    assert all(getattr(neuralcodec, name) is not None for name in public)
    listed = neuralcodec.list_codecs()
    assert list(listed["codec"]) == list(REGISTRY)
    assert listed.set_index("codec").loc["tiny_50hz", "runs"]


def test_names_that_a_type_checker_knows_are_latent_codecs() -> None:
    from typing import get_args

    from neuralcodec.core.registry import LatentName

    plain = {name for name in get_args(LatentName) if not name.endswith("+rvq")}
    known = {name for name, entry in REGISTRY.items() if entry.facts and entry.facts.dim}
    assert plain == known | {"huggingface", "mdct", "mel"}


@pytest.fixture(scope="module", autouse=True)
def forget() -> Iterator[None]:
    yield
    built.cache_clear()
    np.random.default_rng()
