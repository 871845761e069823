import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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


def test_prefix_of_unequal_codebooks_takes_the_first_sizes_and_rates() -> None:
    tokens = Tokens((zeros(2, 10), zeros(2, 20)), (10.0, 20.0), (16, 4), 100, 100)
    part = tokens.prefix(1)
    assert (part.codebook_sizes, part.frame_rates) == ((16,), (10.0,))
    assert part.num_bits == 40
    assert part.bitrate_kbps == pytest.approx(0.04)
    assert tokens.prefix(2) == tokens


def test_padded_duration_is_that_of_the_codebook_that_reaches_furthest() -> None:
    assert Tokens((zeros(1, 3), zeros(1, 5)), (10.0, 20.0), (4, 4), 100, 25).padded_duration == 0.3
    assert Tokens((zeros(1, 2), zeros(1, 5)), (10.0, 20.0), (4, 4), 100, 25).padded_duration == 0.25


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
    late = uniform(1, 50, 500, frames=51, sample_rate=16000, num_samples=16002)
    with pytest.raises(ValueError, match="equal to a sample"):
        stack(late, acoustic)


@pytest.mark.parametrize(("high", "low"), [(24000, 16000), (44100, 16000), (48000, 8000)])
def test_audio_and_what_resampling_makes_of_it_can_be_stacked(high: int, low: int) -> None:
    for length in range(high, high + 50):
        original = uniform(1, 10, 4, frames=11, sample_rate=high, num_samples=length)
        shorter = math.ceil(length * low / high)
        resampled = uniform(1, 10, 4, frames=11, sample_rate=low, num_samples=shorter)
        assert stack(original, resampled) == stack(original, original)
        assert stack(resampled, original).num_samples == length


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
        ({"side": {"scale": [1.0]}}, "side 'scale' must be a tensor, got list"),
        ({"codes": [[[0] * 10]]}, "got list: torch.from_numpy makes a tensor of a NumPy array"),
        ({"codes": zeros(1, 1, 10).numpy()}, "got ndarray: torch.from_numpy makes a tensor"),
        ({"codes": (zeros(1, 10).numpy(),)}, "got a tuple with ndarray: torch.from_numpy"),
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
    make(zeros(1, 10), zeros(1, 18))
    with pytest.raises(ValueError, match=r"different times, in seconds: \[1\.0, 0\.85\]"):
        make(zeros(1, 10), zeros(1, 17))
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


