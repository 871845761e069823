import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neuralcodec.core.tokens import ClipShape, Tokens, stack


def plain(num_samples: int, seed: int = 0, *, batch: int = 1, num_codebooks: int = 3) -> Tokens:
    """Codes of random values at 50 Hz of 16 kHz, in frames of 320 samples."""
    generator = torch.Generator().manual_seed(num_samples + 1000 * seed)
    frames = -(-num_samples // 320)
    return Tokens.uniform(
        torch.randint(0, 64, (batch, num_codebooks, frames), generator=generator),
        frame_rate=50,
        codebook_size=64,
        sample_rate=16000,
        num_samples=num_samples,
    )


def ragged(num_samples: int, seed: int = 0) -> Tokens:
    """Two codebooks of different size and rate, as in SNAC, padded to whole coarse frames."""
    generator = torch.Generator().manual_seed(num_samples + 1000 * seed)
    coarse = -(-num_samples // 640)
    return Tokens(
        (
            torch.randint(0, 8, (1, coarse), generator=generator),
            torch.randint(0, 4, (1, 2 * coarse), generator=generator),
        ),
        frame_rates=(25.0, 50.0),
        codebook_sizes=(8, 4),
        sample_rate=16000,
        num_samples=num_samples,
    )


def variable(num_samples: int, seed: int = 0) -> Tokens:
    """Bytes of a codec of variable bitrate, with sides of both kinds."""
    generator = torch.Generator().manual_seed(num_samples + 1000 * seed)
    sizes = torch.randint(1, 9, (1, -(-num_samples // 320)), generator=generator)
    count = int(sizes.sum())
    return Tokens(
        torch.randint(0, 256, (1, 1, count), generator=generator),
        frame_rates=(count / num_samples * 16000,),
        codebook_sizes=(256,),
        sample_rate=16000,
        num_samples=num_samples,
        side={"packet_sizes": sizes, "delay": torch.tensor([40 + seed])},
        side_bits=8.0 * sizes.shape[1],
    )


MAKERS = {"plain": plain, "ragged": ragged, "variable": variable}


@pytest.mark.parametrize("maker", MAKERS)
@given(lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=5), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_batch_gives_back_its_clips(maker: str, lengths: list[int], data: st.DataObject) -> None:
    parts = [MAKERS[maker](length, seed) for seed, length in enumerate(lengths)]
    whole = Tokens.batch(parts)
    assert [*whole] == parts
    assert [hash(clip) for clip in whole] == [hash(part) for part in parts]
    assert (len(whole), whole.lengths) == (len(parts), tuple(lengths))
    assert whole.num_samples == max(lengths)
    cut = data.draw(st.integers(0, len(parts)))
    halves = [Tokens.batch(half) for half in (parts[:cut], parts[cut:]) if half]
    assert Tokens.batch(halves) == whole
    picked = data.draw(st.slices(len(parts)))
    if parts[picked]:
        assert whole[picked] == Tokens.batch(parts[picked])
    else:
        with pytest.raises(ValueError, match="selects none"):
            whole[picked]


@pytest.mark.parametrize("maker", MAKERS)
@given(lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_rates_of_a_batch_are_all_bits_over_all_seconds(maker: str, lengths: list[int]) -> None:
    parts = [MAKERS[maker](length, seed) for seed, length in enumerate(lengths)]
    whole = Tokens.batch(parts)
    seconds = sum(part.padded_duration for part in parts)
    tokens = sum(part.num_tokens for part in parts)
    bits = sum(part.num_bits for part in parts)
    assert whole.padded_duration * len(parts) == pytest.approx(seconds)
    assert whole.num_tokens * len(parts) == pytest.approx(tokens)
    assert whole.num_bits * len(parts) == pytest.approx(bits)
    assert whole.tokens_per_second == pytest.approx(tokens / seconds)
    assert whole.bitrate_kbps * 1000 == pytest.approx(bits / seconds)


def test_rates_are_no_mean_of_the_clips_rates() -> None:
    def fixed(count: int, num_samples: int) -> Tokens:
        codes = torch.zeros(1, 1, count, dtype=torch.long)
        return Tokens(codes, (count / num_samples * 100,), (256,), 100, num_samples)

    whole = Tokens.batch([fixed(100, 100), fixed(300, 900)])  # 100 and 33.3 bytes/s, 40 together
    assert whole.tokens_per_second == pytest.approx(40)
    assert whole.bitrate_kbps == pytest.approx(0.32)
    assert whole.num_tokens == 200
    assert whole.padded_duration == pytest.approx(5)


def test_clips_are_padded_with_zeros_and_described() -> None:
    whole = Tokens.batch([plain(640), plain(1000)])
    assert isinstance(whole.codes, Tensor)
    assert whole.codes.shape == (2, 3, 4)
    assert not whole.codes[0, :, 2:].any()
    assert whole.clips == (
        ClipShape(640, (2, 2, 2), (50.0,) * 3),
        ClipShape(1000, (4, 4, 4), (50.0,) * 3),
    )
    noisy = whole.map_codes(Tensor.clone)
    assert isinstance(noisy.codes, Tensor)
    noisy.codes[0, :, 2:] = 63
    assert noisy[0] == whole[0]  # padding is no part of a clip
    assert noisy == whole
    noisy.codes[0, 0, 1] += 1
    assert noisy != whole


def test_sides_are_padded_and_cut() -> None:
    a, b = variable(640), variable(1600)
    whole = Tokens.batch([a, b])
    assert whole.side["packet_sizes"].shape == (2, 5)
    assert whole.side["packet_sizes"][0, 2:].tolist() == [0, 0, 0]
    assert whole.side["delay"].tolist() == [40, 40]
    assert whole[0].side["packet_sizes"].shape == (1, 2)
    assert whole.side_bits == 8 * 3.5


def test_clips_alike_need_no_shapes() -> None:
    whole = Tokens.batch([plain(640, 1), plain(640, 2)])
    assert whole.clips is None
    assert whole.clip_shapes == (ClipShape(640, (2, 2, 2), (50.0,) * 3),) * 2
    assert whole.num_tokens == 6
    assert isinstance(whole.num_tokens, int)
    assert Tokens.batch([plain(640), plain(700), plain(640)])[::2].clips is None
    assert replace(whole, clips=whole.clip_shapes).clips is None
    # as long, but of another number of bytes
    one, other = variable(1600, 1), variable(1600, 2)
    assert one.num_tokens != other.num_tokens
    assert Tokens.batch([one, other]).clips is not None


def test_index() -> None:
    whole = Tokens.batch([plain(100, 1), plain(700, 2), plain(700, 3)])
    assert whole[-1] == whole[2] == plain(700, 3)
    assert whole[0].batch_size == 1
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"clip {index} of a batch of 3"):
            whole[index]
    with pytest.raises(TypeError):
        whole["0"]  # type: ignore[index]  # what is tested
    assert plain(100)[0] == plain(100)[-1] == plain(100)


def test_sides_of_a_batch_of_equal_clips_are_taken_by_row() -> None:
    side = {"scales": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    whole = replace(plain(640, batch=2), side=side, side_bits=64)
    assert whole[1].side["scales"].tolist() == [[3.0, 4.0]]
    assert Tokens.batch([*whole]) == whole


def test_prefix_and_device_keep_the_lengths() -> None:
    whole = Tokens.batch([ragged(500), ragged(3000)])
    assert [*whole.prefix(1)] == [ragged(500).prefix(1), ragged(3000).prefix(1)]
    assert whole.prefix(1).lengths == (500, 3000)
    assert whole.to("meta").lengths == (500, 3000)
    moved = Tokens.batch([variable(500), variable(900)]).to("meta")
    assert all(value.is_meta for value in moved.side.values())


def test_stack_keeps_the_lengths() -> None:
    semantic, acoustic = ([maker(n) for n in (500, 3000)] for maker in (ragged, plain))
    pairs = zip(semantic, acoustic, strict=True)
    assert [*stack(Tokens.batch(semantic), Tokens.batch(acoustic))] == [
        stack(one, other) for one, other in pairs
    ]
    coded = [variable(500), variable(3000)]
    both = stack(Tokens.batch(coded), Tokens.batch(acoustic))
    assert both[1] == stack(coded[1], acoustic[1])
    assert Tokens.batch([*both]) == both
    first, last = (
        Tokens.batch([replace(part, side={name: torch.ones(1, len(name))}) for part in acoustic])
        for name in ("z", "aa")
    )
    assert stack(first, last)[1].side["aa"].shape == (1, 2)
    with pytest.raises(ValueError, match=r"parts last \[0\.03125, 0\.1875\] s"):
        stack(Tokens.batch(semantic), Tokens.batch(acoustic[::-1]))


def test_unpad() -> None:
    whole = Tokens.batch([plain(300), plain(1000), plain(640)])
    wav = torch.arange(3 * 2 * 1000).reshape(3, 2, 1000)
    pieces = whole.unpad(wav)
    assert [tuple(piece.shape) for piece in pieces] == [(2, 300), (2, 1000), (2, 640)]
    assert torch.equal(pieces[2], wav[2, :, :640])
    for bad in (wav[0], wav[:2], wav[..., :999]):
        with pytest.raises(ValueError, match=rf"\[3, C, T\].*got {re.escape(str([*bad.shape]))}"):
            whole.unpad(bad)


def test_batch_refuses() -> None:
    with pytest.raises(ValueError, match="at least one Tokens"):
        Tokens.batch([])
    with pytest.raises(ValueError, match=r"part 0 has 16000 Hz.*part 1 8000 Hz"):
        Tokens.batch([plain(640), replace(plain(640), sample_rate=8000)])
    with pytest.raises(ValueError, match=r"codebook sizes \(64, 64, 64\).*part 1 .*\(64, 64\) on"):
        Tokens.batch([plain(640), plain(640).prefix(2)])
    with pytest.raises(ValueError, match=r"on cpu, part 1 .* on meta"):
        Tokens.batch([plain(640), plain(700).to("meta")])
    with pytest.raises(ValueError, match=r"25\.0 Hz in part 1, 50\.0 Hz in part 0"):
        Tokens.batch([plain(640), replace(plain(700), frame_rates=(25.0,) * 3)])
    scaled = replace(plain(640), side={"scale": torch.ones(1)})
    with pytest.raises(ValueError, match=r"'scale' .*part 0 has torch.float32 \[B\], part 1 none"):
        Tokens.batch([scaled, plain(640)])
    longer = replace(plain(640), side={"scale": torch.ones(1, 2, 3)})
    with pytest.raises(ValueError, match=r"torch.float32 \[B\], part 1 torch.float32 \[B, 2, n\]"):
        Tokens.batch([scaled, longer])
    old = replace(plain(640), side={"packet_sizes": torch.ones(7)})
    assert old[0] == old
    with pytest.raises(ValueError, match=r"'packet_sizes' has shape \[7\]: its first axis must"):
        Tokens.batch([old, old])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": torch.zeros(2, 3, 3, dtype=torch.long)}, r"frames of the longest clip"),
        ({"codes": torch.zeros(3, 3, 4, dtype=torch.long)}, "clips has 2 shapes for a batch of 3"),
        ({"num_samples": 999}, "num_samples of the longest clip must be .* 999, got 1000"),
        ({"side_bits": 1.0}, r"1\.0 side bits of the batch are not those of its clips"),
        ({"frame_rates": (51.0,) * 3}, r"frame rates \(51\.0.*not those of its clips"),
        ({"side": {"scale": torch.ones(2, 3)}}, r"the arrays have 3 and \['scale'\]"),
        ({"side": {"scale": torch.ones(3)}}, r"'scale' has shape \[3\]"),
    ],
)
def test_clips_must_fit_the_arrays(changes: dict[str, Any], message: str) -> None:
    whole = Tokens.batch([plain(640), plain(1000)])
    with pytest.raises(ValueError, match=message):
        replace(whole, **changes)


def test_codes_of_another_number_of_codebooks_need_other_clips() -> None:
    whole = Tokens.batch([plain(640), plain(1000)])
    assert isinstance(whole.codes, Tensor)
    with pytest.raises(ValueError, match=r"clip 0 has 3 codebooks .* the arrays have 2"):
        replace(whole, codes=whole.codes[:, :2], frame_rates=(50.0,) * 2, codebook_sizes=(64,) * 2)


def test_each_clip_must_span_one_time() -> None:
    def shape(*frames: int) -> ClipShape:
        return ClipShape(100, frames, (10.0, 20.0))

    codes = (torch.zeros(2, 10, dtype=torch.long), torch.zeros(2, 20, dtype=torch.long))
    whole = Tokens(codes, (10.0, 20.0), (4, 4), 100, 100)
    assert replace(whole, clips=(shape(10, 20), shape(5, 10))).num_tokens == 22.5
    with pytest.raises(ValueError, match=r"different times, in seconds: \[0\.5, 0\.9\]"):
        replace(whole, clips=(shape(10, 20), shape(5, 18)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, (1,), (1.0,)), "must not be negative"),
        ((1, (-1,), (1.0,)), "must not be negative"),
        ((1, (1,), (1.0,), 0.0, (("scale", -1),)), "must not be negative"),
        ((1, (), ()), "at least one codebook"),
        ((1, (1, 2), (1.0,)), "one of each per codebook"),
        ((1, (1,), (0.0,)), r"positive and finite, got \(0\.0,\)"),
        ((1, (1,), (1.0,), math.nan), "side_bits must be finite and not negative, got nan"),
    ],
)
def test_clip_shape_refuses(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipShape(*arguments)
