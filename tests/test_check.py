"""The check: good codecs pass, and each line fails on a codec broken in just that way."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralcodec import load
from neuralcodec.check import LINES, run
from neuralcodec.check.compare import Comparison, codes_apart, relative_error
from neuralcodec.check.subject import Subject
from neuralcodec.core.audio import check_tensor, check_wav, fit_length
from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.registry import REGISTRY, Entry, Facts
from neuralcodec.core.tokens import Tokens

HOP = 2
LEVELS = 3
UNITS = (256, 16, 1)  # what a step of each level is worth
STEPS = 4096


def digits(y: Tensor, depth: int) -> Tensor:
    """Write `y [B, T]` in -1..1 with `depth` digits of four bits, `[B, K, T]`: nested codes."""
    number = ((y.clamp(-1, 1) + 1) / 2 * STEPS).floor().long().clamp(max=STEPS - 1)
    return torch.stack([number // unit % 16 for unit in UNITS[:depth]], 1)


class Toy(LatentCodec):
    """A codec of two samples per frame that sees a frame to either side, and keeps all promises.

    It does itself what the base class would do for it, so that each of it can be broken.
    """

    name, sample_rate, channels, is_causal = "toy", 8000, 1, False
    dim, frame_rate = 1, 8000 / HOP
    frame_rates: tuple[float, ...] = (8000 / HOP,) * LEVELS
    codebook_sizes: tuple[int, ...] = (16,) * LEVELS
    hop_length, encode_context, decode_context = HOP, 1, 1
    kernel = (1 / 8, 3 / 4, 1 / 8)
    line = ""  # of the check, that a broken one fails

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.weights = weights

    def _analyse(self, wav: Tensor) -> Tensor:
        return self.encode_latents(wav)

    def _synthesise(self, z: Tensor) -> Tensor:
        return self.decode_latents(z)

    def smooth(self, y: Tensor) -> Tensor:
        before, here, after = self.kernel
        padded = torch.nn.functional.pad(y, (1, 1))
        return before * padded[..., :-2] + here * y + after * padded[..., 2:]

    def encode_latents(self, wav: Tensor) -> Tensor:
        check_tensor(wav, "wav", "[B, 1, T]")
        check_wav(wav, channels=1)
        wav = fit_length(wav, -(-wav.shape[-1] // HOP) * HOP)
        return self.smooth(wav.reshape(*wav.shape[:2], -1, HOP).mean(-1))

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        if z.ndim != 3 or z.shape[1] != 1 or 0 in z.shape:
            raise ValueError("z must be [B, 1, T]")
        wav = self.smooth(z).repeat_interleave(HOP, dim=-1)
        return wav if length is None else fit_length(wav, length)

    def codes(self, y: Tensor, depth: int) -> Tensor:
        return digits(y, depth)

    def encode(self, wav: Any, num_codebooks: int | None = None, **_: Any) -> Tokens:
        if isinstance(wav, list):
            return Tokens.batch([self.encode(clip, num_codebooks) for clip in wav])
        wav = wav[None] if getattr(wav, "ndim", 3) == 2 else wav
        depth = LEVELS if num_codebooks is None else num_codebooks
        if depth not in range(1, LEVELS + 1):
            raise ValueError("num_codebooks must be 1..3")
        return Tokens.uniform(
            self.codes(self.encode_latents(wav)[:, 0], depth),
            frame_rate=self.frame_rates[0],
            codebook_size=16,
            sample_rate=self.sample_rate,
            num_samples=wav.shape[-1],
        )

    def decode(self, tokens: Tokens) -> Tensor:
        depth = tokens.num_codebooks
        got = (tokens.sample_rate, tokens.frame_rates, tokens.codebook_sizes)
        if got != (self.sample_rate, self.frame_rates[:depth], self.codebook_sizes[:depth]):
            raise ValueError("foreign tokens")
        if tokens.clips is not None:
            clips = [Toy.decode(self, clip) for clip in tokens]
            return torch.cat([fit_length(clip, tokens.num_samples) for clip in clips])
        return self.decode_latents(self.values(tokens), tokens.num_samples)

    def values(self, tokens: Tokens) -> Tensor:
        """Give the middle of what the digits leave open, `[B, 1, T]`."""
        depth = tokens.num_codebooks
        number = torch.full_like(tokens.streams[0], UNITS[depth - 1] // 2)
        for code, unit in zip(tokens.streams, UNITS, strict=False):
            number += code * unit
        return number[:, None] / STEPS * 2 - 1


class Following:
    """A stream that remembers all it was given and works it out anew: slow, and surely right."""

    def __init__(self, whole: Callable[[Tensor], Tensor], ready: Callable[[int], int]) -> None:
        self.whole, self.ready, self.done = whole, ready, 0
        self.past: Tensor | None = None

    def push(self, x: Tensor) -> Tensor:
        self.past = x if self.past is None else torch.cat([self.past, x], -1)
        return self.give(self.ready(self.past.shape[-1]))

    def finish(self) -> Tensor:
        return self.give(None)

    def give(self, end: int | None) -> Tensor:
        assert self.past is not None
        out = self.whole(self.past)[..., self.done : end]
        self.done += out.shape[-1]
        return out


class CausalToy(Toy):
    """The same with a look back in place of one to both sides, with streams."""

    name, is_causal, is_streaming = "causal toy", True, True
    kernel = (1 / 16, 15 / 16, 0)

    def stream(self, num_codebooks: int | None = None) -> Following:  # type: ignore[override]
        def whole(wav: Tensor) -> Tensor:
            codes = self.encode(wav, num_codebooks).codes
            assert isinstance(codes, Tensor)
            return codes

        return Following(whole, lambda samples: samples // HOP)

    def decode_stream(self) -> Following:  # type: ignore[override]
        def whole(codes: Tensor) -> Tensor:
            tokens = Tokens.uniform(
                codes,
                frame_rate=self.frame_rate,
                codebook_size=16,
                sample_rate=self.sample_rate,
                num_samples=codes.shape[-1] * HOP,
            )
            return self.decode(tokens)

        return Following(whole, lambda frames: frames * HOP)


class Latents(LatentCodec):
    """The toy without its quantizer."""

    has_codebooks = False
    name, sample_rate, channels, is_causal = "latents", 8000, 1, False
    dim, frame_rate = Toy.dim, Toy.frame_rate
    hop_length, encode_context, decode_context = HOP, 1, 1
    smooth, kernel = Toy.smooth, Toy.kernel
    encode_latents, decode_latents = Toy.encode_latents, Toy.decode_latents
    _analyse, _synthesise = Toy._analyse, Toy._synthesise


def statuses(codec: Any, *, trained: bool = True) -> dict[str, str]:
    return {result.name: result.status for result in run(codec, trained=trained)}


def failed(codec: Any) -> set[str]:
    return {name for name, status in statuses(codec).items() if status == "fail"}


def test_fakes_keep_the_protocols() -> None:
    assert isinstance(Toy(), Codec)
    assert isinstance(Toy(), LatentCodec)
    assert Toy().is_chunkable
    assert CausalToy().is_streaming
    assert not Latents().num_codebooks


@pytest.mark.parametrize(
    ("codec", "not_applicable"),
    [
        (Toy, {"stream = offline", "causality"}),
        (CausalToy, set()),
        (Latents, {"lengths", "stream = offline", "causality", "prefix", "foreign tokens"}),
    ],
)
def test_good_codecs_pass_every_line(codec: type[Any], not_applicable: set[str]) -> None:
    results = run(codec())
    assert [result.name for result in results] == list(LINES)
    assert [result for result in results if result.status == "fail"] == []
    assert {result.name for result in results if result.status == "n.a."} == not_applicable
    assert all(result.explanation for result in results)
    assert all(result.measured and result.bound for result in results if result.status == "pass")


@pytest.mark.parametrize("name", ["pcm", "opus", "mp3", "aac", "mdct", "mel"])
def test_real_codecs_without_weights_pass(name: str) -> None:
    results = run(load(name))
    assert [result for result in results if result.status == "fail"] == []


def test_a_trained_codec_passes(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURALCODEC_WEIGHTS", str(shared / "models"))
    results = {result.name: result for result in run(load("lyra_v2"))}
    assert {name for name, result in results.items() if result.status != "pass"} == set()


# One broken codec after the other, and the line that must tell.


class Short(Toy):
    line = "length"

    def decode(self, tokens: Tokens) -> Tensor:
        return super().decode(tokens)[..., :-1]


class Picky(Toy):
    line = "length"

    def encode_latents(self, wav: Tensor) -> Tensor:
        if wav.shape[-1] < HOP:
            raise RuntimeError("kernel size can't be greater than actual input size")
        return super().encode_latents(wav)


class Overstated(Toy):
    line = "rates"
    frame_rates = (8000 / HOP * 1.02,) * LEVELS


class Padded(Toy):
    line = "rates"

    def encode_latents(self, wav: Tensor) -> Tensor:
        return torch.nn.functional.pad(super().encode_latents(wav), (0, 900))


class Wide(Toy):
    line = "latents"
    dim = 2


class Moody(Toy):
    line = "determinism"
    calls = 0

    def codes(self, y: Tensor, depth: int) -> Tensor:
        self.calls += 1
        return digits(y + 1e-4 * self.calls, depth)


class Dithered(Toy):
    line = "determinism"
    generator = torch.Generator().manual_seed(0)

    def decode(self, tokens: Tokens) -> Tensor:
        wav = super().decode(tokens)
        return wav + 1e-6 * torch.rand(wav.shape, generator=self.generator)


class Averaging(Toy):
    line = "batch = single"

    def encode_latents(self, wav: Tensor) -> Tensor:
        z = super().encode_latents(wav)
        return z - 0.01 * z.abs().mean()


class FirstOfBatch(Toy):
    line = "batch = single"

    def decode(self, tokens: Tokens) -> Tensor:
        wav = super().decode(tokens)
        return wav + 0.01 * wav[:1].abs().mean()


class Shortsighted(Toy):
    line = "chunks = whole"
    encode_context = 0


class ShortsightedDecoder(Toy):
    line = "chunks = whole"
    decode_context = 0


class ShortsightedLatents(Latents):
    line = "chunks = whole"
    encode_context = 0


class OffByOne(CausalToy):
    line = "stream = offline"

    def stream(self, num_codebooks: int | None = None) -> Following:  # type: ignore[override]
        stream = super().stream(num_codebooks)
        stream.done = 1
        return stream


class Forgetful(CausalToy):
    line = "stream = offline"

    def decode_stream(self) -> Following:  # type: ignore[override]
        class Forgetting(Following):
            def push(self, x: Tensor) -> Tensor:
                self.past, self.done = None, 0
                return super().push(x)

        stream = super().decode_stream()
        return Forgetting(stream.whole, stream.ready)


class ForesightDenied(Toy):
    line = "causality"
    is_causal = True


class Unnested(Toy):
    line = "prefix"

    def codes(self, y: Tensor, depth: int) -> Tensor:
        return digits(y, LEVELS)[:, LEVELS - depth :]


class AllOrNothing(Toy):
    line = "prefix"

    def values(self, tokens: Tokens) -> Tensor:
        if tokens.num_codebooks < LEVELS:
            raise ValueError("all codebooks are needed")
        return super().values(tokens)


class Deaf(Toy):
    line = "prefix"

    def encode(self, wav: Any, num_codebooks: int | None = None, **_: Any) -> Tokens:
        super().encode(wav, num_codebooks)
        return super().encode(wav)


class Late(Toy):
    line = "delay"

    def decode(self, tokens: Tokens) -> Tensor:
        return torch.nn.functional.pad(super().decode(tokens), (7, 0))[..., :-7]


class Early(Toy):
    line = "delay"

    def decode(self, tokens: Tokens) -> Tensor:
        return torch.nn.functional.pad(super().decode(tokens), (0, 3))[..., 3:]


class Fading(Toy):
    line = "shift"

    def encode_latents(self, wav: Tensor) -> Tensor:
        z = super().encode_latents(wav)
        return z * (1 + torch.arange(z.shape[-1]) / z.shape[-1]) / 2


class Loudening(Toy):
    line = "re-encoding"

    def decode(self, tokens: Tokens) -> Tensor:
        return 2 * super().decode(tokens)


class Humming(Toy):
    line = "silence"

    def decode(self, tokens: Tokens) -> Tensor:
        return super().decode(tokens) + 0.02


class NanOnSilence(Toy):
    line = "silence"

    def decode(self, tokens: Tokens) -> Tensor:
        wav = super().decode(tokens)
        peak = wav.abs().max()
        return wav / (peak if peak > 0.01 else 0 * peak) * peak


class Overflowing(Toy):
    line = "levels"

    def decode(self, tokens: Tokens) -> Tensor:
        wav = super().decode(tokens)
        return torch.where(wav > 0.95, torch.inf, wav)


class NanBeyondFullScale(Toy):
    line = "levels"

    def encode_latents(self, wav: Tensor) -> Tensor:
        z = super().encode_latents(wav)
        self.beyond = bool(wav.abs().max() > 1)
        return z

    def decode(self, tokens: Tokens) -> Tensor:
        return super().decode(tokens) * (torch.nan if self.beyond else 1)


class Trusting(Toy):
    line = "bad input"

    def encode_latents(self, wav: Tensor) -> Tensor:
        return super().encode_latents(torch.nan_to_num(wav))


class Clamping(Toy):
    line = "bad input"

    def encode(self, wav: Any, num_codebooks: int | None = None, **_: Any) -> Tokens:
        return super().encode(wav, max(1, min(num_codebooks or LEVELS, LEVELS)))


class Asserting(Toy):
    line = "bad input"

    def encode_latents(self, wav: Tensor) -> Tensor:
        assert wav.ndim == 3
        return super().encode_latents(wav)


class Omnivorous(Toy):
    line = "foreign tokens"

    def decode(self, tokens: Tokens) -> Tensor:
        return self.decode_latents(self.values(tokens), tokens.num_samples)


class Seeding(Toy):
    line = "side effects"

    def decode(self, tokens: Tokens) -> Tensor:
        torch.rand(1)
        return super().decode(tokens)


class SeedingNumpy(Toy):
    line = "side effects"

    def decode(self, tokens: Tokens) -> Tensor:
        np.random.random()  # noqa: NPY002  # the global state is what it is about
        return super().decode(tokens)


class SeedingPython(Toy):
    line = "side effects"

    def encode(self, wav: Any, num_codebooks: int | None = None, **_: Any) -> Tokens:
        random.random()
        return super().encode(wav, num_codebooks)


class Threading(Toy):
    line = "side effects"

    def decode(self, tokens: Tokens) -> Tensor:
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().decode(tokens)


class InPlace(Toy):
    line = "side effects"

    def encode_latents(self, wav: Tensor) -> Tensor:
        z = super().encode_latents(wav)
        wav.mul_(0.9)
        return z


class Inferring(Toy):
    line = "side effects"

    def decode(self, tokens: Tokens) -> Tensor:
        with torch.inference_mode():
            return super().decode(tokens)


class Mixing(Toy):
    line = "lengths"

    def encode(self, wav: Any, num_codebooks: int | None = None, **_: Any) -> Tokens:
        if isinstance(wav, list):  # the longest decides of what all are padded with
            level = max(float(clip.abs().max()) for clip in wav)
            return Tokens.batch([super().encode(clip * level, num_codebooks) for clip in wav])
        return super().encode(wav, num_codebooks)


class Halved(Toy):
    line = "autocast"

    def smooth(self, y: Tensor) -> Tensor:
        weights = torch.tensor(self.kernel)[None]
        padded = torch.nn.functional.pad(y, (1, 1)).unfold(-1, 3, 1)
        return (padded @ weights.mT)[..., 0]  # a product that autocast does in half precision


class Unpicklable(Toy):
    line = "copies"

    def __init__(self) -> None:
        super().__init__()
        self.hook = lambda: None


BROKEN = [each for each in Toy.__subclasses__() if each is not CausalToy]
BROKEN += CausalToy.__subclasses__()


@pytest.mark.parametrize("codec", [*BROKEN, ShortsightedLatents], ids=lambda codec: codec.__name__)
def test_a_broken_codec_fails_its_line(codec: Any) -> None:
    threads = torch.get_num_threads()
    try:
        assert codec.line in failed(codec())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("state", "change"),
    [
        ("the random state of torch", lambda: torch.rand(1)),
        ("the random state of numpy", lambda: np.random.random()),  # noqa: NPY002  # the global one
        ("the random state of Python", random.random),
        ("torch's threads", lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
        ("torch's default type", lambda: torch.set_default_dtype(torch.float64)),
        ("torch's gradient mode", lambda: torch.set_grad_enabled(False)),
        ("torch's deterministic mode", lambda: torch.use_deterministic_algorithms(True)),
        ("numpy's error handling", lambda: np.seterr(all="ignore")),
    ],
)
def test_the_state_that_a_codec_changes_is_named(state: str, change: Callable[[], Any]) -> None:
    class Changing(Toy):
        def decode(self, tokens: Tokens) -> Tensor:
            wav = super().decode(tokens)
            change()
            return wav

    threads, handling = torch.get_num_threads(), np.geterr()
    try:
        found = LINES["side effects"](Subject(Changing()))
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.use_deterministic_algorithms(False)
        np.seterr(**handling)
    assert not found.holds
    assert found.measured == f"changed: {state}"


def test_every_line_can_fail() -> None:
    assert {codec.line for codec in BROKEN} == set(LINES)


def test_an_error_is_a_failure_that_says_what_it_was() -> None:
    (result,) = [result for result in run(Picky()) if result.name == "length"]
    assert result.measured.startswith("RuntimeError: kernel size")


def test_random_weights_are_not_asked_for_the_waveform() -> None:
    assert statuses(Late(), trained=False)["delay"] == "n.a."
    assert statuses(Humming(), trained=False)["silence"] == "pass"


def test_a_waveform_that_is_lost_has_no_delay() -> None:
    class Noise(Toy):
        def decode(self, tokens: Tokens) -> Tensor:
            wav = super().decode(tokens)
            noise = torch.rand(wav.shape[-1], generator=torch.Generator().manual_seed(1))
            return wav.abs() * (noise - 0.5)

    (result,) = [result for result in run(Noise()) if result.name == "delay"]
    assert result.status == "n.a."
    assert "phase is lost" in result.explanation


def test_contexts_too_long_to_try_are_not_applicable() -> None:
    class Farsighted(Toy):
        encode_context = 8000 * 5

    results = {result.name: result for result in run(Farsighted())}
    assert results["chunks = whole"].status == "n.a."
    assert "40 s are needed" in results["chunks = whole"].explanation


def test_rates_are_those_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def registered(facts: Facts) -> str:
        monkeypatch.setitem(REGISTRY, "toy", Entry("test_check", "Toy", None, "a toy", facts=facts))
        return statuses(Toy())["rates"]

    rates = (8000 / HOP,) * LEVELS
    assert registered(Facts(8000, 1, rates, (16,) * LEVELS, False, dim=1)) == "pass"
    assert registered(Facts(8001, 1, rates, (16,) * LEVELS, False, dim=1)) == "fail"
    assert registered(Facts(8000, 1, rates, (17,) * LEVELS, False, dim=1)) == "fail"
    assert registered(Facts(8000, 1, rates, (16,) * LEVELS, True, dim=1)) == "fail"


def test_an_error_is_over_the_level_of_the_reference() -> None:
    wav = torch.tensor([[3.0, -4.0, 0.0]])
    assert relative_error(2 * wav, wav) == pytest.approx(1)
    assert relative_error(0 * wav, wav) == pytest.approx(1)
    assert relative_error(0 * wav, 0 * wav) == 0
    assert relative_error(wav, 0 * wav) == float("inf")
    assert relative_error(wav[:, :2], wav) == float("inf")


def test_codes_that_one_side_lacks_all_differ() -> None:
    one = [torch.arange(6)[None], torch.arange(6)[None], torch.arange(3)[None]]
    assert codes_apart(one, one) == (0, 15)
    for other, apart in ((one[:2], 3), (one[:1], 9), ([], 15), ([one[0], one[2], one[2]], 6)):
        assert codes_apart(one, other) == codes_apart(other, one) == (apart, 15)


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_comparisons_the_worst_counts(order: int) -> None:
    wav, codes = torch.ones(1, 1, 100), torch.zeros(1, 300, dtype=torch.long)
    far = codes.clone()
    far[:, :3] = 1
    errors = [1e-6, 1e-2, 1e-5][::order]
    audio, latents, coded = Comparison(), Comparison(), Comparison()
    for error, other in zip(errors, [codes, far, codes][::order], strict=True):
        audio.audio(wav * (1 + error), wav)
        latents.coded([wav * (1 + error)], [wav])
        coded.coded([other], [codes])
    assert not audio.finding("").holds
    assert not latents.finding("").holds
    assert "off by 0.01" in audio.finding("").measured
    assert "3 of 900 codes differ" in coded.finding("").measured  # of all, 0.3 %
    assert coded.finding("").holds
    assert not coded.finding("", exact=True).holds


def test_what_is_no_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a Codec, got object"):
        run(object())


# The command


def test_command_shows_a_table(cli: Callable[..., Any]) -> None:
    said = cli("check", "pcm", "--set", "bits=12", "--set", "sample_rate=8000")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split()[:3] == ["line", "result", "measured"]
    assert len(lines) == 2 + len(LINES)
    assert lines[-1].startswith("pcm: ")
    assert "0 fail" in lines[-1]
    assert "96 kbit/s" in said.out


def test_command_fails_where_a_line_fails(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTRY, "short", Entry("test_check", "Short", None, "too short"))
    said = cli("check", "short")
    assert (said.status, said.err) == (1, "")
    assert any(line.split()[:2] == ["length", "fail"] for line in said.out.splitlines())


def test_command_knows_random_weights(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTRY, "humming", Entry("test_check", "Humming", None, "never quiet"))
    assert cli("check", "humming").status == 1
    assert cli("check", "humming", "--weights", "random").status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["opsu"], "did you mean 'opus'"),
        (["pcm", "--set", "bit=4"], "did you mean 'bits'"),
        (["pcm", "--set", "bits"], "--set takes KEY=VALUE, got 'bits'"),
        (["pcm", "--set", "bits=2", "--set", "bits=3"], "--set bits is given twice"),
        (["pcm", "--set", "sample_rate=False"], "sample_rate must be positive, got False"),
        (["opus", "--set", "bitrate_kbps=low"], "built with bitrate_kbps=low: '<=' not supported"),
        (
            ["mel", "--set", "num_mels=2.5"],
            "codec 'mel' can't be built with num_mels=2.5: linspace",
        ),
        (["pcm", "--set", "bits=99"], "bits must be 1..16, got 99"),
        (["pcm", "--weights", "here"], "unknown setting of codec 'pcm': 'weights'"),
    ],
)
def test_command_tells_errors_in_a_line(
    cli: Callable[..., Any], arguments: list[str], message: str
) -> None:
    said = cli("check", *arguments)
    assert (said.status, said.out) == (1, "")
    assert message in said.err
    assert said.err.count("\n") == 1
