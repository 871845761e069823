"""EnCodec: the same codes and audio as the package's own, in a stream too."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from neuralcodec.core import audio, streaming, torchaudio_guard
from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.registry import REGISTRY
from neuralcodec.core.tokens import Tokens
from neuralcodec.data import clips
from neuralcodec.weights import CHECKPOINTS, WeightsMissing
from neuralcodec.wrappers.encodec.codec import Encodec24khz, Encodec48khz
from neuralcodec.wrappers.encodec.model import random_model, streamed

torchaudio_guard.load()

from encodec.modules import conv  # noqa: E402  # it imports torchaudio

pytestmark = pytest.mark.usefixtures("slim_encodec")

ENDS = [1, 2, 7, 48, 319, 320, 321, 2239, 2241, 5000]
"""Lengths at which paddings change: below and around a frame, and around the first seven."""


@pytest.fixture(scope="module")
def package() -> Any:
    """The package's model at 24 kHz as it leaves it: weight norm in place."""
    return random_model("encodec_24khz").eval()


@pytest.fixture(scope="module")
def package48() -> Any:
    return random_model("encodec_48khz").eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, package: Any) -> Path:
    """A folder of weights with a checkpoint as it is published."""
    folder = tmp_path_factory.mktemp("weights")
    path = folder / CHECKPOINTS["encodec_24khz"].path
    path.parent.mkdir()
    torch.save(package.state_dict(), path)
    return folder


@pytest.fixture(scope="module")
def codec(folder: Path) -> Encodec24khz:
    return Encodec24khz(folder / CHECKPOINTS["encodec_24khz"].path)


@pytest.fixture(scope="module")
def codec48() -> Encodec48khz:
    return Encodec48khz("random")


@pytest.fixture(scope="module")
def wav() -> Tensor:
    """Speech at 24 kHz, `[2, 1, 48123]`."""
    found = [clip.read(24000) for clip in clips("starter:test") if clip.kind == "speech"]
    return torch.stack([audio.fit_length(w[:, 12000:], 48123) for w in found[:2]])


@pytest.fixture(scope="module")
def stereo() -> Tensor:
    """Noise of changing loudness at 48 kHz, `[2, 2, 150000]`, its batch of unequal loudness."""
    rng = Generator().manual_seed(1)
    loudness = torch.rand(2, 1, 150, generator=rng).repeat_interleave(1000, dim=-1)
    return (
        torch.randn(2, 2, 150000, generator=rng)
        * loudness
        * torch.tensor([0.1, 0.01])[:, None, None]
    )


def _codes(tokens: Tokens) -> Tensor:
    """All codebooks' codes, `[B, K, T]`."""
    return torch.stack(tokens.streams, dim=1)


def _own_codes(package: Any, wav: Tensor, num_codebooks: int) -> Tensor:
    package.bandwidth = num_codebooks * package.bits_per_codebook * package.frame_rate / 1000
    with torch.inference_mode():
        codes: Tensor = package.encode(wav)[0][0]
    return codes


