"""Files of tokens: a header, what stands beside the codes, and the codes in blocks.

Every part has a checksum; that of a block depends on the header and on its place, so that a block
out of another file or another place is found too.
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

from neuralcodec.bitstream.fields import BitstreamError
from neuralcodec.bitstream.header import Header, Origin, header_of
from neuralcodec.bitstream.layout import read_header, take, write_header
from neuralcodec.bitstream.packing import from_bits, to_bits
from neuralcodec.bitstream.settings import Setting
from neuralcodec.core.files import write_whole
from neuralcodec.core.tokens import Tokens

Source = str | Path | BinaryIO
"""A file, or a stream of bytes."""

_CHECKSUM = 4  # bytes


@dataclass(frozen=True)
class Recording:
    """A file of tokens, read.

    Attributes:
        header: what it says of itself: codec, settings, rates and so on.
        tokens: of one clip, just as they were written.
        num_bytes: of the whole file.
    """

    header: Header
    tokens: Tokens
    num_bytes: int

    @property
    def codec(self) -> str:
        """Name for `neuralcodec.load`."""
        return self.header.codec

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Settings of the codec. Those in `header.needs` it had too: who decodes gives them."""
        return self.header.settings


@dataclass(frozen=True)
class Info:
    """What a file says of itself, its codes unread.

    Attributes:
        header: of it.
        header_bytes: length of the header.
        num_bytes: length of the whole file, which is what its header says.
    """

    header: Header
    header_bytes: int
    num_bytes: int

    @property
    def measured_kbps(self) -> float:
        """Kilobits of the file a second of audio, all included; infinite without audio."""
        seconds = self.header.duration
        return self.num_bytes * 8 / seconds / 1000 if seconds else float("inf")


def _checksum(data: bytes, seed: int) -> bytes:
    """Give a part's checksum. Its seed, of the header and the part's place, is no part's else."""
    return zlib.crc32(data, seed % 2**32).to_bytes(_CHECKSUM, "little")


def _numbers(tokens: Tokens, header: Header) -> list[NDArray[np.int64]]:
    """Give the codes as an array `[count, T]` a run of equal codebooks."""
    streams = [stream[0].detach().cpu().numpy() for stream in tokens.streams]
    ends = accumulate(books.count for books in header.books)
    runs = zip(header.books, ends, strict=True)
    return [np.stack(streams[end - books.count : end]) for books, end in runs]


def _pack_block(header: Header, numbers: Sequence[NDArray[np.int64]], block: int) -> bytes:
    bits = []
    for books, codes in zip(header.books, numbers, strict=True):
        cut = books.cut(block, header.num_blocks)
        bits.append(to_bits(codes[:, cut.start : cut.stop].ravel(), books.width))
    return np.packbits(np.concatenate(bits)).tobytes()


