"""Damaged files of tokens: what is intact is kept, and what is lost is named."""

import contextlib
import io
import struct
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralcodec import bitstream
from neuralcodec.bitstream import BitstreamError
from neuralcodec.bitstream import repair as module
from neuralcodec.core.tokens import Tokens

BLOCK = 15000 + 4
"""Bytes of a block of `long`, checksum included."""


def long(seed: int = 0) -> Tokens:
    """80 seconds in 4 blocks of 20 s: 1000 frames of 30 codes of 4 bits each."""
    codes = np.random.default_rng(seed).integers(0, 16, (1, 30, 4000), np.int64)
    return Tokens.uniform(
        torch.from_numpy(codes),
        frame_rate=50,
        codebook_size=16,
        sample_rate=16000,
        num_samples=4000 * 320,
    )


def file_of(tokens: Tokens) -> bytes:
    return bitstream.dumps(tokens, codec="lyra_v2")


def spoiled(data: bytes, *blocks: int) -> bytes:
    """Flip a bit in blocks of a file of `long`, counted from the last, which is 0."""
    found = bytearray(data)
    for block in blocks:
        found[len(data) - 100 - block * BLOCK] ^= 64
    return bytes(found)


def codes_of(tokens: Tokens) -> torch.Tensor:
    assert isinstance(tokens.codes, torch.Tensor)
    return tokens.codes


def test_an_intact_file_is_read_as_without_repair() -> None:
    recording = bitstream.loads(file_of(long()), repair=True)
    assert torch.equal(codes_of(recording.tokens), codes_of(long()))
    assert (recording.lost, recording.damage) == ((), ())


@pytest.mark.parametrize(
    ("blocks", "frames", "lost"),
    [
        ((1,), [(2000, 3000)], ((40.0, 60.0),)),
        ((1, 2), [(1000, 3000)], ((20.0, 60.0),)),
        ((0, 2), [(1000, 2000), (3000, 4000)], ((20.0, 40.0), (60.0, 80.0))),
        ((3,), [(0, 1000)], ((0.0, 20.0),)),
    ],
)
def test_only_damaged_blocks_are_lost(
    blocks: tuple[int, ...], frames: list[tuple[int, int]], lost: tuple[tuple[float, float], ...]
) -> None:
    data = spoiled(file_of(long()), *blocks)
    with pytest.raises(BitstreamError, match="decode --repair, or repair=True, keeps the rest"):
        bitstream.loads(data)
    recording = bitstream.loads(data, repair=True)
    assert recording.lost == lost
    assert len(recording.damage) == len(blocks)
    assert all("fails its checksum" in each for each in recording.damage)
    codes, want = codes_of(recording.tokens), codes_of(long()).clone()
    for start, stop in frames:  # the last intact frame before, or the first after
        source = start - 1 if start else stop
        want[..., start:stop] = want[..., source : source + 1]
    assert torch.equal(codes, want)


@pytest.mark.parametrize(
    ("cut", "start"), [(1, 60.0), (4, 60.0), (BLOCK - 1, 60.0), (BLOCK, 60.0), (BLOCK + 1, 40.0)]
)
def test_a_file_that_ends_early(cut: int, start: float) -> None:
    data = file_of(long())[:-cut]
    with pytest.raises(BitstreamError, match=r"ends .* early, within block"):
        bitstream.loads(data)
    recording = bitstream.loads(data, repair=True)
    assert recording.lost == ((start, 80.0),)
    kept = round(start * 50)
    assert torch.equal(codes_of(recording.tokens)[..., :kept], codes_of(long())[..., :kept])
    assert recording.tokens.num_samples == long().num_samples  # its length is known


def test_what_follows_the_last_block_is_named() -> None:
    recording = bitstream.loads(file_of(long()) + b"\0", repair=True)
    assert torch.equal(codes_of(recording.tokens), codes_of(long()))
    assert recording.lost == ()
    assert recording.damage == ("the file goes on after its last block",)


