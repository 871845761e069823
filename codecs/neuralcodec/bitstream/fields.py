"""The fields that a header consists of, and how they are written and read one after the other."""

import math
import struct
from typing import BinaryIO

_VARINT_BYTES = 10  # seven bits per byte: enough for 64 bits
_PIECE = 2**20  # bytes read at once: a false length takes no memory


class BitstreamError(ValueError):
    """A file is not a neuralcodec file, is damaged, or states what cannot be true.

    Writing raises it too, for what no file can hold.
    """


class Ended(BitstreamError):
    """The file ends early."""


def check_range(what: str, value: int, low: int, high: int) -> int:
    """Return `value`, or raise BitstreamError if it is outside low..high."""
    if not low <= value <= high:
        raise BitstreamError(f"{what} must be {low}..{high}, got {value}")
    return value


def varint(value: int) -> bytes:
    """Return an integer >= 0 as seven bits per byte, lowest first; the top bit says "more".

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def float64(value: float) -> bytes:
    """Return a float as eight bytes, lowest first (IEEE 754)."""
    return struct.pack("<d", value)


def text(value: str) -> bytes:
    """Return a text as its length in bytes, a varint, followed by its UTF-8."""
    encoded = value.encode()
    return varint(len(encoded)) + encoded


def take(stream: BinaryIO, count: int, what: str) -> bytes:
    """Read `count` bytes, in no more memory than the stream has bytes for.

    Raises:
        Ended: if there are fewer.
    """
    data = bytearray()
    while left := count - len(data):
        piece = stream.read(min(left, _PIECE))
        if not piece:
            raise Ended(f"the file ends {left} bytes early, within {what}")
        data += piece
    return bytes(data)


class Fields:
    """Reads the fields of a header from `data`, and nothing beyond it.

    Raises:
        BitstreamError: from every method, if the named field is cut short or out of range.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def take(self, count: int, what: str) -> bytes:
        """Read `count` bytes."""
        piece = self._data[self._position : self._position + count]
        if len(piece) < count:
            raise BitstreamError(f"the header ends within {what}")
        self._position += count
        return piece

    def varint(self, what: str, low: int = 0, high: int = 2**64 - 1) -> int:
        """Read an integer in low..high."""
        value = 0
        for position in range(_VARINT_BYTES):
            byte = self.take(1, what)[0]
            value |= (byte & 127) << (7 * position)
            if byte < 128:
                return check_range(what, value, low, high)
        raise BitstreamError(f"{what} is a number of more than {_VARINT_BYTES} bytes")

    def float64(self, what: str) -> float:
        """Read a finite float."""
        (value,) = struct.unpack("<d", self.take(8, what))
        if not math.isfinite(value):
            raise BitstreamError(f"{what} must be finite, got {value}")
        return float(value)

    def text(self, what: str, limit: int) -> str:
        """Read a text of at most `limit` bytes."""
        encoded = self.take(self.varint(f"the length of {what}", 0, limit), what)
        try:
            return encoded.decode()
        except UnicodeDecodeError as error:
            raise BitstreamError(f"{what} must be UTF-8, got {encoded!r}") from error

    def finish(self) -> None:
        """Check that nothing is left."""
        left = len(self._data) - self._position
        if left:
            raise BitstreamError(f"the header has {left} bytes after its last field")