def test_uniform_refuses_arrays() -> None:
    with pytest.raises(ValueError, match=r"got ndarray: torch\.from_numpy"):
        Tokens.uniform(
            zeros(1, 4, 10).numpy(),  # type: ignore[arg-type]  # what is tested
            frame_rate=10,
            codebook_size=4,
            sample_rate=100,
            num_samples=100,
        )


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts numbers read from a device one at a time, each of which waits for it."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "codes", [zeros(2, 8, 30), tuple(zeros(2, 30) for _ in range(8))], ids=["tensor", "tuple"]
)
def test_construction_waits_for_the_device_once(
    codes: Tensor | tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    lists: list[torch.Size] = []
    plain = Tensor.tolist

    def tolist(tensor: Tensor) -> Any:
        lists.append(tensor.shape)
        return plain(tensor)

    monkeypatch.setattr(Tensor, "tolist", tolist)
    with _Reads() as reads:  # type: ignore[no-untyped-call]  # torch's own
        Tokens(codes, (10.0,) * 8, (4,) * 8, 100, 300)
    assert (reads.count, lists) == (0, [(8, 2)])


@pytest.mark.parametrize("place", range(3))
def test_a_code_out_of_range_is_named_by_its_codebook(place: int) -> None:
    streams = [zeros(2, 5), zeros(2, 0), zeros(2, 5)]
    streams[place] = zeros(2, 5)
    streams[place][1, 3] = 7
    with pytest.raises(ValueError, match=rf"codebook {place} must lie in 0\.\.6, got 0\.\.7"):
        Tokens(tuple(streams), (1.0, 1.0, 1.0), (7, 7, 7), 100, 100)
    if place != 1:
        with pytest.raises(ValueError, match=rf"codebook {place} must lie in 0\.\.6, got 0\.\.7"):
            Tokens(
                torch.stack([streams[0], zeros(2, 5), streams[2]], 1), (1.0,) * 3, (7,) * 3, 9, 9
            )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("ragged", [False, True])
def test_values_are_the_same_on_a_device(ragged: bool, tmp_path: Path) -> None:
    tokens = snac() if ragged else _base()
    moved = tokens.to("cuda")
    assert moved.device.type == "cuda"
    assert all(value.is_cuda for value in moved.side.values())
    assert moved == tokens == moved.to("cpu")
    assert hash(moved) == hash(tokens)
    moved.save(tmp_path / "file")
    assert Tokens.load(tmp_path / "file") == tokens


def test_tokens_on_the_meta_device_have_shapes_alone() -> None:
    tokens = snac().to("meta")
    assert tokens.device.type == "meta"
    assert tokens.bitrate_kbps == snac().bitrate_kbps
    assert tokens == snac().to("meta") != snac()
    assert hash(tokens) == hash(snac())


def _changed() -> dict[str, Tokens]:
    """Tokens that differ from `_base` in one thing each."""
    base = _base()
    codes = base.streams[0][:, None].clone()
    codes[0, 0, 3] += 1
    return {
        "codes": replace(base, codes=codes),
        "frames": replace(base, codes=codes[..., :40]),
        "frame rate": replace(base, frame_rates=(25.0,)),
        "size": replace(base, codebook_sizes=(4,)),
        "sample rate": replace(base, sample_rate=4000),
        "samples": replace(base, num_samples=7999),
        "side bits": replace(base, side_bits=31),
        "side values": replace(base, side={"scale": torch.tensor([2.0])}),
        "side name": replace(base, side={"gain": torch.tensor([1.0])}),
        "side type": replace(base, side={"scale": torch.tensor([1.0], dtype=torch.float64)}),
        "no side": replace(base, side={}),
        "batch": Tokens.batch([base, base]),
    }


def _base() -> Tokens:
    side = {"scale": torch.tensor([1.0])}
    return Tokens(zeros(1, 1, 50), (50.0,), (2,), 8000, 8000, side=side, side_bits=32)


@pytest.mark.parametrize("what", _changed())
def test_tokens_that_differ_in_anything_are_unequal(what: str) -> None:
    assert _base() != _changed()[what]
    assert _changed()[what] == _changed()[what]


def test_equal_tokens_are_equal_and_hash_alike() -> None:
    assert _base() == _base()
    assert len({_base(), _base(), snac()}) == 2
    assert _base() != "tokens"
    assert _base().__eq__(3) is NotImplemented
    rows = replace(_base(), codes=tuple(_base().streams), frame_rates=[50.0])  # type: ignore[arg-type]  # a list does
    assert rows == _base()
    assert hash(rows) == hash(_base())
    undefined = replace(_base(), side={"scale": torch.tensor([math.nan])})
    assert undefined == replace(undefined, side={"scale": torch.tensor([math.nan])})
    assert undefined != _base()


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        (
            Tokens.batch([uniform(8, 75, 1024, frames=113, num_samples=36000)] * 2),
            "Tokens(2 clips, 8 x 1024 at 75 Hz, 1.50 s, 600 tokens/s, 6 kbit/s)",
        ),
        (
            Tokens.batch([uniform(2, 75, 1024, frames=n) for n in (75, 225)]),
            "Tokens(2 clips, 2 x 1024 at 75 Hz, 1.00-3.00 s, 150 tokens/s, 1.5 kbit/s)",
        ),
        (
            snac(),
            "Tokens(1 clip, 1 x 4096 at 11.72 Hz + 1 x 4096 at 23.44 Hz + 1 x 4096 at 46.88 Hz, "
            "8.02 s, 82.03 tokens/s, 0.9844 kbit/s)",
        ),
        (
            stack(uniform(1, 25, 500, frames=25), uniform(8, 75, 1024, frames=75)),
            "Tokens(1 clip, 1 x 500 at 25 Hz + 8 x 1024 at 75 Hz, 1.00 s, 625 tokens/s, "
            "6.224 kbit/s)",
        ),
        (
            Tokens(zeros(1, 6, 5), (5.0,) * 6, (2, 3, 4, 5, 6, 7), 100, 100).to("meta"),
            "Tokens(1 clip, 1 x 2 at 5 Hz + 1 x 3 at 5 Hz + 1 x 4 at 5 Hz + 1 x 5 at 5 Hz + "
            "2 more, 1.00 s, 30 tokens/s, 0.0615 kbit/s, on meta)",
        ),
        (
            _base(),
            "Tokens(1 clip, 1 x 2 at 50 Hz, 1.00 s, 50 tokens/s, 0.082 kbit/s, side scale)",
        ),
        (
            Tokens(zeros(0, 1, 50), (50.0,), (2,), 8000, 8000),
            "Tokens(0 clips, 1 x 2 at 50 Hz, 1.00 s, 50 tokens/s, 0.05 kbit/s)",
        ),
    ],
)
def test_repr_is_one_line(tokens: Tokens, line: str) -> None:
    assert repr(tokens) == line


def test_card_is_well_formed_and_escaped() -> None:
    tokens = replace(_base(), side={"<script>&": torch.ones(1, 3)})
    card = tokens._repr_html_()
    table = ElementTree.fromstring(card)
    rows = {row[0].text: row[1].text for row in table.iter("tr")}
    assert rows["side"] == "<script>& [1, 3]: 32 bits per clip"
    assert rows["rate"] == "50 tokens/s, 0.082 kbit/s"
    assert rows["codes"] == "[1, 1, 50], cpu"
    assert "<script" not in card
    assert not {"src", "href", "style"} & {name for each in table.iter() for name in each.attrib}


def test_arrays_out_and_codes_mapped() -> None:
    tokens = Tokens((zeros(2, 10), zeros(2, 20) + 1), (10.0, 20.0), (4, 4), 100, 100)
    low, high = tokens.numpy()
    assert (low.shape, high.shape, int(high.max())) == ((2, 10), (2, 20), 1)
    whole = uniform(3, 10, 4, frames=5).numpy()
    assert isinstance(whole, np.ndarray)
    assert whole.shape == (1, 3, 5)
    assert whole.dtype == np.int64
    raised = tokens.map_codes(lambda codes: codes + 2)
    assert [int(stream.min()) for stream in raised.streams] == [2, 3]
    assert raised.map_codes(lambda codes: codes - 2) == tokens
    assert isinstance(uniform(3, 10, 4, frames=5).map_codes(Tensor.clone).codes, Tensor)
