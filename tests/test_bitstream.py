"""The file format: round trips, what damage and lies lead to, and how files are written."""

import contextlib
import errno
import io
import itertools
import math
import os
import re
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from neuralcodec import bitstream
from neuralcodec.bitstream import BitstreamError, Origin
from neuralcodec.bitstream.packing import from_bits, to_bits, width_of
from neuralcodec.core.tokens import Tokens

SIZES = (1, 2, 3, 16, 1000, 1024, 1025, 2**16, 2**33, 2**63)
MEGABYTE = 2**20


def random_codes(size: int, frames: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, size, (1, frames), np.int64))


def lyra(frames: int = 250, num_codebooks: int = 30) -> Tokens:
    codes = [random_codes(16, frames, seed) for seed in range(num_codebooks)]
    return Tokens.uniform(
        torch.stack(codes, dim=1),
        frame_rate=50,
        codebook_size=16,
        sample_rate=16000,
        num_samples=frames * 320,
    )


def rich() -> Tokens:
    """Ragged codebooks, one of a single entry, and a side of every kind."""
    return Tokens(
        (random_codes(4096, 3, 0), random_codes(1000, 6, 1), random_codes(1, 12, 2)),
        frame_rates=(12.5, 25.0, 50.0),
        codebook_sizes=(4096, 1000, 1),
        sample_rate=24000,
        num_samples=5000,
        side={
            "scales": torch.tensor([[0.5, -math.inf, math.nan]]),
            "extremes": torch.tensor([[-(2**63), 2**63 - 1]]),
            "packet_sizes": torch.tensor([60, 61, 59, 90]),
            "delay": torch.tensor([312]),
            "loud": torch.tensor([True, False]),
            "empty": torch.empty(0, 3, dtype=torch.float64),
            "scalar": torch.tensor(-7, dtype=torch.int8),
            "half": torch.tensor([1.5], dtype=torch.float16),
        },
        side_bits=64.5,
    )


RICH: dict[str, Any] = {
    "codec": "snac_24khz",
    "settings": {"vbr": False, "rate": 1.5, "count": -3, "word": "low-delay", "weights": "random"},
    "needs": ["audio"],
    "origin": Origin(48000, 2, 10000),
    "digest": "00112233445566ff",
}


def assert_same(got: Tokens, want: Tokens) -> None:
    """Compare bit by bit."""
    assert isinstance(got.codes, tuple) == isinstance(want.codes, tuple)
    for mine, other in zip(got.streams, want.streams, strict=True):
        assert mine.dtype == torch.int64
        assert torch.equal(mine, other)
    for name in ("frame_rates", "codebook_sizes", "sample_rate", "num_samples", "side_bits"):
        assert getattr(got, name) == getattr(want, name)
    assert got.side.keys() == want.side.keys()
    for name, value in want.side.items():
        assert got.side[name].dtype == value.dtype
        assert got.side[name].shape == value.shape
        assert got.side[name].numpy().tobytes() == value.numpy().tobytes()


@st.composite
def tokens(draw: st.DrawFn) -> Tokens:
    seed = draw(st.integers(0, 2**32))
    sizes = draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=5))
    rate = draw(st.sampled_from([12.5, 44100 / 512, 50.0, 150 / 0.99, 1e-3]))
    frames = draw(st.integers(0, 70))
    sample_rate = draw(st.sampled_from([8000, 24000, 44100]))
    num_samples = draw(st.integers(0, math.floor(frames / rate * sample_rate) + sample_rate))
    ragged = draw(st.booleans())
    factors = [draw(st.sampled_from([1, 2, 3])) if ragged else 1 for _ in sizes]
    streams = tuple(
        random_codes(size, frames * factor, seed + k)
        for k, (size, factor) in enumerate(zip(sizes, factors, strict=True))
    )
    return Tokens(
        streams if ragged else torch.stack(streams, dim=1),
        frame_rates=tuple(rate * factor for factor in factors),
        codebook_sizes=tuple(sizes),
        sample_rate=sample_rate,
        num_samples=num_samples,
    )