def test_codebooks_of_different_rates() -> None:
    rng = np.random.default_rng(3)
    streams = tuple(
        torch.from_numpy(rng.integers(0, 4096, (1, frames), np.int64))
        for frames in (10000, 20000, 40000)
    )
    tokens = Tokens(streams, (12.5, 25.0, 50.0), (4096,) * 3, 24000, 800 * 24000)
    data = bytearray(bitstream.dumps(tokens, codec="snac_24khz"))
    header = bitstream.info(io.BytesIO(bytes(data))).header
    assert header.num_blocks == 7
    data[-20000] ^= 1  # in the last but one
    recording = bitstream.loads(bytes(data), repair=True)
    ((start, stop),) = recording.lost
    assert (start, stop) == pytest.approx((5 / 7 * 800, 6 / 7 * 800), abs=0.1)
    for got, want, rate in zip(recording.tokens.streams, streams, (12.5, 25.0, 50.0), strict=True):
        differ = torch.nonzero(got != want)[:, 1].double() / rate
        assert start <= float(differ.min()) <= start + 1
        assert stop - 1 <= float(differ.max()) <= stop


def packets(sizes: list[int], seed: int = 0) -> Tokens:
    """Bytes of packets, as of Opus, of 20 ms each."""
    rng = np.random.default_rng(seed)
    count, samples = sum(sizes), 320 * len(sizes)
    return Tokens(
        torch.from_numpy(rng.integers(0, 256, (1, 1, count), np.int64)),
        (count / samples * 16000,),
        (256,),
        16000,
        samples,
        side={"packet_sizes": torch.tensor(sizes), "delay": torch.tensor([0])},
    )


@pytest.mark.parametrize("batched", [False, True])
def test_packets_stay_whole(batched: bool) -> None:
    # Short packets first: time is that of packets, not of bytes.
    sizes = [10 + k % 3 for k in range(1500)] + [30 + k % 5 for k in range(1500)]
    tokens = packets(sizes)
    if batched:  # sizes with an axis of clips
        side = {name: value[None] for name, value in tokens.side.items()}
        tokens = replace(tokens, side=side)
    data = bytearray(bitstream.dumps(tokens, codec="opus"))
    data[-100] ^= 1
    recording = bitstream.loads(bytes(data), repair=True)
    info = bitstream.info(io.BytesIO(bytes(data)))
    kept = (info.header.num_blocks - 1) * tokens.num_tokens // info.header.num_blocks
    found = recording.tokens
    own = found.side["packet_sizes"]
    assert own.shape == tokens.side["packet_sizes"].shape
    assert int(own.sum()) == found.num_tokens
    ends = np.cumsum(sizes)
    first_lost = int(np.searchsorted(ends, kept, side="right"))
    pieces = torch.split(found.streams[0][0], own.flatten().tolist())
    wanted = torch.split(tokens.streams[0][0], sizes)
    for place, piece in enumerate(pieces):
        assert torch.equal(piece, wanted[min(place, first_lost - 1)])
    ((start, stop),) = recording.lost
    assert start == pytest.approx((first_lost - 3) * 0.02)
    assert stop == tokens.duration
    assert found.padded_duration == pytest.approx(tokens.padded_duration)


@pytest.mark.parametrize("block", [0, 1, 2, 3])
def test_three_packets_on_either_side_of_lost_ones_are_lost_too(block: int) -> None:
    sizes = [20 + k % 3 for k in range(3000)]
    tokens = packets(sizes)
    data = bytearray(bitstream.dumps(tokens, codec="opus"))
    header = bitstream.info(io.BytesIO(bytes(data))).header
    assert header.num_blocks == 4
    data[-sum(header.block_bytes(later) + 4 for later in range(block, 4))] ^= 1
    ((start, stop),) = bitstream.loads(bytes(data), repair=True).lost
    cut, ends = header.books[0].cut(block, 4), np.cumsum(sizes)
    lost = np.flatnonzero((ends > cut.start) & (ends - sizes < cut.stop))
    assert start == pytest.approx(max(lost[0] - 3, 0) * 0.02)
    assert stop == pytest.approx(min(lost[-1] + 1 + 3, len(sizes)) * 0.02)


