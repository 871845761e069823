import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralcodec.core import audio
from neuralcodec.core.codec import Codec
from neuralcodec.core.tokens import Tokens
from neuralcodec.wrappers.classical.ffmpeg import Aac, Mp3, Opus
from neuralcodec.wrappers.classical.pcm import Pcm

CLIPS = Path(__file__).parents[2] / "shared" / "audio" / "eval"

SETTINGS: list[tuple[type[Any], dict[str, Any]]] = [
    (Opus, {"bitrate_kbps": 6, "sample_rate": 8000}),
    (Opus, {"bitrate_kbps": 10, "sample_rate": 12000}),
    (Opus, {"bitrate_kbps": 8}),
    (Opus, {"bitrate_kbps": 16}),
    (Opus, {"bitrate_kbps": 24, "vbr": False}),
    (Opus, {"bitrate_kbps": 32, "sample_rate": 24000, "application": "lowdelay"}),
    (Opus, {"bitrate_kbps": 64, "sample_rate": 48000}),
    (Mp3, {"bitrate_kbps": 16, "sample_rate": 8000}),
    (Mp3, {}),
    (Mp3, {"bitrate_kbps": 96, "sample_rate": 44100}),
    (Aac, {"bitrate_kbps": 16, "sample_rate": 8000}),
    (Aac, {}),
    (Aac, {"bitrate_kbps": 64, "sample_rate": 48000}),
]
IDS = [kind.__name__ + "".join(f"-{value}" for value in s.values()) for kind, s in SETTINGS]
every = pytest.mark.parametrize(("kind", "settings"), SETTINGS, ids=IDS)
one_each = pytest.mark.parametrize("kind", [Opus, Mp3, Aac])