def _unpack_block(
    header: Header, data: bytes, block: int, numbers: Sequence[NDArray[np.int64]]
) -> None:
    """Read the codes of a block into their place in `numbers`, arrays as of `_numbers`."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    for books, whole in zip(header.books, numbers, strict=True):
        cut = books.cut(block, header.num_blocks)
        count = books.count * len(cut)
        mine, bits = np.split(bits, [count * books.width])
        codes = from_bits(mine, books.width, count)
        largest = int(codes.max(initial=0))
        if largest >= books.size:
            raise BitstreamError(
                f"{_where(header, block)} holds the code {largest}, its codebook {books.size} "
                f"entries"
            )
        whole[:, cut.start : cut.stop] = codes.reshape(books.count, len(cut))
    if bits.any():
        raise BitstreamError(f"{_where(header, block)} holds something behind its last code")


def _where(header: Header, block: int) -> str:
    """Name a block by its place and time."""
    books = max(header.books, key=lambda books: books.frames)
    cut = books.cut(block, header.num_blocks)
    start, stop = cut.start / books.frame_rate, cut.stop / books.frame_rate
    return f"block {block + 1} of {header.num_blocks} ({start:.2f}-{stop:.2f} s)"


def _unpack(header: Header, side: bytes, blocks: Sequence[bytes]) -> Tokens:
    """Make the tokens. All bytes are here: nothing is as large as a header only claims."""
    codes: Tensor | tuple[Tensor, ...]
    if header.ragged:
        numbers = [np.empty((books.count, books.frames), np.int64) for books in header.books]
        codes = tuple(torch.from_numpy(row)[None] for run in numbers for row in run)
    else:
        whole = np.empty((header.num_codebooks, header.frames[0]), np.int64)
        ends = list(accumulate(books.count for books in header.books))
        numbers = np.split(whole, ends[:-1])
        codes = torch.from_numpy(whole)[None]
    for block, data in enumerate(blocks):
        _unpack_block(header, data, block, numbers)
    source = io.BytesIO(side)
    return Tokens(
        codes,
        frame_rates=header.frame_rates,
        codebook_sizes=header.codebook_sizes,
        sample_rate=header.sample_rate,
        num_samples=header.num_samples,
        side={each.name: each.unpack(source.read(each.num_bytes)) for each in header.side},
        side_bits=header.side_bits,
    )


def _read_part(stream: BinaryIO, count: int, what: str, seed: int) -> bytes:
    data = take(stream, count, what)
    if _checksum(data, seed) != take(stream, _CHECKSUM, what):
        raise BitstreamError(f"{what} fails its checksum: the file is damaged")
    return data


def _read(stream: BinaryIO) -> Recording:
    header, length, seed = read_header(stream)
    side = _read_part(stream, header.side_bytes, "the side", seed) if header.side else b""
    blocks = [
        _read_part(stream, header.block_bytes(block), _where(header, block), seed + 1 + block)
        for block in range(header.num_blocks)
    ]
    if stream.read(1):
        raise BitstreamError("the file goes on behind its last block")
    return Recording(header, _unpack(header, side, blocks), _num_bytes(header, length))


def _num_bytes(header: Header, header_bytes: int) -> int:
    side = header.side_bytes + _CHECKSUM if header.side else 0
    blocks = sum(header.block_bytes(block) + _CHECKSUM for block in range(header.num_blocks))
    return header_bytes + side + blocks


def _read_info(stream: BinaryIO) -> Info:
    header, length, _ = read_header(stream)
    found = stream.seek(0, io.SEEK_END)
    least = header.side_bytes + header.code_bits // 8
    if found >= least:  # or its blocks might be too many to be counted
        least = _num_bytes(header, length)
    if found != least:
        kind = "too short" if found < least else "too long"
        raise BitstreamError(f"the file has {found} bytes, {kind} for its header")
    return Info(header, length, found)


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    """Open a file, and name it in what is found wrong with it."""
    if not isinstance(source, str | Path):
        yield source
        return
    try:
        with Path(source).open("rb") as stream:
            yield stream
    except BitstreamError as error:
        raise BitstreamError(f"{source}: {error}") from error


def put(target: Source, contents: bytes) -> None:
    """Write a file so that it is there whole, or as it was before; or write to a stream."""
    if not isinstance(target, str | Path):
        target.write(contents)
        return
    path = Path(target)
    if path.exists() and not path.is_file():  # a device or a pipe must stay what it is
        path.write_bytes(contents)
    else:
        write_whole(path, contents)


def dumps(
    tokens: Tokens,
    *,
    codec: str,
    settings: Mapping[str, Setting] | None = None,
    needs: Sequence[str] = (),
    origin: Origin | None = None,
    digest: str = "",
) -> bytes:
    """Give the bytes of a file; arguments and errors as of `write`."""
    header = header_of(
        tokens, codec=codec, settings=settings or {}, needs=needs, origin=origin, digest=digest
    )
    parts = [write_header(header)]
    seed = int.from_bytes(parts[0][-_CHECKSUM:], "little")
    if header.side:
        side = b"".join(each.pack(tokens.side[each.name]) for each in header.side)
        parts += [side, _checksum(side, seed)]
    numbers = _numbers(tokens, header)
    for block in range(header.num_blocks):
        data = _pack_block(header, numbers, block)
        parts += [data, _checksum(data, seed + 1 + block)]
    return b"".join(parts)


def write(
    target: Source,
    tokens: Tokens,
    *,
    codec: str,
    settings: Mapping[str, Setting] | None = None,
    needs: Sequence[str] = (),
    origin: Origin | None = None,
    digest: str = "",
) -> None:
    """Write tokens of one clip to a file, which is then there whole, or as it was before.

    Args:
        target: the file, or a stream of bytes.
        tokens: of a batch of one.
        codec: name for `neuralcodec.load`.
        settings: of the codec, those that decoding takes; `carried` chooses them.
        needs: names of settings that decoding takes and a file doesn't carry, such as "weights".
        origin: the audio before it was made fit for the codec.
        digest: 16 hex digits that tell the codec's quantizer from another.

    Raises:
        BitstreamError: if there are several clips, or a value is more than a file can carry; a
            ValueError.
        OSError: if the file cannot be written.
    """
    put(
        target,
        dumps(tokens, codec=codec, settings=settings, needs=needs, origin=origin, digest=digest),
    )


def read(source: Source) -> Recording:
    """Read a file of tokens, and check all of it.

    Args:
        source: the file, or a stream of bytes, which is read to its end.

    Raises:
        BitstreamError: if it is of another format or version, damaged, cut short, or claims what
            cannot be; the message says which. It is a ValueError.
        OSError: if the file cannot be read.
    """
    with _opened(source) as stream:
        return _read(stream)


def loads(data: bytes) -> Recording:
    """Read the bytes of a file; errors as of `read`."""
    return _read(io.BytesIO(data))


def info(source: Source) -> Info:
    """Read only the header, and check the length of the file against it.

    Args:
        source: the file, or a stream of bytes that can seek.

    Raises:
        BitstreamError, OSError: as `read`; damage to codes shows when they are read.
    """
    with _opened(source) as stream:
        return _read_info(stream)