@st.composite
def sides(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = st.sampled_from("?,u1,i1,i2,i4,i8,f2,f4,f8".split(","))
    shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
    found = {}
    for name in draw(st.lists(st.sampled_from(["a", "B.2", "_c"]), unique=True)):
        dtype, shape = np.dtype(draw(kinds)), draw(shapes)
        raw = rng.bytes(math.prod(shape) * dtype.itemsize)
        if dtype.kind == "b":
            raw = bytes(byte & 1 for byte in raw)
        found[name] = torch.from_numpy(np.frombuffer(bytearray(raw), dtype).reshape(shape))
    return found


# round trips


def one_spare_second() -> Tokens:
    """Seven frames of 512 samples and, exactly, a second more of audio."""
    codes = torch.zeros(1, 1, 7, dtype=torch.int64)
    return Tokens(codes, (44100 / 512,), (1,), 44100, 7 * 512 + 44100)


@given(tokens(), sides(), st.floats(0, 1e9))
@example(one_spare_second(), {}, 0.0)
@settings(max_examples=150, deadline=None)
def test_what_was_written_is_read(
    tokens: Tokens, side: dict[str, torch.Tensor], side_bits: float
) -> None:
    tokens = replace(tokens, side=side, side_bits=side_bits)
    data = bitstream.dumps(tokens, codec="some_codec")
    recording = bitstream.loads(data)
    assert_same(recording.tokens, tokens)
    assert (recording.codec, recording.settings) == ("some_codec", {})
    assert recording.num_bytes == len(data) == bitstream.info(io.BytesIO(data)).num_bytes


@given(st.integers(0, 64), st.integers(0, 70), st.integers(0, 2**32))
@settings(deadline=None)
def test_packing_is_plain_binary(width: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**64 - 1, count, np.uint64, endpoint=True)
    values = values >> np.uint64(64 - width) if width else values * np.uint64(0)
    bits = to_bits(values, width)
    text = "".join(f"{int(value):0{width}b}" for value in values) if width else ""
    assert "".join(map(str, bits)) == text
    assert np.array_equal(from_bits(bits, width, count), values)


def test_everything_a_file_can_carry() -> None:
    recording = bitstream.loads(bitstream.dumps(rich(), **RICH))
    assert_same(recording.tokens, rich())
    assert recording.settings == RICH["settings"]
    header = recording.header
    assert [type(value) for value in recording.settings.values()] == [int, float, bool, str, str]
    assert (header.needs, header.origin, header.digest) == (
        ("audio",),
        RICH["origin"],
        RICH["digest"],
    )
    assert header.bitrate_kbps == pytest.approx(rich().bitrate_kbps)
    assert header.codebook_sizes == rich().codebook_sizes
    assert [books.frames for books in header.books] == [3, 6, 12]


def test_files_and_streams(tmp_path: Path) -> None:
    path, stream = tmp_path / "a.nct", io.BytesIO()
    bitstream.write(path, rich(), **RICH)
    bitstream.write(stream, rich(), **RICH)
    assert path.read_bytes() == stream.getvalue()
    assert_same(bitstream.read(path).tokens, rich())
    assert_same(bitstream.read(str(path)).tokens, rich())
    assert bitstream.info(path).header == bitstream.read(path).header
    with path.open("rb") as file:
        assert_same(bitstream.read(file).tokens, rich())


def test_a_pipe_that_cannot_seek() -> None:
    data = bitstream.dumps(lyra(5000), codec="lyra_v2")
    ends = os.pipe()

    def feed() -> None:
        with os.fdopen(ends[1], "wb") as pipe:
            pipe.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(ends[0], "rb") as pipe:
        assert_same(bitstream.read(pipe).tokens, lyra(5000))
    feeder.join()


# size


def test_five_seconds_of_lyra_cost_58_bytes() -> None:
    origin = Origin(44100, 2, 220500)
    data = bitstream.dumps(lyra(), codec="lyra_v2", origin=origin, digest="0123456789abcdef")
    assert len(data) == 250 * 30 * 4 // 8 + 58


@pytest.mark.parametrize("size", [2, 3, 1000, 1024, 1025])
@pytest.mark.parametrize("frames", [1, 7, 40001])
def test_codes_take_whole_bits(size: int, frames: int) -> None:
    streams = tuple(random_codes(size, frames, seed) for seed in range(3))
    tokens = Tokens(streams, (50.0,) * 3, (size,) * 3, 16000, frames * 320)
    data = bitstream.dumps(tokens, codec="some_codec")
    info = bitstream.info(io.BytesIO(data))
    bits = 3 * frames * math.ceil(math.log2(size))
    blocks = info.header.num_blocks
    payload = sum(map(info.header.block_bytes, range(blocks)))
    assert blocks == math.ceil(bits / 8 / 16384)
    assert math.ceil(bits / 8) <= payload < math.ceil(bits / 8) + blocks
    assert len(data) == info.header_bytes + payload + 4 * blocks
    assert info.measured_kbps == pytest.approx(len(data) * 8 / tokens.duration / 1000)
    assert_same(bitstream.loads(data).tokens, tokens)


def test_an_hour_takes_its_bits() -> None:
    hour = lyra(180_000, 8)
    data = bitstream.dumps(hour, codec="lyra_v2")
    assert len(data) < 180_000 * 4 * 1.001
    assert torch.equal(bitstream.loads(data).tokens.streams[7], hour.streams[7])


def test_whole_numbers_beside_the_codes_take_as_many_bits_as_their_range() -> None:
    side = {"packet_sizes": torch.arange(60, 124).repeat(100), "delay": torch.full((500,), 312)}
    plain = bitstream.dumps(lyra(), codec="opus")
    full = bitstream.dumps(replace(lyra(), side=side), codec="opus")
    assert 6400 * 6 // 8 < len(full) - len(plain) < 6400 * 6 // 8 + 60


# the format, written a second time


def varint(value: int) -> bytes:
    low, rest = value % 128, value // 128
    return bytes([low + 128]) + varint(rest) if rest else bytes([low])


def named(name: str | bytes) -> bytes:
    data = name if isinstance(name, bytes) else name.encode()
    return varint(len(data)) + data


def books(count: int = 2, size: int = 16, rate: float = 50.0, frames: int = 4) -> bytes:
    return varint(count) + varint(size) + struct.pack("<d", rate) + varint(frames)


def side(
    name: str = "n", kind: int = 5, shape: Sequence[int] = (2,), smallest: int = 0, width: int = 3
) -> bytes:
    whole = varint(smallest) + bytes([width]) if kind < 6 else b""
    return named(name) + bytes([kind, len(shape)]) + b"".join(map(varint, shape)) + whole


def forge(
    *,
    magic: bytes = b"\x8fNCT",
    version: int = 2,
    flags: int = 0,
    codec: str | bytes = "lyra_v2",
    settings: str | bytes = "",
    rate: int = 16000,
    samples: int = 1280,
    middle: bytes = b"",
    runs: Sequence[bytes] = (books(),),
    last: bytes = b"",
    parts: Sequence[bytes] = (bytes.fromhex("0123 4567"),),
    tail: bytes = b"",
) -> bytes:
    """Write a file as docs/bitstream.md has it, with checksums that fit whatever it says."""
    fields = bytes([flags]) + named(codec) + named(settings) + varint(rate) + varint(samples)
    fields += middle + varint(len(runs)) + b"".join(runs) + last
    header = magic + bytes([version]) + len(fields).to_bytes(2, "little") + fields
    seed = zlib.crc32(header)
    found = header + seed.to_bytes(4, "little")
    first = 0 if flags & 8 and last[:1] != b"\0" else 1
    for place, part in enumerate(parts, first):
        found += part + zlib.crc32(part, (seed + place) % 2**32).to_bytes(4, "little")
    return found + tail


def test_bytes_are_as_documented() -> None:
    codes = torch.tensor([[[0, 1, 2, 3], [4, 5, 6, 7]]])
    tokens = Tokens.uniform(
        codes, frame_rate=50, codebook_size=16, sample_rate=16000, num_samples=1280
    )
    assert bitstream.dumps(tokens, codec="lyra_v2") == forge()
    full = replace(tokens, side={"n": torch.tensor([-5, 2])}, side_bits=3.0)
    written = bitstream.dumps(
        full,
        codec="lyra_v2",
        settings={"bits": 4},
        needs=["weights"],
        origin=Origin(48000, 2, 3840),
        digest="0123456789abcdef",
    )
    assert written == forge(
        flags=14,
        settings='{"bits":4,"weights":null}',
        middle=varint(48000) + varint(2) + varint(3840) + bytes.fromhex("0123456789abcdef"),
        last=varint(1) + struct.pack("<d", 3.0) + side(smallest=9),  # -5 in zigzag
        parts=(b"\x1c", bytes.fromhex("0123 4567")),  # 000 111 00
    )
    assert_same(bitstream.loads(written).tokens, full)


def test_the_example_of_the_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs" / "bitstream.md").read_text(encoding="utf-8")
    lines = re.findall(r"^((?:[0-9a-f]{2} {1,2})+)", text.split("## Example")[1], re.MULTILINE)
    assert bytes.fromhex("".join(lines)) == forge()


def test_blocks_are_cut_at_equal_times() -> None:
    tokens = lyra(4000)  # 60,000 bytes: 4 blocks of 1000 frames
    data = bitstream.dumps(tokens, codec="lyra_v2")
    start = bitstream.info(io.BytesIO(data)).header_bytes + 2 * (15000 + 4)
    third = np.frombuffer(data[start : start + 15000], np.uint8)
    assert isinstance(tokens.codes, torch.Tensor)
    codes = tokens.codes[0, :, 2000:3000].numpy().ravel()
    assert np.array_equal(third, codes[::2] * 16 + codes[1::2])


GOLDEN = bytes.fromhex(
    "8f4e4354017f000f086d6463742b727671237b22617564696f223a6e756c6c2c2262697473223a342c22766272223a"
    "66616c73657dc0bb01802d80f70202805a00112233445566ff0201802000000000000029400301e807000000000000"
    "3940060200000000000004400c7061636b65745f73697a65730501047605057363616c6507020101d1240d800881f0"
    "0000003f5f167d010010020030100501807023e721a76e72"
)
"""A file of version 1, written by neuralcodec 0.1.0."""


def test_a_file_of_version_1_is_read() -> None:
    recording = bitstream.loads(GOLDEN)
    streams = (torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6, 7, 8, 999]]))
    side = {"packet_sizes": torch.tensor([60, 61, 59, 90]), "scale": torch.tensor([[0.5]])}
    want = Tokens(streams, (12.5, 25.0), (4096, 1000), 24000, 5760, side=side, side_bits=2.5)
    assert_same(recording.tokens, want)
    header = recording.header
    assert (header.version, header.codec, header.needs) == (1, "mdct+rvq", ("audio",))
    assert header.settings == {"bits": 4, "vbr": False}
    assert (header.origin, header.digest) == (Origin(48000, 2, 11520), "00112233445566ff")
    assert bitstream.info(io.BytesIO(GOLDEN)).num_bytes == len(GOLDEN)
    assert bitstream.loads(forge(version=1)).tokens.num_codebooks == 2


