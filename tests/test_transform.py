"""Transforms as latent codecs, and our quantizer in their latents."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import neuralcodec
from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.data import clips
from neuralcodec.latent import requantized
from neuralcodec.latent.mdct import Mdct
from neuralcodec.latent.mel import Mel
from neuralcodec.metrics import score
from neuralcodec.quantize import ResidualVectorQuantizer


def _speech() -> Tensor:
    clip = next(clip for clip in clips("starter:test") if clip.kind == "speech")
    return clip.read(16000)[None]  # [1, 1, T]


@pytest.mark.parametrize("frame_rate", [12.5, 25, 50, 100, 1000])
@pytest.mark.parametrize("length", [1, 160, 8000, 12345])
def test_mdct_without_quantizer_is_exact(frame_rate: float, length: int, rng: Generator) -> None:
    wav = torch.rand(2, 1, length, generator=rng) * 2 - 1
    codec = Mdct(frame_rate)
    z = codec.encode_latents(wav)
    assert z.shape == (2, codec.dim, math.ceil(length / codec.dim) + 1)
    assert torch.allclose(codec.decode_latents(z, length), wav, atol=1e-5)


def test_mdct_error_of_the_audio_is_that_of_the_latents(rng: Generator) -> None:
    codec = Mdct(50)
    z = codec.encode_latents(torch.randn(1, 1, 16000, generator=rng))
    noise = torch.randn(z.shape, generator=rng)
    noise[..., [0, -1]] = 0  # half of the outer frames lies outside the audio
    difference = codec.decode_latents(z + noise) - codec.decode_latents(z)
    assert float(difference.square().sum()) == pytest.approx(float(noise.square().sum()), rel=1e-4)


@pytest.mark.parametrize("frame_rate", [25, 50, 100])
@pytest.mark.parametrize("length", [1, 160, 16000])
def test_mel_gives_the_length_back(frame_rate: float, length: int, rng: Generator) -> None:
    codec = Mel(frame_rate)
    z = codec.encode_latents(torch.randn(1, 1, length, generator=rng) / 10)
    assert z.shape == (1, 80, math.ceil(length / (16000 / frame_rate)) + 1)
    assert codec.decode_latents(z, length).shape == (1, 1, length)


def test_mel_keeps_the_spectrum_and_repeats_itself() -> None:
    wav, codec = _speech(), Mel(100)
    once = codec.decode_latents(codec.encode_latents(wav), wav.shape[-1])
    again = codec.decode_latents(codec.encode_latents(wav), wav.shape[-1])
    assert torch.equal(once, again)
    scores = score(wav, once, 16000, ["stoi", "log_mel_distance"])
    silence = score(wav, once * 0, 16000, ["log_mel_distance"])
    assert scores["stoi"] > 0.85
    assert scores["log_mel_distance"] < silence["log_mel_distance"] / 5


def test_mel_decoding_leaves_the_global_random_state_alone() -> None:
    codec = Mel(100)
    z = codec.encode_latents(_speech()[..., :8000])
    before = torch.random.get_rng_state()
    codec.decode_latents(z)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", [Mdct, Mel])
def test_bad_settings_and_shapes(kind: type[Mdct] | type[Mel]) -> None:
    with pytest.raises(ValueError, match=r"75 Hz does not divide .* near it do 74.7664, 75.1174"):
        kind(75)
    with pytest.raises(ValueError, match="got 16000 and 0"):
        kind(0)
    codec = kind(50)
    assert isinstance(codec, LatentCodec)
    with pytest.raises(ValueError, match=r"\[B, 1, T\]"):
        codec.encode_latents(torch.zeros(1, 2, 100))
    with pytest.raises(ValueError, match="NaN"):
        codec.encode_latents(torch.full((1, 1, 100), torch.nan))
    with pytest.raises(ValueError, match=rf"\[B, {codec.dim}, T\]"):
        codec.decode_latents(torch.zeros(1, 3, 10))
    with pytest.raises(ValueError, match="num_mels"):
        Mel(50, num_mels=0)


@pytest.fixture(scope="module")
def mdct_rvq() -> requantized.Requantized:
    return requantized.load("mdct", frame_rate=100, num_codebooks=4, codebook_size=64)


def test_requantized_is_a_codec_with_the_right_rates(mdct_rvq: requantized.Requantized) -> None:
    assert isinstance(mdct_rvq, Codec)
    wav = _speech()
    tokens = mdct_rvq.encode(wav)
    assert mdct_rvq.name == "mdct+rvq"
    assert tokens.tokens_per_second == 400
    assert tokens.bitrate_kbps == pytest.approx(2.4)
    assert mdct_rvq.decode(tokens).shape == wav.shape
    assert torch.equal(mdct_rvq.encode(wav, 2).streams[1], tokens.streams[1])


def test_requantized_gets_better_with_depth_on_unseen_audio(
    mdct_rvq: requantized.Requantized,
) -> None:
    wav = _speech()
    tokens = mdct_rvq.encode(wav)
    errors = [
        float((wav - mdct_rvq.decode(tokens.prefix(depth))).square().mean())
        for depth in range(1, 5)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.6 * float(wav.square().mean())


def test_load_by_name_with_suffix() -> None:
    codec = neuralcodec.load("mel+rvq", frame_rate=25, num_codebooks=2, codebook_size=16)
    assert codec.codebook_sizes == (16, 16)
    with pytest.raises(ValueError, match="gives no latents"):
        neuralcodec.load("pcm+rvq")
    with pytest.raises(ValueError, match="did you mean 'mdct'"):
        neuralcodec.load("mdtc+rvq")


def test_a_second_seed_in_one_cache_is_fitted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURALCODEC_CACHE", str(tmp_path))

    def fitted(**settings: Any) -> Tensor:
        wanted = {"frame_rate": 100, "num_codebooks": 2, "codebook_size": 8, **settings}
        codebooks: Tensor = requantized.load("mdct", **wanted).rvq.codebooks
        return codebooks

    first = fitted()
    others = [{"seed": 1}, {"codebook_size": 4}, {"num_codebooks": 1}, {"frame_rate": 200}]
    for count, settings in enumerate(others, start=2):
        second = fitted(**settings)
        assert first.shape != second.shape or not torch.equal(first, second)
        assert len(list((tmp_path / "rvq").iterdir())) == count
        assert torch.equal(fitted(**settings), second)
    assert torch.equal(fitted(), first)
    assert len(list((tmp_path / "rvq").iterdir())) == 1 + len(others)  # all were found again


def test_a_fit_has_sixteen_latents_for_each_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    fit = ResidualVectorQuantizer.fit

    def noted(rvq: ResidualVectorQuantizer, z: Tensor, **options: Any) -> Any:
        seen.append(z.shape[-1])
        return fit(rvq, z, **options)

    monkeypatch.setattr(ResidualVectorQuantizer, "fit", noted)
    clip = clips("starter:fit")[:1]  # of some seconds
    requantized.fit(Mdct(25), clip, num_codebooks=1, codebook_size=64)
    assert seen[0] >= 16 * 64


def test_a_beam_is_used_from_the_first_fit_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURALCODEC_CACHE", str(tmp_path))
    options: dict[str, Any] = {"frame_rate": 100, "num_codebooks": 3, "codebook_size": 8}
    first, found = (requantized.load("mdct", beam_width=8, **options) for _ in range(2))
    wav = _speech()[..., :16000]
    assert torch.equal(first.encode(wav).streams[2], found.encode(wav).streams[2])
    greedy = requantized.load("mdct", **options).encode(wav)
    assert not torch.equal(first.encode(wav).streams[2], greedy.streams[2])


def test_fitting_hears_short_audio_again_at_other_offsets() -> None:
    codec = Mdct(50)
    wav = _speech()[0, :, :16000]  # 51 latents
    assert requantized.fitting_latents(codec, [wav], 40).shape[-1] == 51
    z = requantized.fitting_latents(codec, [wav], 120)
    assert z.shape[-1] >= 120
    assert len(torch.unique(z[0], dim=1).T) == z.shape[-1]


def test_more_entries_than_latents_is_refused() -> None:
    codec = Mel(25)
    with pytest.raises(ValueError, match="codebook_size 1000000 needs"):
        requantized.fit(codec, clips("starter:fit")[:1], num_codebooks=1, codebook_size=1000000)
    with pytest.raises(ValueError, match="dim 80, the rvq 8"):
        requantized.Requantized(codec, ResidualVectorQuantizer(8, 1, 4))
