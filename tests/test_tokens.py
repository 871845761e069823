import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralcodec.core.rates import nominal_rates
from neuralcodec.core.tokens import Tokens, stack


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.long)


def uniform(
    num_codebooks: int,
    frame_rate: float,
    codebook_size: int,
    *,
    frames: int,
    sample_rate: int = 24000,
    num_samples: int | None = None,
) -> Tokens:
    """Tokens of zeros; by default the audio fills the frames."""
    if num_samples is None:
        num_samples = round(frames / frame_rate * sample_rate)
    return Tokens.uniform(
        zeros(1, num_codebooks, frames),
        frame_rate=frame_rate,
        codebook_size=codebook_size,
        sample_rate=sample_rate,
        num_samples=num_samples,
    )


def snac(frames: int = 376) -> Tokens:
    """SNAC at 24 kHz: three streams at 1/4, 1/2 and 1 of 24000 / 512 Hz, 4096 entries each."""
    return Tokens(
        tuple(zeros(1, frames // stride) for stride in (4, 2, 1)),
        frame_rates=tuple(24000 / 512 / stride for stride in (4, 2, 1)),
        codebook_sizes=(4096,) * 3,
        sample_rate=24000,
        num_samples=frames * 512,
    )


def test_exercise_50_hz_4_codebooks_of_1024() -> None:
    minute = uniform(4, 50, 1024, frames=3000, sample_rate=16000)
    assert minute.tokens_per_second == 200
    assert minute.bitrate_kbps == 2
    assert minute.duration == 60
    assert minute.num_tokens == 12_000
    assert minute.num_bits == 120_000


@pytest.mark.parametrize(
    ("tokens", "tokens_per_second", "bits_per_second"),
    [
        pytest.param(uniform(8, 75, 1024, frames=600), 600, 6000, id="encodec_24khz-8"),
        pytest.param(uniform(12, 16000 / 320, 1024, frames=400), 600, 6000, id="dac_16khz-12"),
        pytest.param(uniform(32, 24000 / 320, 1024, frames=600), 2400, 24000, id="dac_24khz-32"),
        pytest.param(uniform(9, 44100 / 512, 1024, frames=690), 775.2, 7752, id="dac_44khz-9"),
        pytest.param(uniform(8, 12.5, 2048, frames=100), 100, 1100, id="mimi-8"),
        pytest.param(snac(), 82.03, 984.4, id="snac_24khz"),
    ],
)
def test_published_rates(tokens: Tokens, tokens_per_second: float, bits_per_second: float) -> None:
    assert tokens.tokens_per_second == pytest.approx(tokens_per_second, rel=7e-5)
    assert tokens.bitrate_kbps * 1000 == pytest.approx(bits_per_second, rel=7e-5)
    seconds = tokens.padded_duration
    assert tokens.num_tokens / seconds == pytest.approx(tokens.tokens_per_second, rel=1e-12)
    assert tokens.num_bits / seconds == pytest.approx(1000 * tokens.bitrate_kbps, rel=1e-12)


@pytest.mark.parametrize(
    ("num_codebooks", "frames", "sample_rate", "tokens_per_second", "bits_per_second"),
    [(12, 400, 16000, 600.04, 6000.4), (32, 600, 24000, 2400.1, 24001)],
)
def test_dac_rates_published_over_what_it_decodes(
    num_codebooks: int,
    frames: int,
    sample_rate: int,
    tokens_per_second: float,
    bits_per_second: float,
) -> None:
    # 8 s of audio; the published figures divide by the decoder's output, which is 8 samples short.
    tokens = uniform(num_codebooks, sample_rate / 320, 1024, frames=frames, sample_rate=sample_rate)
    assert tokens.duration == 8
    assert tokens.tokens_per_second == num_codebooks * sample_rate / 320
    decoded = (tokens.num_samples - 8) / sample_rate
    assert tokens.num_tokens / decoded == pytest.approx(tokens_per_second, abs=0.005)
    assert tokens.num_bits / decoded == pytest.approx(bits_per_second, rel=1e-5)


def test_bits_of_sizes_that_are_no_power_of_two() -> None:
    assert nominal_rates([50.0], [500])[1] == pytest.approx(50 * math.log2(500) / 1000)
    assert nominal_rates([50.0], [1]) == (50.0, 0.0)


def test_a_short_clip_costs_a_whole_frame_at_the_usual_rate() -> None:
    tokens = uniform(4, 50, 1024, frames=1, sample_rate=16000, num_samples=160)
    assert tokens.duration == 0.01
    assert tokens.padded_duration == 0.02
    assert tokens.num_tokens == 4
    assert tokens.num_bits == 40
    assert tokens.tokens_per_second == 200
    assert tokens.bitrate_kbps == 2


def test_a_batch_does_not_change_what_a_clip_costs() -> None:
    one, many = (
        Tokens.uniform(
            zeros(batch, 2, 25), frame_rate=25, codebook_size=64, sample_rate=8000, num_samples=8000
        )
        for batch in (1, 5)
    )
    assert (one.batch_size, many.batch_size) == (1, 5)
    assert (one.num_tokens, one.num_bits) == (many.num_tokens, many.num_bits)
    assert one.bitrate_kbps == many.bitrate_kbps


def test_prefix_is_the_first_codebooks_and_their_cost() -> None:
    codes = torch.arange(2 * 6 * 10).reshape(2, 6, 10)
    tokens = Tokens.uniform(
        codes, frame_rate=10, codebook_size=128, sample_rate=1000, num_samples=1000
    )
    for k in range(1, 7):
        part = tokens.prefix(k)
        assert isinstance(part.codes, Tensor)
        assert torch.equal(part.codes, codes[:, :k])
        assert part.num_codebooks == k
        assert part.bitrate_kbps == pytest.approx(tokens.bitrate_kbps * k / 6)
        assert part.num_samples == tokens.num_samples
    assert tokens.num_codebooks == 6
    for k in (0, 7, -1):
        with pytest.raises(ValueError, match=rf"num_codebooks must be 1\.\.6, got {k}"):
            tokens.prefix(k)


def test_prefix_of_ragged_codes() -> None:
    part = snac().prefix(2)
    assert [stream.shape[1] for stream in part.streams] == [94, 188]
    assert part.tokens_per_second == pytest.approx(24000 / 512 * 0.75)


def test_stack_of_semantic_over_acoustic() -> None:
    acoustic = uniform(8, 75, 1024, frames=75)
    semantic = uniform(1, 25, 500, frames=25, sample_rate=16000)
    both = stack(semantic, acoustic)
    assert both.num_codebooks == 9
    assert both.tokens_per_second == 625
    expected = semantic.bitrate_kbps + acoustic.bitrate_kbps
    assert both.bitrate_kbps == pytest.approx(expected)
    assert both.num_tokens == 25 + 8 * 75
    assert (both.sample_rate, both.num_samples) == (24000, 24000)
    assert both.prefix(1).tokens_per_second == 25


def test_stack_of_like_tokens_is_one_tensor_in_the_order_given() -> None:
    def ones(value: int) -> Tokens:
        return Tokens.uniform(
            zeros(1, 2, 5) + value, frame_rate=5, codebook_size=9, sample_rate=100, num_samples=100
        )

    both = stack(ones(3), ones(7))
    assert isinstance(both.codes, Tensor)
    assert both.codes[0, :, 0].tolist() == [3, 3, 7, 7]


def test_stack_allows_what_resampling_rounds() -> None:
    # 24,001 samples at 24 kHz are 16,000.67 at 16 kHz, which resampling rounds up.
    acoustic = uniform(1, 75, 1024, frames=76, num_samples=24001)
    semantic = uniform(1, 50, 500, frames=51, sample_rate=16000, num_samples=16001)
    assert stack(semantic, acoustic).num_samples == 24001
    late = uniform(1, 50, 500, frames=51, sample_rate=16000, num_samples=16004)
    with pytest.raises(ValueError, match="equal to a sample"):
        stack(late, acoustic)


def _with_side(name: str, bits: float) -> Tokens:
    side = {name: torch.ones(1)}
    return Tokens(zeros(1, 1, 50), (50.0,), (2,), 8000, 8000, side=side, side_bits=bits)


def test_side_bits_count() -> None:
    plain, tokens = _with_side("scale", 0), _with_side("scale", 320)
    assert (plain.num_bits, tokens.num_bits) == (50, 370)
    assert plain.bitrate_kbps == pytest.approx(0.05)
    assert tokens.bitrate_kbps == pytest.approx(0.37)
    assert tokens.tokens_per_second == plain.tokens_per_second == 50
    assert tokens.prefix(1).num_bits == 370
    empty = replace(tokens, codes=tokens.streams[0][:, None, :0], num_samples=0)
    assert empty.bitrate_kbps == math.inf
    both = stack(tokens, _with_side("gain", 30))
    assert (sorted(both.side), both.side_bits) == (["gain", "scale"], 350)
    assert both.bitrate_kbps == pytest.approx(0.05 * 2 + 0.35)


def test_stack_refuses() -> None:
    with pytest.raises(ValueError, match="at least one Tokens"):
        stack()
    with pytest.raises(ValueError, match=r"parts last \[1\.0, 2\.0\] s"):
        stack(uniform(1, 50, 2, frames=50), uniform(1, 50, 2, frames=100))
    with pytest.raises(ValueError, match=r"side of two parts: \['scale'\]"):
        stack(_with_side("scale", 1), _with_side("scale", 2))
    two = Tokens(zeros(2, 1, 50), (50.0,), (2,), 8000, 8000)
    with pytest.raises(ValueError, match=r"batch sizes differ: \[1, 2\]"):
        stack(_with_side("scale", 1), two)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": zeros(4, 10)}, r"codes must be \[B, K, T\], got shape \(4, 10\)"),
        ({"codes": zeros(1, 2, 10)}, "2 codebooks of codes, 1 frame rates and 1 codebook sizes"),
        ({"frame_rates": (10.0, 10.0)}, "1 codebooks of codes, 2 frame rates"),
        ({"codes": (), "frame_rates": (), "codebook_sizes": ()}, "at least one codebook"),
        ({"sample_rate": 0}, "got 0 and 100"),
        ({"num_samples": -1}, "got 100 and -1"),
        ({"codes": torch.zeros(1, 1, 10)}, r"must be int64 \[B, T\], got torch.float32 \[1, 10\]"),
        ({"codes": (zeros(10),)}, r"codebook 0 must be int64 \[B, T\], got torch.int64 \[10\]"),
        ({"frame_rates": (0.0,)}, "frame rate 0.0 Hz"),
        ({"frame_rates": (math.inf,)}, "frame rate inf Hz"),
        ({"frame_rates": (math.nan,)}, "frame rate nan Hz"),
        ({"codebook_sizes": (0,)}, "0 entries"),
        ({"codes": zeros(1, 1, 10) + 4}, r"must lie in 0\.\.3, got 4\.\.4"),
        ({"codes": zeros(1, 1, 10) - 1}, r"must lie in 0\.\.3, got -1\.\.-1"),
        ({"side_bits": -1.0}, "side_bits must be finite and not negative, got -1.0"),
        ({"side_bits": math.nan}, "side_bits must be finite and not negative, got nan"),
    ],
)
def test_refuses_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "codes": zeros(1, 1, 10),
        "frame_rates": (10.0,),
        "codebook_sizes": (4,),
        "sample_rate": 100,
        "num_samples": 100,
    }
    Tokens(**good)
    with pytest.raises(ValueError, match=message):
        Tokens(**good | changes)


def test_refuses_streams_that_do_not_fit_each_other() -> None:
    def make(*streams: Tensor) -> Tokens:
        return Tokens(streams, (10.0, 20.0), (4, 4), 100, 100)

    make(zeros(1, 10), zeros(1, 20))
    make(zeros(1, 10), zeros(1, 19))  # the last frame may be cut
    with pytest.raises(ValueError, match=r"batch sizes differ: \[1, 2\]"):
        make(zeros(1, 10), zeros(2, 20))
    with pytest.raises(ValueError, match=r"different times, in seconds: \[1\.0, 0\.5\]"):
        make(zeros(1, 10), zeros(1, 10))


def test_uniform_refuses_flat_codes() -> None:
    with pytest.raises(ValueError, match=r"got shape \(4, 10\)"):
        Tokens.uniform(
            zeros(4, 10), frame_rate=10, codebook_size=4, sample_rate=100, num_samples=100
        )


def test_tokens_cannot_be_reassigned() -> None:
    tokens = snac()
    with pytest.raises(FrozenInstanceError):
        tokens.sample_rate = 16000  # type: ignore[misc]  # what is tested
