"""Files of tokens: a header, the side tensors and the codes in blocks.

Every part has a checksum. That of a block depends on the header and on the position of the block,
so that a block from another file or another position is detected too.
"""

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralcodec.bitstream.fields import BitstreamError, Ended, take
from neuralcodec.bitstream.header import (
    CHECKSUM,
    MAGIC,
    Header,
    Layout,
    Origin,
    layout_of,
    read_header,
    write_header,
)
from neuralcodec.bitstream.packing import Codes, pack_codes, unpack_codes
from neuralcodec.bitstream.repair import Span, fill, lost_runs, mend, span
from neuralcodec.bitstream.settings import Setting
from neuralcodec.core.files import Target, put
from neuralcodec.core.tokens import Tokens


@dataclass(frozen=True)
class Recording:
    """A file of tokens, read.

    Attributes:
        header: what the file states: codec, settings, rates and so on.
        clips: tokens of one clip each, as they were written: one, or one per channel where each
            channel was coded on its own.
        num_bytes: of the whole file, as its header implies.
        damage: one message per fault that `repair` passed over; empty if the file is intact.
        lost: spans `(start, end)` of the audio, in seconds, whose codes are lost; rising, disjoint.
    """

    header: Header
    clips: tuple[Tokens, ...]
    num_bytes: int
    damage: tuple[str, ...] = ()
    lost: tuple[Span, ...] = ()

    @property
    def codec(self) -> str:
        """Name for `neuralcodec.load`."""
        return self.header.codec

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Settings of the codec. It had those in `header.needs` too, which the caller must give."""
        return self.header.settings

    @property
    def tokens(self) -> Tokens:
        """The clips as one batch."""
        return Tokens.batch(self.clips)


@dataclass(frozen=True)
class Info:
    """What a file states about itself; its codes are not read.

    Attributes:
        header: of the file.
        header_bytes: length of the header.
        num_bytes: length of the whole file, which is what its header implies.
    """

    header: Header
    header_bytes: int
    num_bytes: int

    @property
    def measured_kbps(self) -> float:
        """Kilobits of the whole file per second of audio; infinite without audio."""
        seconds = self.header.duration
        return self.num_bytes * 8 / seconds / 1000 if seconds else float("inf")


def _checksum(data: bytes, seed: int) -> bytes:
    return zlib.crc32(data, seed % 2**32).to_bytes(CHECKSUM, "little")


def _one_by_one(tokens: Tokens | Sequence[Tokens]) -> list[Tokens]:
    """Return tokens of one clip each."""
    if not isinstance(tokens, Tokens):
        clips = [clip for each in tokens for clip in _one_by_one(each)]
        if not clips:
            raise BitstreamError("a file needs the tokens of at least one clip, got none")
        return clips
    return list(tokens)


def _numbers(tokens: Tokens, layout: Layout) -> list[NDArray[np.int64]]:
    """Return the codes as an array `[count, T]` per run of codebooks."""
    streams = [stream[0].detach().cpu().numpy() for stream in tokens.streams]
    ends = accumulate(books.count for books in layout.books)
    runs = zip(layout.books, ends, strict=True)
    return [np.stack(streams[end - books.count : end]) for books, end in runs]


def _where(header: Header, block: int) -> str:
    """Name a block by its position and time."""
    start, stop = span(header, range(block, block + 1))
    return f"block {block + 1} of {header.num_blocks} ({start:.2f}-{stop:.2f} s)"


def _read_part(stream: BinaryIO, count: int, what: str, seed: int) -> bytes:
    data = take(stream, count, what)
    if _checksum(data, seed) != take(stream, CHECKSUM, what):
        raise BitstreamError(f"{what} fails its checksum: the file is damaged")
    return data


def _read_side(stream: BinaryIO, header: Header, seed: int) -> list[dict[str, Tensor]]:
    """Read the side tensors of each clip."""
    data = b""
    if header.side:
        try:
            data = _read_part(stream, header.side_bytes, "the side", seed)
        except BitstreamError as error:
            raise BitstreamError(f"{error} and cannot be repaired") from error
    source = io.BytesIO(data)
    return [
        {each.name: each.unpack(source.read(each.num_bytes)) for each in clip.side}
        for clip in header.clips
    ]


def _read_blocks(
    stream: BinaryIO, header: Header, seed: int, repair: bool
) -> tuple[dict[int, bytes], list[str]]:
    """Read the blocks that are intact, by position, and one message per fault."""
    blocks: dict[int, bytes] = {}
    damage: list[str] = []
    for block in range(header.num_blocks):
        where, size = _where(header, block), header.block_bytes(block)
        try:
            blocks[block] = _read_part(stream, size, where, seed + 1 + block)
        except BitstreamError as error:
            if not repair:
                raise BitstreamError(
                    f"{error}; decode --repair, or repair=True, keeps the rest"
                ) from error
            damage.append(str(error))
            if isinstance(error, Ended):
                break
    else:
        if stream.read(1):
            damage.append("the file goes on after its last block")
            if not repair:
                raise BitstreamError(damage[0])
    return blocks, damage


def _tokens(header: Header, layout: Layout, codes: Codes, side: Mapping[str, Tensor]) -> Tokens:
    streams = [torch.from_numpy(row)[None] for run in codes for row in run]
    try:
        return Tokens(
            tuple(streams) if header.ragged else torch.from_numpy(np.concatenate(codes))[None],
            frame_rates=layout.frame_rates,
            codebook_sizes=layout.codebook_sizes,
            sample_rate=header.sample_rate,
            num_samples=header.num_samples,
            side=side,
            side_bits=layout.side_bits,
        )
    except ValueError as error:
        raise BitstreamError(f"the file states what tokens cannot be: {error}") from error


def _unpack(header: Header, blocks: Mapping[int, bytes]) -> Codes:
    """Return the codes of all clips; those of blocks that are not there are left undefined."""
    codes = [np.empty((books.count, books.frames), np.int64) for books in header.books]
    for block, data in blocks.items():
        try:
            unpack_codes(data, header.books, codes, block, header.num_blocks)
        except BitstreamError as error:
            raise BitstreamError(f"{_where(header, block)} is not valid: {error}") from error
    return codes


def _read(stream: BinaryIO, repair: bool) -> Recording:
    header, length, seed = read_header(stream)
    sides = _read_side(stream, header, seed)
    blocks, damage = _read_blocks(stream, header, seed, repair)
    runs = lost_runs(header, blocks)
    codes = _unpack(header, blocks)
    fill(header, codes, runs)
    clips, first = [], 0
    for layout, side in zip(header.clips, sides, strict=True):
        last = first + len(layout.books)
        clips.append(_tokens(header, layout, codes[first:last], side))
        first = last
    found, lost = mend(header, clips, runs)
    return Recording(header, found, _num_bytes(header, length), tuple(damage), lost)


def _num_bytes(header: Header, header_bytes: int) -> int:
    side = header.side_bytes + CHECKSUM if header.side else 0
    blocks = sum(header.block_bytes(block) + CHECKSUM for block in range(header.num_blocks))
    return header_bytes + side + blocks


def _read_info(stream: BinaryIO) -> Info:
    header, length, _ = read_header(stream)
    found = stream.seek(0, io.SEEK_END)
    wanted = header.side_bytes + header.code_bits // 8
    if found >= wanted:  # else there might be too many blocks to count
        wanted = _num_bytes(header, length)
    if found != wanted:
        kind = "short" if found < wanted else "long"
        raise BitstreamError(f"the file has {found} bytes, too {kind} for its header")
    return Info(header, length, found)


@contextmanager
def _opened(source: Target) -> Iterator[BinaryIO]:
    """Open a file, and name it in errors."""
    if not isinstance(source, str | Path):
        yield source
        return
    try:
        with Path(source).open("rb") as stream:
            yield stream
    except BitstreamError as error:
        raise BitstreamError(f"{source}: {error}") from error


def is_recording(path: str | Path) -> bool:
    """Return whether a file begins as files of tokens do, of any version."""
    with Path(path).open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def dumps(
    tokens: Tokens | Sequence[Tokens],
    *,
    codec: str,
    settings: Mapping[str, Setting] | None = None,
    needs: Sequence[str] = (),
    origin: Origin | None = None,
    digest: str = "",
) -> bytes:
    """Return the bytes of a file; arguments and errors as of `write`."""
    clips = _one_by_one(tokens)
    kinds = {(clip.sample_rate, clip.num_samples, isinstance(clip.codes, Tensor)) for clip in clips}
    if len(kinds) > 1:
        raise BitstreamError(f"the channels differ in sample rate, length or form: {sorted(kinds)}")
    ((sample_rate, num_samples, is_tensor),) = kinds
    header = Header(
        codec,
        sample_rate,
        num_samples,
        tuple(map(layout_of, clips)),
        settings=dict(settings or {}),
        needs=tuple(sorted(needs)),
        origin=origin,
        digest=digest[:16],
        ragged=not is_tensor,
    )
    parts = [write_header(header)]
    seed = int.from_bytes(parts[0][-CHECKSUM:], "little")
    if header.side:
        both = zip(header.clips, clips, strict=True)
        side = b"".join(each.pack(clip.side[each.name]) for own, clip in both for each in own.side)
        parts += [side, _checksum(side, seed)]
    numbers = [run for clip in zip(clips, header.clips, strict=True) for run in _numbers(*clip)]
    for block in range(header.num_blocks):
        data = pack_codes(header.books, numbers, block, header.num_blocks)
        parts += [data, _checksum(data, seed + 1 + block)]
    return b"".join(parts)


def write(
    target: Target,
    tokens: Tokens | Sequence[Tokens],
    *,
    codec: str,
    settings: Mapping[str, Setting] | None = None,
    needs: Sequence[str] = (),
    origin: Origin | None = None,
    digest: str = "",
) -> None:
    """Write tokens to a file, which is then whole or as it was before.

    Args:
        target: the file, which is replaced if it exists, or a stream of bytes.
        tokens: of one clip; or the channels of one clip, each coded on its own: as a batch, or as
            a sequence of tokens where their numbers of frames differ.
        codec: name for `neuralcodec.load`.
        settings: of the codec, those that decoding takes; `carried` selects them.
        needs: names of settings that decoding takes and no file holds, such as "weights".
        origin: the audio before it was made fit for the codec.
        digest: `Codec.digest`, whose first 16 hex digits are kept; "" if unknown.

    Raises:
        BitstreamError: if the channels differ in length, sample rate or codebooks, or a value is
            outside what a file holds; a ValueError.
        OSError: if the file cannot be written.
    """
    put(
        target,
        dumps(tokens, codec=codec, settings=settings, needs=needs, origin=origin, digest=digest),
    )


def read(source: Target, *, repair: bool = False) -> Recording:
    """Read a file of tokens, and check all of it.

    Args:
        source: the file, or a stream of bytes, which is read to its end.
        repair: whether to read what is left of a damaged file. Blocks of codes that fail their
            checksum or are missing at the end are filled in: each frame of theirs repeats the last
            intact one before it. `Recording.lost` has their time, `Recording.damage` the faults.

    Raises:
        BitstreamError: if it is of another format or version, damaged, cut short, or states what
            cannot be; the message names the fault. With `repair` only if the header or the side is
            damaged or no block is intact. It is a ValueError.
        OSError: if the file cannot be read.
    """
    with _opened(source) as stream:
        return _read(stream, repair)


def loads(data: bytes, *, repair: bool = False) -> Recording:
    """Read the bytes of a file; arguments and errors as of `read`."""
    return _read(io.BytesIO(data), repair)


def info(source: Target) -> Info:
    """Read only the header, and check the length of the file against it.

    Args:
        source: the file, or a stream of bytes that can seek.

    Raises:
        BitstreamError, OSError: as `read`; damage to codes is found when they are read.
    """
    with _opened(source) as stream:
        return _read_info(stream)