NAMES = [
    "tiny_50hz",
    "My.Codec-2",
    "a+rvq",
    "pack.age:Class",
    "pack.age:Outer.Inner+rvq",
    "x" * 128,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_codecs(name: str) -> None:
    assert bitstream.loads(bitstream.dumps(lyra(1), codec=name)).codec == name


@pytest.mark.parametrize(
    "name",
    [
        *[
            "",
            "+rvq",
            "a b",
            "a/b",
            "../a",
            ".a",
            "-a",
            "a+rvq+rvq",
            "a:",
            ":a",
            "a:b:c",
            "a..b:c",
            "1:a",
        ],
        *["a.b:c\n", "\u00e4", "a\0", "x" * 129],
    ],
)
def test_what_is_no_name_of_a_codec(name: str) -> None:
    with pytest.raises(BitstreamError, match="the name of a codec must be"):
        bitstream.dumps(lyra(1), codec=name)
    with pytest.raises(BitstreamError, match=r"the (length of the )?name of (a|the) codec must be"):
        bitstream.loads(forge(codec=name))


# channels


def channels(*seeds: int, **changes: Any) -> list[Tokens]:
    """Clips of random codes of two codebooks, 9 frames each."""
    return [
        Tokens(
            torch.stack([random_codes(1000, 9, seed), random_codes(16, 9, seed + 50)], dim=1),
            **{
                "frame_rates": (50.0, 50.0),
                "codebook_sizes": (1000, 16),
                "sample_rate": 16000,
                "num_samples": 2880,
                "side": {"scales": torch.full((1, 3), float(seed))},
                "side_bits": 96.0,
                **changes,
            },
        )
        for seed in seeds
    ]


def test_channels_are_read_as_they_were_written() -> None:
    clips = channels(1, 2, 3)
    data = bitstream.dumps(clips, codec="some_codec", origin=Origin(48000, 3, 8640))
    recording = bitstream.loads(data)
    for got, want in zip(recording.clips, clips, strict=True):
        assert_same(got, want)
    assert recording.header.bitrate_kbps == pytest.approx(3 * clips[0].bitrate_kbps)
    batch = recording.tokens
    assert batch.batch_size == 3
    assert batch.side["scales"].tolist() == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
    for k, stream in enumerate(batch.streams):
        assert torch.equal(stream, torch.cat([clip.streams[k] for clip in clips]))
    again = bitstream.dumps(batch, codec="some_codec", origin=Origin(48000, 3, 8640))
    assert again == data  # a batch is the same file as its clips


def test_channels_of_different_frames() -> None:
    clips = [
        Tokens(
            random_codes(256, count, count)[None],
            (count / 2,),
            (256,),
            16000,
            32000,
            side={"packet_sizes": torch.tensor([[count - 7, 7]]), "delay": torch.tensor([[312]])},
        )
        for count in (40000, 50)
    ]
    recording = bitstream.loads(bitstream.dumps(clips, codec="opus"))
    for got, want in zip(recording.clips, clips, strict=True):
        assert_same(got, want)
    together = recording.tokens
    assert [clip == own for clip, own in zip(together, clips, strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("clips", "said"),
    [
        ([], "at least one clip"),
        (channels(1) + channels(2, num_samples=2879), "the channels differ in sample rate, length"),
        (channels(1) + channels(2, codebook_sizes=(1000, 17)), "have different codebooks"),
    ],
)
def test_clips_that_are_not_channels_of_one(clips: list[Tokens], said: str) -> None:
    with pytest.raises(BitstreamError, match=said):
        bitstream.dumps(clips, codec="some_codec")


# damage


def test_every_flipped_bit_is_found() -> None:
    data = bitstream.dumps(rich(), **RICH)
    for place, bit in itertools.product(range(len(data)), range(8)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        with pytest.raises(BitstreamError):
            bitstream.loads(bytes(flipped))


def test_every_truncation_and_every_tail_is_found() -> None:
    data = bitstream.dumps(rich(), **RICH)
    for length in range(len(data)):
        with pytest.raises(BitstreamError, match=r"ends|not a file of tokens"):
            bitstream.loads(data[:length])
        with pytest.raises(BitstreamError):
            bitstream.info(io.BytesIO(data[:length]))
    with pytest.raises(BitstreamError, match="goes on after its last block"):
        bitstream.loads(data + b"\0")
    with pytest.raises(BitstreamError, match=f"{len(data) + 1} bytes, too long"):
        bitstream.info(io.BytesIO(data + b"\0"))


def test_damage_is_told_with_its_place_and_time(tmp_path: Path) -> None:
    data = bytearray(bitstream.dumps(lyra(4000), codec="lyra_v2"))
    data[-20000] ^= 64
    path = tmp_path / "a.nct"
    path.write_bytes(data)
    said = r"a\.nct: block 3 of 4 \(40\.00-60\.00 s\) fails its checksum"
    with pytest.raises(BitstreamError, match=said):
        bitstream.read(path)


def test_blocks_of_another_place_or_file_are_found() -> None:
    data = bitstream.dumps(lyra(4000), codec="lyra_v2")
    other = bitstream.dumps(lyra(4000), codec="lyra_v3")
    size = 15004
    swapped = data[: -2 * size] + data[-size:] + data[-2 * size : -size]
    foreign = data[:-size] + other[-size:]
    assert len(swapped) == len(foreign) == len(data)
    with pytest.raises(BitstreamError, match="block 3 of 4"):
        bitstream.loads(swapped)
    with pytest.raises(BitstreamError, match="block 4 of 4"):
        bitstream.loads(foreign)


# lies

LIES = [
    ("begins with b'RIFF'", forge(magic=b"RIFF")),
    ("begins with b''", b""),
    ("it has format version 3, this program reads 1..2", forge(version=3)),
    ("it has format version 0", forge(version=0)),
    ("flags unknown in version 2: 0x20", forge(flags=32)),
    ("flags unknown in version 1: 0x10", forge(version=1, flags=16, middle=b"\2")),
    ("1 bytes after its last field", forge(last=b"\0")),
    ("the name of the codec must be UTF-8", forge(codec=b"\xff\xfe")),
    ("the length of the name of the codec must be 0..128", forge(codec="a" * 129)),
    ("the number of clips must be 2..1024, got 1", forge(flags=16, middle=b"\1")),
    ("the number of clips must be 2..1024", forge(flags=16, middle=varint(2**50))),
    (
        "the channels have different codebooks",
        forge(flags=16, middle=b"\2", last=b"\1" + books(3)),
    ),
    (
        "3 channels are coded as 2",
        forge(
            flags=18,
            middle=varint(16000) + b"\3" + varint(1280) + b"\2",
            last=b"\1" + books(),
        ),
    ),
    (
        "the number of codebooks must be 1..4096, got 4098",
        forge(flags=16, middle=b"\2", runs=[books(2049)], last=b"\1" + books(2049)),
    ),
    ("the sample rate must be 1..", forge(rate=0)),
    ("the sample rate must be 1..1000000, got", forge(rate=10**7)),
    ("1281 samples at 1 Hz last 1281 s", forge(rate=1, samples=1281)),
    ("the samples must be 0..", forge(samples=2**60)),
    ("is a number of more than 10 bytes", forge(middle=b"\xff" * 12)),
    ("the runs of codebooks must be 1..", forge(runs=())),
    ("the number of codebooks must be 1..4096, got 0", forge(runs=[books(count=0)])),
    ("the number of codebooks must be 1..4096, got 1", forge(runs=[books(count=2**40)])),
    ("the number of codebooks must be 1..4096, got 4112", forge(runs=[books(count=257)] * 16)),
    ("entries of a codebook must be 1..9223372036854775808, got 0", forge(runs=[books(size=0)])),
    ("entries of a codebook must be 0..", forge(runs=[books(size=2**64)])),
    ("a frame rate must be finite, got nan", forge(runs=[books(rate=math.nan)])),
    ("a frame rate must be finite, got inf", forge(runs=[books(rate=math.inf)])),
    ("a frame rate must be 1e-06..1e[+]09 Hz, got -50", forge(runs=[books(rate=-50)])),
    ("a frame rate must be 1e-06..1e[+]09 Hz, got 5e-324", forge(runs=[books(rate=5e-324)])),
    ("the frames of a codebook must be", forge(runs=[books(frames=2**60)])),
    ("bytes early, within block 1 of ", forge(runs=[books(frames=2**48)])),
    ("codebooks span different times", forge(runs=[books(frames=2**47), books()], flags=1)),
    ("codes in one tensor have frames", forge(runs=[books(frames=4), books(frames=5)])),
    ("numbers that take no bits", forge(runs=[books(size=1, frames=2**48)], parts=[b""])),
    (
        "1048577 numbers that take no bits and 0 that do",
        forge(runs=[books(1, size=1, frames=2**20 + 1)], parts=[b""]),
    ),
    (
        r"block 1 of 1 \(0.00-0.08 s\) is not valid: code 7 of a codebook of 6 entries",
        forge(runs=[books(size=6)], parts=[bytes.fromhex("0123 af")]),
    ),
    (
        "bits are set after the last code",
        forge(runs=[books(1, size=8)], parts=[bytes.fromhex("0001")]),
    ),
    ("the original samples must be 0..", forge(flags=2, middle=b"\1\1" + varint(2**60))),
    ("the original sample rate must be 1..", forge(flags=2, middle=b"\0\1\1")),
    (
        "the original channels must be 1..1024",
        forge(flags=2, middle=varint(16000) + varint(10**6) + varint(1280)),
    ),
    (
        "48000000 samples at 16000 Hz are not as long as 1280",
        forge(flags=2, middle=varint(16000) + b"\1" + varint(48_000_000)),
    ),
    (
        "the side bits must be finite",
        forge(flags=8, last=b"\0" + struct.pack("<d", math.nan)),
    ),
    (
        "the side bits must not be negative",
        forge(flags=8, last=b"\0" + struct.pack("<d", -1)),
    ),
]


def beside(*found: bytes, data: bytes = b"\0") -> bytes:
    last = varint(len(found)) + struct.pack("<d", 0) + b"".join(found)
    return forge(flags=8, last=last, parts=(data, bytes.fromhex("0123 4567")))


LIES += [
    ("the number of sides must be 0..64", beside(*[side()] * 65)),
    ("a side is given twice", beside(side(), side())),
    ("a side name must be 1..64 letters, digits, _ and ., got 'a/b'", beside(side("a/b"))),
    ("the type of side 'n' must be 0..8", beside(side(kind=9))),
    ("the axes of side 'n' must be 0..8", beside(side(shape=(1,) * 9))),
    ("the shape of side 'n' must be", beside(side(shape=(2**60,)))),
    ("bytes early, within the side", beside(side(shape=(2**40, 2**40)))),
    ("bytes early, within the side", beside(side(kind=7, shape=(2**40,)))),
    ("numbers that take no bits", beside(side(shape=(2**48,), width=0), data=b"")),
    (r"has the impossible shape \[0, 281474976710656\]", beside(side(shape=(0, 2**48)), data=b"")),
    ("the bits of side 'n' must be 0..64", beside(side(width=65))),
    ("side 'n' has 0..7, its type 0..1", beside(side(kind=0), data=b"\xfc")),
    (
        "side 'n' has -128..128, its type -128..127",
        beside(side(kind=2, shape=(1,), smallest=255, width=9), data=b"\x80\0"),
    ),
    ("its type -9223372036854775808..", beside(side(smallest=2, width=64), data=b"\xff" * 16)),
    *(
        (f"side 'n' has {low - 1}..{low - 1}, its type {low}..", below)
        for kind, low in enumerate((0, 0, -(2**7), -(2**15), -(2**31)))
        for below in [beside(side(kind=kind, smallest=1 - 2 * low))]  # low - 1 in zigzag
    ),
]


@pytest.mark.parametrize(("said", "data"), LIES, ids=[said for said, _ in LIES])
def test_lies_are_refused_and_take_no_memory(said: str, data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match=said):
            bitstream.loads(data)
        assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("{", "are not JSON"),
        ("[1]", "must be a JSON object"),
        ("[" * 4000, "are not JSON"),
        ('{"a":' * 600 + "1" + "}" * 600, "must be a number, true, false or a word"),
        ('{"a":' + "1" * 4000 + "}", "is beyond"),
        ('{"a":1e999}', "is not finite"),
        ('{"a":NaN}', "is not finite"),
        ('{"a":1,"a":2}', "is given twice"),
        ('{"a":[1]}', "must be a number, true, false or a word"),
        ('{"weights":["random"]}', "names something to load"),
        ('{"weights":"model.pt"}', "names something to load"),
        ('{"weights":1}', "names something to load"),
        ('{"audio":"/home"}', "names something to load"),
        ('{"model":"somebody"}', "names something to load"),
        ('{"device":"cuda"}', "belongs to the machine"),
        ('{"word":"../../etc/passwd"}', "is not a plain word"),
        ('{"word":"c:\\\\x"}', "is not a plain word"),
        ('{"word":"' + "x" * 65 + '"}', "is not a plain word"),
        ('{"1word":1}', "the name of a setting"),
        ('{"__class__":1}', "the name of a setting"),
        (
            "{" + ",".join(f'"a{k}":1' for k in range(65)) + "}",
            "the number of settings must be 0..64, got 65",
        ),
        ('{"a":"' + "x" * 5000 + '"}', "the length of the settings must be 0..4096"),
        (b'{"a":"\xff"}', "the settings must be UTF-8"),
    ],
)
def test_settings_that_no_file_may_carry(found: str | bytes, said: str) -> None:
    with pytest.raises(BitstreamError, match=said):
        bitstream.loads(forge(settings=found))


def test_words_that_name_no_file_may_stay() -> None:
    carried: dict[str, bitstream.Setting] = {
        "weights": "random",
        "audio": "starter:fit",
        "stack": 2,
    }
    given = {**carried, "device": "cuda", "beam_width": 4, "model": "x", "seed": None, "where": "y"}
    assert bitstream.carried(given, ["where"]) == (carried, ("model", "where"))
    recording = bitstream.loads(bitstream.dumps(lyra(), codec="mdct+rvq", settings=carried))
    assert recording.settings == carried


def test_a_million_codes_of_one_entry_are_free() -> None:
    codes = torch.zeros(1, 1, 2**20, dtype=torch.int64)
    tokens = Tokens(codes, (50.0,), (1,), 16000, 2**20 * 320)
    data = bitstream.dumps(tokens, codec="some_codec")
    assert len(data) < 60
    assert_same(bitstream.loads(data).tokens, tokens)


# what cannot be written


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"side": {"z": torch.zeros(1, dtype=torch.bfloat16)}}, "'z' is torch.bfloat16; a file ho"),
        ({"side": {"a b": torch.zeros(1)}}, "a side name must be .*, got 'a b'"),
        ({"num_samples": 10**6}, "last 62.5 s, the frames 5 s"),
        ({"sample_rate": 2_000_000}, "sample rate must be"),
    ],
)
def test_tokens_that_fit_no_file(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bitstream.dumps(replace(lyra(), **changes), codec="lyra_v2")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codec": "Lyra V2"}, "the name of a codec must be"),
        ({"settings": {"weights": "here.pt"}}, "names something to load"),
        ({"settings": {"a": 1}, "needs": ["a"]}, "is given twice"),
        (
            {"settings": {f"{k:064}".replace("0", "a"): 1.5 for k in range(64)}},
            "the bytes of the settings must be 0..4096",
        ),
        ({"digest": "xyz"}, "16 hex digits or empty: 'xyz'"),
        ({"origin": Origin(16000, 1, 90000)}, "not as long as 80000"),
    ],
)
def test_descriptions_that_fit_no_file(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bitstream.dumps(lyra(), **{"codec": "lyra_v2", **options})


# fuzzing


def check_memory_and_errors(data: bytes) -> None:
    """Whatever the bytes: tokens or BitstreamError, and memory that the bytes account for."""
    tracemalloc.start()
    try:
        for parse in (bitstream.loads, lambda data: bitstream.info(io.BytesIO(data))):
            with contextlib.suppress(BitstreamError):
                parse(data)
        # 2 ** 20 numbers may be free, of 8 bytes, in tokens and while they are read.
        assert tracemalloc.get_traced_memory()[1] < 24 * MEGABYTE + 400 * len(data)
    finally:
        tracemalloc.stop()


SEEDS = [
    bitstream.dumps(rich(), **RICH),
    bitstream.dumps(channels(1, 2), codec="some_codec"),
    GOLDEN,
    bitstream.dumps(lyra(40, 3), codec="lyra_v2"),
    forge(),
]


def sealed(fields: bytes, rest: bytes) -> bytes:
    """Put a header's fields back under a checksum that fits, and what follows too."""
    header = b"\x8fNCT\2" + len(fields).to_bytes(2, "little") + fields
    seed = zlib.crc32(header)
    part = rest[:-4]
    return (
        header
        + seed.to_bytes(4, "little")
        + part
        + zlib.crc32(part, (seed + 1) % 2**32).to_bytes(4, "little")
    )


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes(data: bytes) -> None:
    check_memory_and_errors(data)
    check_memory_and_errors(b"\x8fNCT\2" + data)
    check_memory_and_errors(sealed(data, data))


@given(st.sampled_from(SEEDS), st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutations(seed: bytes, data: st.DataObject) -> None:
    found = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(found)))
        stop = data.draw(st.integers(start, min(len(found), start + 9)))
        found[start:stop] = data.draw(st.binary(max_size=10))
    check_memory_and_errors(bytes(found))
    length = int.from_bytes(seed[5:7], "little")  # now with checksums that let the change through
    check_memory_and_errors(sealed(bytes(found[7 : 7 + length]), bytes(found[11 + length :])))


# files


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.nct"
    bitstream.write(path, lyra(), codec="lyra_v2")
    before = path.read_bytes()

    def full(*paths: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"cannot write .*a\.nct"):
        bitstream.write(path, rich(), **RICH)
    with pytest.raises(ValueError, match="the name of a codec must be"):
        bitstream.write(path, rich(), codec="?")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_named_pipe_stays_one(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    bitstream.write(pipe, lyra(), codec="lyra_v2")
    reader.join(10)
    assert got == [bitstream.dumps(lyra(), codec="lyra_v2")]
    assert pipe.is_fifo()


def test_no_file() -> None:
    with pytest.raises(FileNotFoundError):
        bitstream.read("no/such/file.nct")


def test_width() -> None:
    assert [width_of(size) for size in SIZES] == [0, 1, 2, 4, 10, 10, 11, 16, 33, 63]