def _own_decode(package: Any, frames: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
    with torch.inference_mode():
        wav: Tensor = package.decode([*frames])
    return wav


def _encode_in_pieces(codec: Encodec24khz, wav: Tensor, size: int, depth: int = 32) -> list[Tensor]:
    stream = codec.stream(depth)
    pieces = [stream.push(wav[..., at : at + size]) for at in range(0, wav.shape[-1], size)]
    return [*pieces, stream.finish()]


def _decode_in_pieces(codec: Encodec24khz, codes: Tensor, size: int) -> Tensor:
    stream = codec.decode_stream()
    pieces = [stream.push(codes[..., at : at + size]) for at in range(0, codes.shape[-1], size)]
    return torch.cat([*pieces, stream.finish()], dim=-1)


@pytest.mark.parametrize("name", ["encodec_24khz", "encodec_48khz"])
def test_facts_are_the_codecs(name: str, codec: Encodec24khz, codec48: Encodec48khz) -> None:
    built = {"encodec_24khz": codec, "encodec_48khz": codec48}[name]
    facts = REGISTRY[name].facts
    assert facts is not None
    assert built.name == name
    for attribute in ("sample_rate", "channels", "frame_rates", "codebook_sizes", "is_causal"):
        assert getattr(built, attribute) == getattr(facts, attribute), attribute
    assert built.num_codebooks == len(facts.codebook_sizes)
    assert getattr(built, "dim", None) == facts.dim
    assert isinstance(built, Codec)
    assert not built.is_chunkable  # an LSTM sees without limit
    small = name == "encodec_24khz"
    assert isinstance(built, LatentCodec) is built.is_streaming is small


@pytest.mark.parametrize("depth", [1, 3, 8, 32])
def test_codes_are_the_packages(depth: int, codec: Encodec24khz, package: Any, wav: Tensor) -> None:
    assert any(key.endswith("weight_g") for key in package.state_dict())
    assert not any(key.endswith("weight_g") for key in codec.network.state_dict())
    tokens = codec.encode(wav, depth)
    assert torch.equal(_codes(tokens), _own_codes(package, wav, depth))
    assert tokens.bitrate_kbps == 0.75 * depth
    estimate = codec.decode(tokens)
    own = _own_decode(package, [(_codes(tokens), None)])
    assert estimate.shape == wav.shape
    assert torch.allclose(estimate, own[..., : wav.shape[-1]], rtol=0, atol=1e-5)
    assert float(estimate.std()) > 0.01


@pytest.mark.parametrize("length", ENDS)
def test_any_length_comes_back(length: int, codec: Encodec24khz, package: Any, wav: Tensor) -> None:
    tokens = codec.encode(wav[..., :length], 4)
    assert tokens.streams[0].shape[-1] == math.ceil(length / 320)
    assert torch.equal(_codes(tokens), _own_codes(package, wav[..., :length], 4))
    assert codec.decode(tokens).shape == (2, 1, length)


@pytest.mark.usefixtures("published_encodec")
@pytest.mark.parametrize("build", [Encodec24khz, Encodec48khz])
def test_the_published_size(
    build: type[Encodec24khz] | type[Encodec48khz], wav: Tensor, tmp_path: Path
) -> None:
    package = random_model(build.name).eval()
    torch.save(package.state_dict(), tmp_path / "checkpoint.th")
    codec = build(tmp_path / "checkpoint.th")
    assert sum(p.numel() for p in codec.network.parameters()) > 14_000_000
    part_of_it = wav[:1, :, :6400].expand(-1, codec.channels, -1)
    tokens = codec.encode(part_of_it)
    codes = _codes(tokens)
    assert torch.equal(codes, _own_codes(package, part_of_it, codec.num_codebooks))
    own = _own_decode(package, [(codes, tokens.side.get("scales"))])[..., :6400]
    assert torch.allclose(codec.decode(tokens), own, rtol=0, atol=1e-5)


def test_codebooks_are_nested(codec: Encodec24khz, wav: Tensor) -> None:
    tokens = codec.encode(wav)
    fewer = codec.encode(wav, 5)
    assert torch.equal(_codes(fewer), _codes(tokens.prefix(5)))
    assert torch.equal(codec.decode(fewer), codec.decode(tokens.prefix(5)))
    z = codec.encode_latents(wav).detach()
    errors = [
        float((codec.rvq.decode(_codes(tokens.prefix(k))) - z).square().mean())
        for k in (1, 4, 16, 32)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


def test_random_codes_vary_at_every_level(wav: Tensor, stereo: Tensor) -> None:
    state = torch.random.get_rng_state()
    mono, both = Encodec24khz("random"), Encodec48khz("random")
    assert torch.equal(torch.random.get_rng_state(), state)
    for tokens in (mono.encode(wav), both.encode(stereo[..., :48000])):
        assert min(len(torch.unique(stream)) for stream in tokens.streams) >= 12
    assert torch.equal(_codes(Encodec24khz("random").encode(wav)), _codes(mono.encode(wav)))


def test_latents_on_both_sides_of_the_quantizer(
    codec: Encodec24khz, package: Any, wav: Tensor
) -> None:
    with torch.no_grad():
        z = codec.encode_latents(wav).detach()
    with torch.inference_mode():
        assert torch.equal(z, package.encoder(wav))
        own = package.decoder(z)
    assert z.shape == (2, codec.dim, 151)
    assert torch.allclose(codec.decode_latents(z, 48123), own[..., :48123], rtol=0, atol=1e-5)
    assert codec.decode_latents(z).shape == (2, 1, 151 * 320)
    tokens = codec.encode(wav)
    quantized = codec.rvq.decode(_codes(tokens))
    estimate = codec.decode_latents(quantized, 48123)
    assert torch.allclose(estimate, codec.decode(tokens), rtol=0, atol=1e-5)


def test_results_can_be_worked_on(codec: Encodec24khz, codec48: Encodec48khz, wav: Tensor) -> None:
    for made in (codec, codec48):
        tokens = made.encode(wav[..., :4000].expand(-1, made.channels, -1), 2)
        estimate = made.decode(tokens)
        estimate.mul_(2)  # an inference tensor would refuse
        assert not any(t.is_inference() for t in (*tokens.streams, *tokens.side.values()))
    stream = codec.stream(2)
    stream.push(wav[..., :4000]).add_(1)
    with torch.no_grad():
        z = codec.encode_latents(wav[..., :4000]).detach()
    gain = torch.ones(1, requires_grad=True)
    assert torch.autograd.grad((z * gain).sum(), gain)[0] == z.sum()


# Streaming


def _in_pieces(layer: streaming.Layer, x: Tensor, size: int) -> Tensor:
    parts = [layer.step(piece.clone(), False) for piece in torch.split(x, size, dim=-1)]
    return torch.cat([*parts, layer.step(x[..., :0], True)], dim=-1)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(7, 1, 1), (3, 1, 4), (4, 2, 1), (11, 5, 1)]
)
@pytest.mark.parametrize("length", [1, 2, 5, 6, 7, 8, 24, 53])
@pytest.mark.parametrize("mode", ["reflect", "replicate", "constant"])
def test_a_convolution_in_pieces(
    kernel: int, stride: int, dilation: int, length: int, mode: str, rng: Generator
) -> None:
    whole = conv.SConv1d(2, 3, kernel, stride, dilation, causal=True, pad_mode=mode).double()
    x = torch.randn(2, 2, length, generator=rng, dtype=torch.double)
    expected = whole(x)
    for size in (1, 3, 10, length):
        joined = _in_pieces(streamed(whole), x, size)
        assert joined.shape == expected.shape
        assert torch.allclose(joined, expected)


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (16, 8), (5, 2), (3, 3)])
def test_a_transposed_convolution_in_pieces(kernel: int, stride: int, rng: Generator) -> None:
    whole = conv.SConvTranspose1d(2, 3, kernel, stride, causal=True).double()
    x = torch.randn(2, 2, 13, generator=rng, dtype=torch.double)
    for size in (1, 2, 5, 13):
        assert torch.allclose(_in_pieces(streamed(whole), x, size), whole(x))


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_a_function_of_limited_sight_in_pieces(size: int, rng: Generator) -> None:
    def means(x: Tensor) -> Tensor:  # of three to either side, each given twice
        padded = torch.nn.functional.pad(x, (3, 3))
        return padded.unfold(-1, 7, 1).mean(dim=-1).repeat_interleave(2, dim=-1)

    x = torch.randn(2, 1, 31, generator=rng, dtype=torch.double)
    window = streaming.Windowed(means, context=3, channels=1, ratio=2)
    pieces = []
    for at in range(0, 31, size):
        piece = x[..., at : at + size].clone()
        pieces.append(window.step(piece, False))
        piece.fill_(torch.nan)  # as a caller may who uses the same memory again
    pieces.append(window.step(x[..., :0], True))
    assert torch.allclose(torch.cat(pieces, dim=-1), means(x))


