"""Latents at other rates, and the cache of what was fitted on them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import neuralcodec
from neuralcodec.core.audio import write
from neuralcodec.core.latents import LatentCodec
from neuralcodec.data import clips
from neuralcodec.latent import requantized
from neuralcodec.latent.mdct import Mdct
from neuralcodec.latent.mel import Mel
from neuralcodec.latent.retimed import Resampled, Stacked, interpolate, retime


def _speech() -> Tensor:
    return clips("starter:test")[-1].read(16000)[None]


@given(stack=st.integers(2, 9), length=st.integers(1, 4000))
@settings(max_examples=30, deadline=None)
def test_stacking_loses_nothing(stack: int, length: int) -> None:
    wav = torch.randn(2, 1, length, generator=torch.Generator().manual_seed(length))
    codec = Stacked(Mdct(100), stack)
    z = codec.encode_latents(wav)
    assert z.shape == (2, codec.dim, -(-Mdct(100).encode_latents(wav).shape[-1] // stack))
    torch.testing.assert_close(codec.decode_latents(z, length), wav, atol=1e-4, rtol=0)


def test_a_stacked_latent_holds_neighbours_in_order() -> None:
    plain, stacked = Mdct(100), Stacked(Mdct(100), 2)
    wav = _speech()
    z, pairs = plain.encode_latents(wav), stacked.encode_latents(wav)
    assert torch.equal(pairs[:, :, 3], torch.cat([z[:, :, 6], z[:, :, 7]], dim=1))
    assert (stacked.frame_rate, stacked.dim) == (50, 320)


@pytest.mark.parametrize("stack", [2, 3, 5])
def test_the_last_of_stacked_latents_is_filled_up_with_the_last_latent(stack: int) -> None:
    wav = _speech()[..., :16000]
    plain, stacked = Mel(50), Stacked(Mel(50), stack)
    z = plain.encode_latents(wav)  # 51 frames, which no stack divides but 3
    last = stacked.encode_latents(wav)[:, :, -1].reshape(1, stack, 80)
    left = z.shape[-1] % stack or stack
    assert torch.equal(last[:, :left], z[:, :, -left:].mT)
    assert torch.equal(last[:, left:], z[:, :, -1:].mT.expand(1, stack - left, 80))


@pytest.mark.parametrize("stack", [2, 3, 4, 7])
def test_stacked_latents_see_as_far_as_those_they_are_made_of(stack: int) -> None:
    codec: Any = Mdct(100)
    codec.hop_length, codec.encode_context, codec.decode_context = 160, 6, 4
    stacked: Any = Stacked(codec, stack)
    assert stacked.hop_length == 160 * stack
    for seen, needed in ((stacked.encode_context, 6), (stacked.decode_context, 4)):
        assert (seen - 1) * stack < needed <= seen * stack


def test_interpolation_keeps_slow_signals_and_constants() -> None:
    times = torch.arange(200) / 50
    slow = torch.sin(2 * torch.pi * 3 * times)
    there = interpolate(slow, 0.5, 100)
    torch.testing.assert_close(there[10:-10], slow[::2][10:-10], atol=2e-3, rtol=0)
    back = interpolate(there, 2.0, 200)
    torch.testing.assert_close(back[20:-20], slow[20:-20], atol=5e-3, rtol=0)
    constant = interpolate(torch.full((3, 7), -11.5), 0.37, 3)
    torch.testing.assert_close(constant, torch.full((3, 3), -11.5))


def test_interpolation_removes_what_the_new_rate_cannot_hold() -> None:
    fast = torch.cos(torch.pi * 0.9 * torch.arange(400))  # nearly half the old rate
    assert float(interpolate(fast, 0.5, 200)[20:-20].abs().max()) < 0.02


@pytest.mark.parametrize("rate", [20.0, 33.3, 80.0])
def test_resampled_latents_have_the_rate_and_the_length(rate: float) -> None:
    codec, wav = Resampled(Mel(50, iterations=2), rate), _speech()[..., :24000]
    assert isinstance(codec, LatentCodec)
    z = codec.encode_latents(wav)
    assert z.shape[1] == codec.dim == 80
    assert z.shape[-1] == pytest.approx(wav.shape[-1] / 16000 * rate, abs=2)
    assert codec.decode_latents(z, wav.shape[-1]).shape == wav.shape


def test_retime_does_both_or_nothing() -> None:
    mel = Mel(50)
    assert retime(mel) is mel
    both = retime(mel, stack=3, latent_rate=30)
    assert (both.frame_rate, both.dim) == (10, 240)


@pytest.mark.parametrize("setting", [{"stack": 0}, {"latent_rate": 0.0}, {"latent_rate": -1.0}])
def test_bad_timing_is_named(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(setting))} must be .* got"):
        requantized.latent_codec("mel", setting)


def test_timing_is_a_setting_of_requantized_codecs() -> None:
    codec = neuralcodec.load("mdct+rvq", frame_rate=100, stack=4, num_codebooks=2, codebook_size=16)
    tokens = codec.encode(_speech())
    assert tokens.tokens_per_second == 2 * 25
    assert codec.decode(tokens).shape == _speech().shape


@pytest.mark.parametrize("timing", [{}, {"stack": 3}, {"latent_rate": 31.7}])
def test_codes_that_do_not_cover_the_audio_are_refused(timing: dict[str, Any]) -> None:
    codec = neuralcodec.load("mel+rvq", num_codebooks=1, codebook_size=4, **timing)
    for length in (1, 319, 320, 321, 9999):
        tokens = codec.encode(_speech()[..., :length])
        assert codec.decode(tokens).shape[-1] == length
    with pytest.raises(ValueError, match=r"frames don't cover 16000 samples"):
        codec.decode(replace(tokens, num_samples=16000))


def test_latents_of_another_width_are_refused() -> None:
    for codec in (Stacked(Mdct(50), 2), Resampled(Mdct(50), 20)):
        for shape in ((1, 320 * 3, 4), (1, 321, 4), (1, codec.dim, 0), (codec.dim, 4)):
            with pytest.raises(ValueError, match=rf"z must be float \[B, {codec.dim}, T\]"):
                codec.decode_latents(torch.zeros(shape))


def test_fitted_codebooks_are_kept_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURALCODEC_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "audio"
    folder.mkdir()
    wav = _speech()[0]
    write(folder / "a.wav", wav, 16000)

    def load(**changed: Any) -> Tensor:
        options: dict[str, Any] = {"num_codebooks": 2, "codebook_size": 8, "audio": folder}
        options |= changed
        codebooks: Tensor = neuralcodec.load("mdct+rvq", **options).rvq.codebooks
        return codebooks

    first = load()
    with monkeypatch.context() as patch:
        patch.setattr(requantized, "fit", None)  # so that it can't be called
        assert torch.equal(load(), first)
        for changed in ({"seed": 1}, {"codebook_size": 9}, {"stack": 2}, {"frame_rate": 100}):
            with pytest.raises(TypeError):
                load(**changed)
        write(folder / "a.wav", wav * 0.5, 16000)
        with pytest.raises(TypeError):
            load()
    assert not torch.equal(load(), first)


def test_beam_is_a_setting_that_needs_no_fit_of_its_own() -> None:
    wav = _speech()
    options: dict[str, Any] = {"frame_rate": 100, "num_codebooks": 4, "codebook_size": 16}
    greedy = neuralcodec.load("mdct+rvq", **options)
    beam = neuralcodec.load("mdct+rvq", beam_width=16, **options)
    assert torch.equal(greedy.rvq.codebooks, beam.rvq.codebooks)
    errors = [
        float((codec.decode(codec.encode(wav)) - wav).square().sum()) for codec in (greedy, beam)
    ]
    assert errors[1] < errors[0]
    with pytest.raises(ValueError, match="beam_width must be at least 1, got 0"):
        neuralcodec.load("mdct+rvq", beam_width=0, **options)


def test_long_recordings_are_fitted_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, wav, seen = Mdct(50), _speech()[0].repeat(1, 3), []
    monkeypatch.setattr(requantized, "LONGEST", 2)
    encode = codec.encode_latents

    def spied(piece: Tensor) -> Tensor:
        seen.append(piece.shape[-1])
        return encode(piece)

    monkeypatch.setattr(codec, "encode_latents", spied)
    z = requantized.fitting_latents(codec, [wav], 1)
    assert max(seen) == 2 * codec.sample_rate
    assert sum(seen) == wav.shape[-1]
    assert z.shape[-1] == pytest.approx(wav.shape[-1] / codec.dim, abs=2 * len(seen))


def test_a_device_among_the_settings_is_that_of_the_codec() -> None:
    assert requantized.latent_codec("mdct", {"device": "meta", "stack": 2}).device.type == "meta"