def speech_like(sample_rate: int, seconds: float, seed: int = 0) -> Tensor:
    """Harmonics of a gliding pitch below 3.4 kHz in syllables, with noise: `[1, 1, T]`."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(sample_rate * seconds)) / sample_rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time)) / sample_rate
    tones = [np.cos(k * phase + rng.uniform(0, 6)) / k**0.7 for k in range(1, 22)]
    wav = np.sum(tones, axis=0) * (0.6 + 0.4 * np.cos(2 * np.pi * 4 * time))
    wav += 0.05 * rng.standard_normal(len(time))
    return torch.from_numpy(0.5 * wav / np.abs(wav).max()).float()[None, None]


def lag_of(estimate: Tensor, reference: Tensor) -> float:
    """Samples by which `estimate` comes late, to 1/16, at the peak of the cross-correlation."""
    a, b = reference.flatten().double().numpy(), estimate.flatten().double().numpy()
    size = 1 << (2 * len(a) - 1).bit_length()
    cross = np.conj(np.fft.rfft(a, size)) * np.fft.rfft(b, size)
    peak = int(np.argmax(np.fft.irfft(cross, 16 * size)))
    return (peak if peak < 8 * size else peak - 16 * size) / 16


def similarity(estimate: Tensor, reference: Tensor) -> float:
    """Cosine between two signals."""
    return float(torch.cosine_similarity(estimate.flatten(), reference.flatten(), dim=0))


def clip(name: str, sample_rate: int, seconds: float) -> Tensor:
    path = CLIPS / f"{name}.flac"
    if not path.is_file():
        pytest.skip(f"no {path.name} in shared/audio/eval")
    wav, rate = audio.read(path)
    wav = audio.resample(audio.mix_down(wav), rate, sample_rate).clamp(-1, 1)
    return wav[None, :, : round(sample_rate * seconds)]


def test_lag_of_finds_a_shift() -> None:
    wav = speech_like(16000, 1)
    assert lag_of(wav.roll(3, -1), wav) == 3
    assert lag_of(wav.roll(-2, -1), wav) == -2


@every
def test_output_is_in_time_with_the_input(kind: type[Any], settings: dict[str, Any]) -> None:
    codec: Codec = kind(**settings)
    wav = speech_like(codec.sample_rate, 1.5)
    out = codec.decode(codec.encode(wav))
    assert out.shape == wav.shape
    assert out.dtype == torch.float32
    assert abs(lag_of(out, wav)) < 0.5
    assert similarity(out, wav) > 0.85


@pytest.mark.parametrize("name", ["sp_en_libri1995", "sp_en_lj"])
@pytest.mark.parametrize(
    "codec",
    [Opus(8), Opus(12), Opus(24), Opus(24, 8000), Opus(40, 16000, "lowdelay"), Mp3(24), Aac(24)],
    ids=lambda codec: f"{codec.name}-{codec.bitrate_kbps}-{codec.sample_rate}",
)
def test_real_speech_is_in_time(name: str, codec: Codec) -> None:
    wav = clip(name, codec.sample_rate, 4)
    assert abs(lag_of(codec.decode(codec.encode(wav)), wav)) < 0.5


@pytest.mark.parametrize("kind", [Opus, Mp3, Aac])
def test_high_rates_are_in_time_on_real_music(kind: type[Any]) -> None:
    codec = kind(bitrate_kbps=96, sample_rate=48000)
    wav = clip("mu_castanets", 48000, 3)
    assert abs(lag_of(codec.decode(codec.encode(wav)), wav)) < 0.25


@every
def test_both_ends_survive(kind: type[Any], settings: dict[str, Any]) -> None:
    codec: Codec = kind(**settings)
    wav = speech_like(codec.sample_rate, 0.7)
    edge = codec.sample_rate // 20
    wav[..., edge:-edge] = 0
    out = codec.decode(codec.encode(wav))
    for window in (slice(0, edge), slice(-edge, None)):
        assert similarity(out[..., window], wav[..., window]) > 0.75


@every
def test_bitrate_is_that_of_the_bytes(kind: type[Any], settings: dict[str, Any]) -> None:
    codec: Codec = kind(**settings)
    wav = speech_like(codec.sample_rate, 2)
    tokens = codec.encode(wav)
    sizes = tokens.side["packet_sizes"]
    assert tokens.num_tokens == int(sizes.sum()) == tokens.codes[0].shape[-1]
    assert tokens.bitrate_kbps == pytest.approx(8 * tokens.num_tokens / 2 / 1000, rel=1e-12)
    assert tokens.num_bits == 8 * tokens.num_tokens
    assert tokens.padded_duration == pytest.approx(tokens.duration)
    assert tokens.bitrate_kbps == pytest.approx(settings.get("bitrate_kbps", 32), rel=0.25)


@every
def test_no_packet_more_than_needed(kind: type[Any], settings: dict[str, Any]) -> None:
    codec = kind(**settings)
    frames: dict[Any, int] = {
        Opus: codec.sample_rate // 50,
        Mp3: 1152 if codec.sample_rate >= 32000 else 576,
        Aac: 1024,
    }
    frame = frames[kind]
    for length in (1, 47, 577, 1000, frame, 2 * frame + 1):
        tokens = codec.encode(torch.zeros(1, 1, length))
        needed = math.ceil((length + int(tokens.side["delay"])) / frame)
        assert tokens.side["packet_sizes"].numel() == needed


def test_delays() -> None:
    def delay(codec: Codec) -> int:
        return int(codec.encode(torch.zeros(1, 1, 100)).side["delay"])

    assert [delay(Opus(sample_rate=rate)) for rate in (8000, 16000, 48000)] == [52, 104, 312]
    assert delay(Opus(application="lowdelay")) == 40
    assert delay(Mp3()) == 576 + 528 + 1
    assert delay(Aac()) == 1024


@every
def test_decoding_needs_only_the_tokens(kind: type[Any], settings: dict[str, Any]) -> None:
    codec: Codec = kind(**settings)
    wav = speech_like(codec.sample_rate, 0.5)
    tokens = codec.encode(wav)
    again = codec.encode(wav)
    assert torch.equal(tokens.streams[0], again.streams[0])
    out = codec.decode(tokens)
    assert torch.equal(out, codec.decode(tokens))
    assert torch.equal(out, kind(**settings).decode(again))


@one_each
@pytest.mark.parametrize("length", [1, 2, 47, 160, 216, 217, 575, 1023, 1024, 1025])
def test_short_clips_and_silence(kind: type[Any], length: int) -> None:
    codec: Codec = kind()
    out = codec.decode(codec.encode(torch.zeros(1, 1, length)))
    assert out.shape == (1, 1, length)
    assert out.abs().max() < 1e-4
    wav = speech_like(16000, 1)[..., :length]
    assert codec.decode(codec.encode(wav)).shape == wav.shape


@pytest.mark.parametrize("rate", [8000, 12000, 16000, 24000, 48000])
@pytest.mark.parametrize("kbps", [6, 9, 12, 32])  # SILK in all bands, and CELT
def test_opus_keeps_the_last_samples_of_full_packets(rate: int, kbps: float) -> None:
    codec, frame = Opus(kbps, sample_rate=rate), rate // 50
    delay = int(codec.encode(torch.zeros(1, 1, 1)).side["delay"])
    for length in (frame * 20 - delay - 1, frame * 20 - delay, frame * 20 - delay + 1):
        wav = speech_like(rate, 1)[..., :length]
        assert codec.decode(codec.encode(wav)).shape == wav.shape


def test_opus_constant_rate_has_packets_of_one_size() -> None:
    wav = speech_like(16000, 1)
    assert len(set(Opus(16, vbr=False).encode(wav).side["packet_sizes"].flatten().tolist())) == 1
    assert len(set(Opus(16, vbr=True).encode(wav).side["packet_sizes"].flatten().tolist())) > 1


@one_each
def test_more_bits_sound_closer(kind: type[Any]) -> None:
    wav = speech_like(16000, 1.5)
    outs = [(codec := kind(rate)).decode(codec.encode(wav)) for rate in (8, 24, 64)]
    scores = [similarity(out, wav) for out in outs]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


@one_each
def test_stays_silent_on_stderr(kind: type[Any], capfd: pytest.CaptureFixture[str]) -> None:
    codec: Codec = kind()
    for wav in (speech_like(16000, 0.3), torch.zeros(1, 1, 1), torch.ones(1, 1, 999)):
        codec.decode(codec.encode(wav))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("codec", [Opus(), Mp3(), Aac(), Pcm()], ids=lambda codec: codec.name)
def test_refuses_what_it_cannot_encode(codec: Codec) -> None:
    assert isinstance(codec, Codec)
    with pytest.raises(ValueError, match=r"peak of 1\.25"):
        codec.encode(torch.full((1, 1, 100), -1.25))
    codec.encode(torch.full((1, 1, 100), 1 + 5e-7))
    with pytest.raises(ValueError, match="num_codebooks must be 1, got 2"):
        codec.encode(torch.zeros(1, 1, 100), num_codebooks=2)
    with pytest.raises(ValueError, match=r"must be \[B, 1, T\]"):
        codec.encode(torch.zeros(1, 2, 100))
    with pytest.raises(ValueError, match="NaN"):
        codec.encode(torch.full((1, 1, 100), math.nan))


@one_each
def test_a_batch_has_a_stream_for_each_clip(kind: type[Any]) -> None:
    codec = kind()
    wav = torch.cat([speech_like(16000, 1), torch.zeros(1, 1, 16000)])
    tokens = codec.encode(wav)
    for clip, own in zip(wav, tokens, strict=True):
        assert own == codec.encode(clip)
    if kind is not Mp3:  # at a constant rate
        assert tokens[0].bitrate_kbps > 2 * tokens[1].bitrate_kbps
    assert torch.equal(codec.decode(tokens)[:1], codec.decode(codec.encode(wav[:1])))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Opus, {"bitrate_kbps": 5}, r"6\.\.256, got 5"),
        (Opus, {"bitrate_kbps": 300}, r"6\.\.256, got 300"),
        (Opus, {"bitrate_kbps": math.nan}, r"6\.\.256, got nan"),
        (Opus, {"sample_rate": 44100}, r"\[8000, 12000, 16000, 24000, 48000\] Hz, not 44100"),
        (Opus, {"application": "music"}, "audio, voip or lowdelay, got 'music'"),
        (Opus, {"vbr": "off"}, "vbr must be true or false, got 'off'"),
        (Mp3, {"bitrate_kbps": 20}, r"at 16000 Hz must be one of \[8, 16, 24, .* got 20"),
        (Mp3, {"bitrate_kbps": 8, "sample_rate": 44100}, r"one of \[32, 40,"),
        (Mp3, {"sample_rate": 96000}, "mp3 runs at .* not 96000"),
        (Aac, {"bitrate_kbps": 4}, r"aac at 16000 Hz must be 8\.\.96, got 4"),
        (Aac, {"bitrate_kbps": 97}, r"8\.\.96, got 97"),
        (Aac, {"sample_rate": 10000}, "aac runs at .* not 10000"),
        (Pcm, {"bits": 0}, r"bits must be 1\.\.16, got 0"),
        (Pcm, {"bits": 17}, r"bits must be 1\.\.16, got 17"),
        (Pcm, {"sample_rate": 0}, "sample_rate must be positive, got 0"),
    ],
)
def test_refuses_settings(kind: type[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def _bytes(codes: Tensor, sizes: list[int], *, rate: int = 16000, samples: int = 4000) -> Tokens:
    side = {"packet_sizes": torch.tensor([sizes]), "delay": torch.tensor([[0]])}
    return Tokens(codes, (1.0,), (256,), rate, samples, side=side)


@one_each
def test_refuses_broken_tokens(kind: type[Any]) -> None:
    codec: Codec = kind()
    garbage = torch.randint(128, 256, (1, 1, 90), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"tokens of 8000 Hz audio.* not of .* 16000 Hz"):
        codec.decode(_bytes(garbage, [90], rate=8000))
    with pytest.raises(ValueError, match="sum to the 90 codes, got 2 of sum 80"):
        codec.decode(_bytes(garbage, [40, 40]))
    with pytest.raises(ValueError, match="lacks delay, packet_sizes"):
        codec.decode(Tokens(garbage, (1.0,), (256,), 16000, 4000))
    for name, value, message in (
        ("packet_sizes", torch.tensor([90.0]), "got torch.float32 \\[1\\] and torch.int64"),
        ("delay", torch.tensor([0, 0]), "and torch.int64 \\[2\\]"),
        ("delay", torch.tensor([-3]), "delay must not be negative, got -3"),
    ):
        side = _bytes(garbage, [90]).side
        with pytest.raises(ValueError, match=message):
            codec.decode(replace(_bytes(garbage, [90]), side={**side, name: value}))
    with pytest.raises(ValueError, match=r"are no .* stream|codes decode to \d+ samples"):
        codec.decode(_bytes(garbage, [90]))
    wav = speech_like(16000, 0.5)
    tokens = codec.encode(wav)
    sizes = tokens.side["packet_sizes"][0].tolist()[:3]
    with pytest.raises(ValueError, match=r"codes decode to \d+ samples, 8000 were encoded"):
        codec.decode(
            Tokens(
                tokens.streams[0][:, None, : sum(sizes)],
                (1.0,),
                (256,),
                16000,
                8000,
                side={**tokens.side, "packet_sizes": torch.tensor([sizes])},
            )
        )


@pytest.mark.parametrize("bits", range(1, 17))
def test_pcm_error_is_at_most_half_a_step(bits: int) -> None:
    codec = Pcm(bits)
    wav = torch.linspace(-1, 1, 5001)[None, None]
    tokens = codec.encode(wav)
    error = (codec.decode(tokens) - wav).abs()
    near_top = wav > 1 - codec.step / 2
    assert error[~near_top].max() <= codec.step / 2 + 1e-7
    assert error.max() <= (codec.step if bits > 1 else codec.step / 2) + 1e-7
    assert 0 <= int(tokens.streams[0].min()) <= int(tokens.streams[0].max()) < 2**bits
    assert tokens.bitrate_kbps == 16 * bits


def test_pcm_16_bits_is_lossless_on_16_bit_audio() -> None:
    wav = torch.arange(-32768, 32768, dtype=torch.float32)[None, None] / 32768
    codec = Pcm(16)
    assert torch.equal(codec.decode(codec.encode(wav)), wav)


def test_pcm_silence_and_sign() -> None:
    silence = torch.zeros(2, 1, 9)
    for bits in range(2, 17):
        codec = Pcm(bits)
        assert torch.equal(codec.decode(codec.encode(silence)), silence)
    wav = torch.tensor([[[-1.0, -0.1, 0.1, 1.0]]])
    assert torch.equal(Pcm(1).decode(Pcm(1).encode(wav)), wav.sign() / 2)


def test_pcm_gains_6_db_a_bit() -> None:
    wav = torch.rand(1, 1, 100_000, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    levels = []
    for bits in range(4, 15):
        codec = Pcm(bits)
        error = codec.decode(codec.encode(wav)) - wav
        levels.append(10 * math.log10(float(wav.square().mean() / error.square().mean())))
    assert np.diff(levels) == pytest.approx(20 * math.log10(2), abs=0.15)


def test_pcm_refuses_the_tokens_of_another() -> None:
    tokens = Pcm(8).encode(torch.zeros(1, 1, 10))
    with pytest.raises(ValueError, match=r"are not of pcm: 16000 Hz, .* \(512,\)"):
        Pcm(9).decode(tokens)
    with pytest.raises(ValueError, match="tokens of 16000 Hz"):
        Pcm(8, sample_rate=8000).decode(tokens)
    with pytest.raises(ValueError, match="11 samples are 11 frames, got 10"):
        Pcm(8).decode(replace(tokens, num_samples=11))
