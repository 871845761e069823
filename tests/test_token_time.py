import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuralcodec.core.tokens import Tokens

RATES = {
    "one rate": ((50.0,) * 3, 16000),
    "snac": (tuple(24000 / 512 / stride for stride in (4, 2, 1)), 24000),
    "50 and 75 Hz": ((50.0, 75.0), 24000),
    "dac": ((44100 / 512,) * 2, 44100),
    "no whole hop": ((37.5, 37.5), 16000),  # 426.67 samples
    "no whole hop, ragged": ((18.75, 37.5), 16000),
}


def count(frame_rates: tuple[float, ...], seconds: float) -> list[int]:
    """Frames per codebook that cover some seconds."""
    return [math.ceil(rate * seconds - 1e-9) for rate in frame_rates]


def make(
    frame_rates: tuple[float, ...],
    sample_rate: int,
    num_samples: int,
    frames: list[int] | None = None,
    batch: int = 1,
) -> Tokens:
    """Codes that say which frame they are."""
    frames = frames or count(frame_rates, num_samples / sample_rate)
    streams = tuple(torch.arange(n).expand(batch, n) for n in frames)
    same = len(set(frame_rates)) == 1
    return Tokens(
        torch.stack(streams, dim=1) if same else streams,
        frame_rates=frame_rates,
        codebook_sizes=(100_000,) * len(frame_rates),
        sample_rate=sample_rate,
        num_samples=num_samples,
    )


def block_seconds(case: str) -> float:
    """The shortest time after which all codebooks begin a frame together."""
    return {"50 and 75 Hz": 1 / 25}.get(case, 1 / min(RATES[case][0]))


@pytest.mark.parametrize("case", RATES)
@given(num_samples=st.integers(1, 60_000), data=st.data())
@settings(max_examples=50, deadline=None)
def test_cut_and_joined_is_the_same(case: str, num_samples: int, data: st.DataObject) -> None:
    tokens = make(*RATES[case], num_samples, batch=2)
    block = block_seconds(case)
    # edges within the audio; at its end nothing would be left
    edges = range(1, math.ceil(tokens.duration / block - 1e-6))
    cuts = data.draw(st.sets(st.sampled_from(edges), max_size=4)) if edges else set()
    times = [None, *(edge * block for edge in sorted(cuts)), None]
    parts = [tokens.crop(*span) for span in pairwise(times)]
    assert Tokens.concat(parts) == tokens
    assert sum(part.num_samples for part in parts) == num_samples
    half = len(parts) // 2
    if half:  # joined in any order of joining
        halves = [Tokens.concat(parts[:half]), Tokens.concat(parts[half:])]
        assert Tokens.concat(halves) == tokens


@pytest.mark.parametrize("case", RATES)
@given(num_samples=st.integers(1000, 60_000), ends=st.tuples(*[st.floats(0, 1)] * 2))
@settings(max_examples=50, deadline=None)
def test_crop_keeps_the_frames_that_overlap_and_no_others(
    case: str, num_samples: int, ends: tuple[float, float]
) -> None:
    tokens = make(*RATES[case], num_samples)
    start, stop = (end * tokens.duration for end in sorted(ends))
    block = block_seconds(case)
    if stop - start < 1e-4 or any(abs(t / block - round(t / block)) < 1e-4 for t in (start, stop)):
        return  # which side of an edge it is on is rounding
    part = tokens.crop(start, stop)
    begin, end = math.floor(start / block), math.ceil(stop / block)
    for stream, rate in zip(part.streams, tokens.frame_rates, strict=True):
        first, last = round(begin * block * rate), round(end * block * rate)
        whole = count((rate,), tokens.duration)[0]
        assert stream[0].tolist() == list(range(first, min(last, whole)))
    covered = begin * block, min(end * block, tokens.duration)
    length = (covered[1] - covered[0]) * tokens.sample_rate
    assert abs(part.num_samples - length) < 1
    assert part.frame_rates == tokens.frame_rates


def test_crop_in_figures() -> None:
    tokens = make((50.0, 50.0), 16000, 15900)  # 49.7 frames
    part = tokens.crop(0.21, 0.5)
    assert part.streams[0][0].tolist() == list(range(10, 25))
    assert part.num_samples == 15 * 320
    assert isinstance(part.codes, Tensor)
    assert tokens.crop(0.98).num_samples == 15900 - 49 * 320
    assert tokens.crop(-0.1) == tokens.crop(tokens.duration - 0.1)
    assert tokens.crop(stop=-0.5) == tokens.crop(0, tokens.duration - 0.5)
    assert tokens.crop() == tokens.crop(0, tokens.duration) == tokens
    tiny = tokens.crop(0.1, 0.1 + 1e-12)
    assert tiny.streams[0][0].tolist() == [5]


