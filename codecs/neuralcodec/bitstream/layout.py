"""How a header lies in a file, byte by byte; docs/bitstream.md is the same in words."""

import zlib
from typing import BinaryIO

from neuralcodec.bitstream import settings
from neuralcodec.bitstream.fields import BitstreamError, Fields, float64, text, varint
from neuralcodec.bitstream.header import (
    DIGEST_BYTES,
    MAX_CODEBOOKS,
    MAX_COUNT,
    MAX_SIDES,
    Books,
    Header,
    Origin,
)
from neuralcodec.bitstream.side import SideField

MAGIC = b"\x8fNCT"
"""The first bytes of a file. No text begins with 8f, in ASCII or UTF-8."""

VERSION = 1

_PREFIX = len(MAGIC) + 1 + 2  # magic, version, length of the fields
_LONGEST = 2**16 - 1  # fields
_PIECE = 2**20  # bytes read at once: a length that lies takes no memory

# Flags: which parts the header has.
_RAGGED, _ORIGIN, _DIGEST, _SIDE = 1, 2, 4, 8
_KNOWN = _RAGGED | _ORIGIN | _DIGEST | _SIDE


def take(stream: BinaryIO, count: int, what: str) -> bytes:
    """Read `count` bytes, in no more memory than the stream has bytes for.

    Raises:
        BitstreamError: if there are fewer.
    """
    pieces: list[bytes] = []
    left = count
    while left:
        piece = stream.read(min(left, _PIECE))
        if not piece:
            raise BitstreamError(f"the file ends {left} bytes early, within {what}")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _write_books(books: Books) -> bytes:
    numbers = varint(books.count) + varint(books.size)
    return numbers + float64(books.frame_rate) + varint(books.frames)


def _read_books(fields: Fields) -> Books:
    return Books(
        count=fields.varint("the number of codebooks", 1, MAX_CODEBOOKS),
        size=fields.varint("the entries of a codebook", 1, 2**63),
        frame_rate=fields.float64("a frame rate"),
        frames=fields.varint("the frames of a codebook", 0, MAX_COUNT),
    )


def _write_origin(origin: Origin) -> bytes:
    return b"".join(map(varint, (origin.sample_rate, origin.channels, origin.num_samples)))


def _read_origin(fields: Fields) -> Origin:
    return Origin(
        sample_rate=fields.varint("the original sample rate", 1, MAX_COUNT),
        channels=fields.varint("the original channels", 1, MAX_COUNT),
        num_samples=fields.varint("the original samples", 0, MAX_COUNT),
    )


def _write_fields(header: Header) -> bytes:
    origin, digest, side = header.origin, header.digest, header.side or header.side_bits
    flags = _RAGGED * header.ragged
    flags |= _ORIGIN * (origin is not None) | _DIGEST * bool(digest) | _SIDE * bool(side)
    return b"".join(
        [
            bytes([flags]),
            text(header.codec),
            text(settings.to_json(header.settings, header.needs)),
            varint(header.sample_rate),
            varint(header.num_samples),
            _write_origin(origin) if origin else b"",
            bytes.fromhex(digest),
            varint(len(header.books)),
            *map(_write_books, header.books),
            varint(len(header.side)) + float64(header.side_bits) if side else b"",
            *(each.write() for each in header.side),
        ]
    )


def _read_fields(data: bytes) -> Header:
    fields = Fields(data)
    flags = fields.varint("flags", 0, 255)
    if flags & ~_KNOWN:
        raise BitstreamError(f"the header has flags that this version doesn't know: {flags:#04x}")
    codec = fields.text("the name of the codec", 128)
    found, needs = settings.from_json(fields.text("settings", settings.LIMIT))
    sample_rate = fields.varint("the sample rate", 1, MAX_COUNT)
    num_samples = fields.varint("the samples", 0, MAX_COUNT)
    origin = _read_origin(fields) if flags & _ORIGIN else None
    digest = fields.take(DIGEST_BYTES, "the digest").hex() if flags & _DIGEST else ""
    runs = fields.varint("the runs of codebooks", 1, MAX_CODEBOOKS)
    books = tuple(_read_books(fields) for _ in range(runs))
    sides = fields.varint("the sides", 0, MAX_SIDES) if flags & _SIDE else 0
    side_bits = fields.float64("the bits of the side") if flags & _SIDE else 0.0
    side = tuple(SideField.read(fields) for _ in range(sides))
    fields.finish()
    return Header(
        codec,
        sample_rate,
        num_samples,
        books,
        settings=found,
        needs=needs,
        origin=origin,
        digest=digest,
        ragged=bool(flags & _RAGGED),
        side=side,
        side_bits=side_bits,
    )


def write_header(header: Header) -> bytes:
    """Write a header, from the magic number to its checksum.

    Raises:
        BitstreamError: if it is too long.
    """
    fields = _write_fields(header)
    if len(fields) > _LONGEST:
        raise BitstreamError(f"the header takes {len(fields)} bytes; there may be {_LONGEST}")
    found = MAGIC + bytes([VERSION]) + len(fields).to_bytes(2, "little") + fields
    return found + zlib.crc32(found).to_bytes(4, "little")


def read_header(stream: BinaryIO) -> tuple[Header, int, int]:
    """Read a header, and nothing behind it.

    Returns:
        The header, its length in bytes and its checksum.

    Raises:
        BitstreamError: if it is of another format or version, damaged, or claims what cannot be.
    """
    prefix = stream.read(_PREFIX)
    if not prefix.startswith(MAGIC):
        raise BitstreamError(f"it is no file of neuralcodec: it begins with {prefix[:4]!r}")
    if len(prefix) < _PREFIX:
        raise BitstreamError("the file ends within the header")
    version = prefix[len(MAGIC)]
    if version != VERSION:
        raise BitstreamError(f"it is of format version {version}, this program reads {VERSION}")
    length = int.from_bytes(prefix[-2:], "little")
    fields = take(stream, length, "the header")
    checksum = take(stream, 4, "the header")
    if zlib.crc32(prefix + fields).to_bytes(4, "little") != checksum:
        raise BitstreamError("the header fails its checksum: the file is damaged")
    return _read_fields(fields), _PREFIX + length + 4, int.from_bytes(checksum, "little")