def test_channels_are_lost_together() -> None:
    clips = [long(0), long(1)]
    data = bytearray(bitstream.dumps(clips, codec="lyra_v2"))
    data[-100] ^= 1  # in the second channel
    recording = bitstream.loads(bytes(data), repair=True)
    ((start, stop),) = recording.lost
    assert (start, stop) == (70.0, 80.0)
    for got, want in zip(recording.clips, clips, strict=True):
        assert torch.equal(codes_of(got)[..., :3500], codes_of(want)[..., :3500])


def test_what_is_beyond_repair() -> None:
    tokens = replace(long(), side={"scales": torch.ones(1, 5)})
    data = file_of(tokens)
    start = bitstream.info(io.BytesIO(data)).header_bytes
    for place, said in [
        (start - 10, "the header fails its checksum: the file is beyond repair"),
        (start + 3, "the side fails its checksum: the file is damaged and cannot be repaired"),
    ]:
        flipped = bytearray(data)
        flipped[place] ^= 1
        with pytest.raises(BitstreamError, match=said):
            bitstream.loads(bytes(flipped), repair=True)
    with pytest.raises(BitstreamError, match="within the header"):
        bitstream.loads(data[: start - 1], repair=True)
    with pytest.raises(BitstreamError, match="within the side and cannot be repaired"):
        bitstream.loads(data[: start + 3], repair=True)
    for damaged in (data[: start + 24], spoiled(data, 0, 1, 2, 3)):
        with pytest.raises(BitstreamError, match="no block of codes is intact"):
            bitstream.loads(damaged, repair=True)
    huge = bytearray(bitstream.dumps(packets([40000, 20]), codec="opus"))
    huge[-100] ^= 1  # in the last of three blocks, which has an end of either packet
    with pytest.raises(BitstreamError, match="no packet is intact"):
        bitstream.loads(bytes(huge), repair=True)


def test_a_false_header_takes_no_memory() -> None:
    """One intact block, and a header that promises 2 ** 48 frames."""
    name, books = b"\7lyra_v2", b"\1\x10" + struct.pack("<d", 50.0) + b"\x80" * 6 + b"\x40"
    fields = b"\0" + name + b"\0\x80\x7d\0\1" + books
    header = b"\x8fNCT\2" + len(fields).to_bytes(2, "little") + fields
    seed = zlib.crc32(header)
    block = bytes(16384)
    data = header + seed.to_bytes(4, "little") + block
    data += zlib.crc32(block, seed + 1).to_bytes(4, "little")
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match="codes are lost and 32768 intact: too many"):
            bitstream.loads(data, repair=True)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


SEED = bitstream.dumps(long(), codec="lyra_v2")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_keeps_intact_blocks(data: st.DataObject) -> None:
    found = bytearray(SEED)
    blocks = data.draw(st.sets(st.integers(0, 3), max_size=3))
    for block in blocks:
        place = data.draw(st.integers(1, BLOCK))
        found[len(SEED) - block * BLOCK - place] ^= 1 << data.draw(st.integers(0, 7))
    recording = bitstream.loads(bytes(found), repair=True)
    assert len(recording.damage) == len(blocks)
    lost = sum(stop - start for start, stop in recording.lost)
    assert lost == 20 * len(blocks)
    for place in range(4):
        same = slice(1000 * place, 1000 * (place + 1))
        if 3 - place not in blocks:
            assert torch.equal(codes_of(recording.tokens)[..., same], codes_of(long())[..., same])


@given(st.binary(max_size=40), st.integers(0, 300), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_repair_raises_nothing_else(noise: bytes, place: int, count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FILLED", 1000)
        for seed in (SEED, bitstream.dumps(packets([5, 6, 7]), codec="opus")):
            found = seed[:place] + noise + seed[place + count :]
            with contextlib.suppress(BitstreamError):
                bitstream.loads(found, repair=True)