def test_frames_beyond_the_audio_stay_at_its_end() -> None:
    tokens = make((50.0,), 16000, 16000, [53])
    assert tokens.crop(0.5).streams[0][0].tolist() == list(range(25, 53))
    assert tokens.crop(0.5).num_samples == 8000
    assert tokens.crop(0.5, 0.98).streams[0].shape[1] == 24
    assert Tokens.concat([tokens.crop(0, 0.5), tokens.crop(0.5)]) == tokens
    short = make((50.0,), 16000, 15900, [53])
    part = short.crop(0.5, 0.99)  # within the frame that the audio ends in
    assert (part.streams[0].shape[1], part.num_samples) == (25, 7900)


@given(frame_rate=st.floats(1, 500), frames=st.integers(2, 2000), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_frame_begins_at_the_sample_it_falls_into(
    frame_rate: float, frames: int, data: st.DataObject
) -> None:
    edge = data.draw(st.integers(1, frames - 1))
    exact = Fraction(edge) * 16000 / Fraction(frame_rate)
    near = min(exact % 1, 1 - exact % 1)
    assume(near == 0 or near > Fraction(1, 10_000))
    tokens = make((frame_rate,), 16000, math.floor(frames / frame_rate * 16000), [frames])
    assert tokens.crop(0, edge / frame_rate).num_samples == math.floor(exact)


def test_rounding_moves_no_frame() -> None:
    rate = 16000 * 3 / 1000  # frames of 333.33 samples, every third at a whole one
    tokens = make((rate,), 16000, 1000 * 400)
    for edge in range(3, 1200, 3):
        assert tokens.crop(0, edge / rate).num_samples == edge // 3 * 1000


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0.5, 0.5),
        (0.6, 0.5),
        (0.5, 1.01),
        (-1.1, None),
        (1.0, None),
        (math.nan, 1.0),
        (0, math.inf),
    ],
)
def test_crop_refuses_spans_that_are_none(start: float, stop: float | None) -> None:
    with pytest.raises(ValueError, match=r"crop from .* in 0\.\.1\.0 s"):
        make((50.0,), 16000, 16000).crop(start, stop)


def test_crop_refuses_what_has_no_frames() -> None:
    with pytest.raises(ValueError, match=r"no frame overlaps 0\.9\.\.1\.0 s: .* span 0\.8 s"):
        make((50.0,), 16000, 16000, [40]).crop(0.9)
    odd = make((50.0, 50.0 * math.sqrt(2)), 16000, 16000)
    with pytest.raises(ValueError, match="do not begin together"):
        odd.crop(0.5)


def test_sides_cannot_be_cut() -> None:
    tokens = replace(make((50.0,), 16000, 16000), side={"scales": torch.ones(1, 2)})
    with pytest.raises(ValueError, match=r"side \(scales\) cannot be cropped"):
        tokens.crop(0.5)
    with pytest.raises(ValueError, match=r"side \(scales\) cannot be joined"):
        Tokens.concat([tokens, tokens])
    with pytest.raises(ValueError, match="bits without a tensor"):
        replace(tokens, side={}, side_bits=3).crop(0.5)


def test_clips_of_a_batch_are_cut_and_joined_one_by_one() -> None:
    clips = [make((50.0, 50.0), 16000, n) for n in (16000, 9000, 12345)]
    whole = Tokens.batch(clips)
    assert [*whole.crop(0.2)] == [clip.crop(0.2) for clip in clips]
    assert [*whole.crop(-0.3, -0.1)] == [clip.crop(-0.3, -0.1) for clip in clips]
    assert Tokens.concat([whole.crop(0, 0.2), whole.crop(0.2)]) == whole
    with pytest.raises(ValueError, match=r"in 0\.\.0\.5625 s"):
        whole.crop(0, 0.6)


def test_concat_refuses() -> None:
    full, part = make((50.0,), 16000, 3200), make((50.0,), 16000, 3000)
    assert Tokens.concat([full, full, part]).num_samples == 9400
    assert Tokens.concat([part]) == part
    with pytest.raises(ValueError, match="at least one Tokens"):
        Tokens.concat([])
    for short in (3199, 3201):
        with pytest.raises(ValueError, match=rf"part 0 of concat has {short} samples"):
            Tokens.concat([make((50.0,), 16000, short, [10]), full])
    with pytest.raises(ValueError, match=r"part 1 of concat has 3000 samples and \[10\] frames"):
        Tokens.concat([full, part, full])
    with pytest.raises(ValueError, match="batch sizes differ: 1 in part 0, 2 in 1"):
        Tokens.concat([full, make((50.0,), 16000, 3200, batch=2)])
    with pytest.raises(
        ValueError, match=r"frame rates differ: \(50\.0,\) Hz in part 0, \(25\.0,\)"
    ):
        Tokens.concat([full, make((25.0,), 16000, 3200)])
    with pytest.raises(ValueError, match="part 1 8000 Hz"):
        Tokens.concat([full, make((50.0,), 8000, 3200)])
    ragged = make((25.0, 50.0), 16000, 3200, [5, 9])
    with pytest.raises(ValueError, match=r"has 3200 samples and \[5, 9\] frames"):
        Tokens.concat([ragged, ragged])