@pytest.mark.parametrize("size", [7, 320, 1000, 20000, 60000])
def test_pieces_give_the_codes_of_the_whole(size: int, codec: Encodec24khz, wav: Tensor) -> None:
    part = wav if size >= 320 else wav[..., :2500]
    expected = _codes(codec.encode(part))
    joined = torch.cat(_encode_in_pieces(codec, part, size), dim=-1)
    assert joined.shape == expected.shape
    # Sums are rounded in another order, and a near tie changes all levels behind it.
    assert float((joined != expected).float().mean()) < 2e-3


@pytest.mark.parametrize("length", ENDS)
def test_short_audio_in_pieces(length: int, codec: Encodec24khz, wav: Tensor) -> None:
    part = wav[..., :length]
    expected = codec.encode(part, 1)
    for size in (max(1, length // 40), 333):
        assert torch.equal(
            torch.cat(_encode_in_pieces(codec, part, size, depth=1), dim=-1)[:, 0],
            expected.streams[0],
        )
    estimate = _decode_in_pieces(codec, _codes(expected), 1)[..., :length]
    assert torch.allclose(estimate, codec.decode(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 50, 200])
def test_codes_in_pieces_give_the_audio_of_the_whole(
    size: int, codec: Encodec24khz, wav: Tensor
) -> None:
    part = wav if size > 1 else wav[..., :8000]
    tokens = codec.encode(part, 6)
    joined = _decode_in_pieces(codec, _codes(tokens), size)
    assert joined.shape[-1] % 320 == 0
    assert torch.allclose(joined[..., : part.shape[-1]], codec.decode(tokens), rtol=0, atol=1e-5)


def test_codes_come_as_soon_as_they_are_certain(codec: Encodec24khz, wav: Tensor) -> None:
    counts = [piece.shape[-1] for piece in _encode_in_pieces(codec, wav[..., :4000], 320, depth=2)]
    # The last convolution reflects six frames: the seventh frame lets all seven out.
    assert counts == [0] * 6 + [7] + [1] * 5 + [0, 1]
    stream = codec.decode_stream()
    codes = torch.zeros(1, 3, 1, dtype=torch.long)
    given = [stream.push(codes).shape[-1] for _ in range(12)]
    assert given[:6] == [0] * 6
    assert given[6] > 0
    assert given[7:] == [320] * 5


def test_no_code_depends_on_later_frames(codec: Encodec24khz, wav: Tensor) -> None:
    changed = wav.clone()
    changed[..., 320 * 20 :] += 0.1
    before, after = (_codes(codec.encode(each)) for each in (wav, changed))
    assert torch.equal(before[..., :20], after[..., :20])
    assert not torch.equal(before[..., 20], after[..., 20])


def test_streams_take_pieces_of_no_samples(codec: Encodec24khz, wav: Tensor) -> None:
    encode, decode = codec.stream(2), codec.decode_stream()
    parts = []
    for piece in (wav[..., :0], wav[..., :100], wav[..., 100:100], wav[..., 100:9000]):
        parts.append(decode.push(encode.push(piece)))
    parts += [decode.push(encode.finish()), decode.finish()]
    expected = codec.decode(codec.encode(wav[..., :9000], 2))
    assert torch.allclose(torch.cat(parts, dim=-1)[..., :9000], expected, rtol=0, atol=1e-5)


def test_bad_use_of_a_stream(codec: Encodec24khz, wav: Tensor) -> None:
    with pytest.raises(ValueError, match=r"1\.\.32, got 33"):
        codec.stream(33)
    with pytest.raises(ValueError, match="nothing was pushed"):
        codec.stream().finish()
    stream = codec.stream(1)
    stream.push(wav[..., :100])
    with pytest.raises(ValueError, match=r"began with \[2, 1\].*got \[1, 1\]"):
        stream.push(wav[:1, :, :100])
    with pytest.raises(ValueError, match="NaN"):
        stream.push(wav[..., :100] * torch.nan)
    stream.finish()
    with pytest.raises(ValueError, match="has ended"):
        stream.push(wav[..., :100])
    with pytest.raises(ValueError, match="has ended"):
        stream.finish()
    decode = codec.decode_stream()
    with pytest.raises(ValueError, match=r"0\.\.1023"):
        decode.push(torch.full((1, 2, 3), 1024))
    with pytest.raises(ValueError, match=r"\[B, 1\.\.32, frames\]"):
        decode.push(torch.zeros(1, 33, 3, dtype=torch.long))
    decode.push(torch.zeros(1, 2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"began with \[1, 2\]"):
        decode.push(torch.zeros(1, 3, 3, dtype=torch.long))


# Beam search


def test_a_beam_finds_nearer_codes(codec: Encodec24khz, wav: Tensor) -> None:
    searching = copy.copy(codec)
    vars(searching).pop("rvq", None)  # so that the search makes its own
    z = codec.encode_latents(wav).detach()
    for depth in (1, 6):
        errors = []
        for width in (1, 4):
            searching.beam_width = width
            codes = _codes(searching.encode(wav, depth))
            errors.append(float((codec.rvq.decode(codes) - z).square().mean()))
        assert errors[1] <= errors[0] * (1 + 1e-6)
    assert errors[1] < errors[0]
    assert not searching.rvq.codebooks.is_inference()
    joined = torch.cat(_encode_in_pieces(searching, wav, 5000, depth=6), dim=-1)
    assert float((joined != codes).float().mean()) < 2e-3
    with pytest.raises(ValueError, match="beam_width must be at least 1, got 0"):
        Encodec24khz("random", beam_width=0)


# 48 kHz


@pytest.mark.parametrize("length", [1, 1000, 47521, 48000, 100000])
def test_segments_are_the_packages(
    length: int, codec48: Encodec48khz, package48: Any, stereo: Tensor
) -> None:
    part = stereo[..., :length]
    tokens = codec48.encode(part)
    package48.bandwidth = None
    with torch.inference_mode():
        own = package48.encode(part)
    codes = _codes(tokens)
    assert torch.equal(codes, torch.cat([frame[0] for frame in own], dim=-1))
    scales = torch.cat([frame[1] for frame in own], dim=-1)
    assert torch.equal(tokens.side["scales"], scales)
    assert tokens.side_bits == 32 * scales.shape[1]
    assert torch.equal(_codes(codec48.encode(part, 3)), _codes(tokens.prefix(3)))
    estimate = codec48.decode(tokens)
    assert estimate.shape == part.shape
    assert torch.allclose(estimate, _own_decode(package48, own)[..., :length], rtol=0, atol=1e-5)
    fewer = [(frame[:, :2], scale) for frame, scale in own]
    estimate = codec48.decode(tokens.prefix(2))
    assert torch.allclose(estimate, _own_decode(package48, fewer)[..., :length], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rest", [161, 320])
def test_a_segment_that_reaches_beyond_the_last(
    rest: int, codec48: Encodec48khz, package48: Any, stereo: Tensor
) -> None:
    # The package's overlap-add fails here: the first segment, rounded up, is longer than the whole.
    length = 47520 + rest
    tokens = codec48.encode(stereo[..., :length], 2)
    parts = torch.split(_codes(tokens), [150, 1], dim=-1)
    frames = [*zip(parts, torch.split(tokens.side["scales"], 1, dim=-1), strict=True)]
    with pytest.raises(RuntimeError, match="must match"):
        _own_decode(package48, frames)
    estimate = codec48.decode(tokens)
    assert estimate.shape[-1] == length
    first, second = (_own_decode(package48, [frame]) for frame in frames)
    assert torch.allclose(estimate[..., :47520], first[..., :47520], rtol=0, atol=1e-5)
    # Where both are, the sample is between theirs.
    shared = torch.stack([first[..., 47520:length], second[..., :rest]])
    assert (estimate[..., 47520:] >= shared.amin(0) - 1e-5).all()
    assert (estimate[..., 47520:] <= shared.amax(0) + 1e-5).all()


def test_one_segment_at_a_time(
    codec48: Encodec48khz, stereo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for part in (codec48.network.encoder, codec48.network.decoder):
        handle = part.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[-1]))
        monkeypatch.setattr(part, "handle", handle, raising=False)
    codec48.decode(codec48.encode(stereo[..., :143000], 1))
    codec48.network.encoder.handle.remove()
    codec48.network.decoder.handle.remove()
    assert seen == [48000, 48000, 47960, 440, 150, 150, 150, 2]


def test_tokens_of_segments_count_the_overlap(codec48: Encodec48khz) -> None:
    tokens = codec48.encode(torch.full((1, 2, 2 * 47520 + 480), 0.1))
    assert tokens.streams[0].shape[-1] == 302
    assert tokens.tokens_per_second == pytest.approx(16 * 150 / 0.99)
    assert tokens.side["scales"].shape == (1, 3)
    assert tokens.padded_duration == pytest.approx(302 * 0.99 / 150)
    assert tokens.duration <= tokens.padded_duration
    nominal = 16 * 10 * 150 / 0.99
    assert tokens.bitrate_kbps * 1000 == pytest.approx(nominal + 96 / tokens.padded_duration)
    assert tokens.num_bits == 302 * 160 + 96


def test_segments_that_do_not_fit(codec48: Encodec48khz, stereo: Tensor) -> None:
    tokens = codec48.encode(stereo[..., :2000], 2)
    codes = _codes(tokens)
    for bad in (
        Tokens(codes, tokens.frame_rates, tokens.codebook_sizes, 48000, 2000),
        Tokens(codes[..., 1:], tokens.frame_rates, tokens.codebook_sizes, 48000, 2000, tokens.side),
        Tokens(codes, tokens.frame_rates, tokens.codebook_sizes, 48000, 2400, tokens.side),
        Tokens(codes[..., :0], tokens.frame_rates, tokens.codebook_sizes, 48000, 0, tokens.side),
    ):
        with pytest.raises(ValueError, match=r"samples are .* frames with scales"):
            codec48.decode(bad)


# Bad input


def test_bad_input(codec: Encodec24khz, codec48: Encodec48khz, wav: Tensor) -> None:
    for bad in (0, 33):
        with pytest.raises(ValueError, match=rf"num_codebooks must be 1\.\.32, got {bad}"):
            codec.encode(wav, bad)
    with pytest.raises(ValueError, match=r"1\.\.16, got 17"):
        codec48.encode(wav.expand(-1, 2, -1), 17)
    with pytest.raises(ValueError, match=r"\[B, 2, T\]"):
        codec48.encode(wav)
    with pytest.raises(ValueError, match=r"\[B, 1, T\]"):
        codec.encode(wav[..., :0])
    with pytest.raises(ValueError, match="NaN"):
        codec.encode_latents(wav * torch.inf)
    with pytest.raises(ValueError, match=r"\[B, 128, T\]"):
        codec.decode_latents(torch.zeros(1, 100, 5))
    tokens = codec.encode(wav[..., :4000], 2)
    with pytest.raises(ValueError, match="not of encodec_48khz"):
        codec48.decode(tokens)
    codes = _codes(tokens)
    foreign = Tokens(codes, (50.0, 50.0), (1024, 1024), 24000, 4000)
    with pytest.raises(ValueError, match=r"frame rates \(50.0, 50.0\).*not of encodec_24khz"):
        codec.decode(foreign)
    short = Tokens(codes[..., :12], (75.0, 75.0), (1024, 1024), 24000, 4000)
    with pytest.raises(ValueError, match="12 frames don't cover 4000 samples"):
        codec.decode(short)


def test_bad_checkpoints(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"nowhere\.th"):
        Encodec24khz(tmp_path / "nowhere.th")
    with pytest.raises(ValueError, match="not of encodec_48khz"):
        Encodec48khz(folder / CHECKPOINTS["encodec_24khz"].path)
    bad = tmp_path / "bad.th"
    bad.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"bad\.th is no checkpoint"):
        Encodec24khz(bad)
    torch.save({"run": print}, bad)
    with pytest.raises(ValueError, match="tensors and numbers alone"):
        Encodec24khz(bad)
    torch.save([torch.zeros(1)], bad)
    with pytest.raises(ValueError, match="tensors by name"):
        Encodec24khz(bad)
    # a folder with the file of the published name will do
    name = Path(CHECKPOINTS["encodec_24khz"].path)
    assert Encodec24khz(folder / name.parent).num_codebooks == 32
