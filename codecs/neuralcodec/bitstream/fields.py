"""The small fields that a header is made of, written and read one after the other."""

import math
import struct

_VARINT_BYTES = 10  # seven bits a byte: all of a 64-bit number


class BitstreamError(ValueError):
    """A file is no neuralcodec file, is damaged, or claims what cannot be; the message says which.

    Raised when writing too: what a file may not claim cannot be put into one.
    """


def varint(value: int) -> bytes:
    """Write a number >= 0 with seven bits a byte, the lowest first; the top bit says "more".

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def zigzag(value: int) -> bytes:
    """Write a number of either sign as a varint: 0, -1, 1, -2 .. as 0, 1, 2, 3 .."""
    return varint(2 * value if value >= 0 else -2 * value - 1)


def float64(value: float) -> bytes:
    """Write a float in eight bytes, the lowest first (IEEE 754)."""
    return struct.pack("<d", value)


def text(value: str) -> bytes:
    """Write a text as its length in bytes, a varint, and its UTF-8."""
    encoded = value.encode()
    return varint(len(encoded)) + encoded


class Fields:
    """Reads fields from `data`, and nothing beyond it.

    Raises:
        BitstreamError: from every method, naming the field, if it is cut short or out of range.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def take(self, count: int, what: str) -> bytes:
        """Read `count` bytes."""
        piece = self._data[self._place : self._place + count]
        if len(piece) < count:
            raise BitstreamError(f"the header ends within {what}")
        self._place += count
        return piece

    def varint(self, what: str, low: int, high: int) -> int:
        """Read a number in low..high."""
        value = 0
        for place in range(_VARINT_BYTES):
            byte = self.take(1, what)[0]
            value |= (byte & 127) << (7 * place)
            if byte < 128:
                break
        else:
            raise BitstreamError(f"{what} is a number of more than {_VARINT_BYTES} bytes")
        if not low <= value <= high:
            raise BitstreamError(f"{what} must be {low}..{high}, the header says {value}")
        return value

    def zigzag(self, what: str) -> int:
        """Read a number of either sign that fits 64 bits."""
        value = self.varint(what, 0, 2**64 - 1)
        return value // 2 if value % 2 == 0 else -(value + 1) // 2

    def float64(self, what: str) -> float:
        """Read a finite float."""
        (value,) = struct.unpack("<d", self.take(8, what))
        if not math.isfinite(value):
            raise BitstreamError(f"{what} must be finite, the header says {value}")
        return float(value)

    def text(self, what: str, limit: int) -> str:
        """Read a text of at most `limit` bytes."""
        encoded = self.take(self.varint(f"the length of {what}", 0, limit), what)
        try:
            return encoded.decode()
        except UnicodeDecodeError as error:
            raise BitstreamError(f"{what} is no UTF-8: {encoded!r}") from error

    def finish(self) -> None:
        """Check that nothing is left."""
        left = len(self._data) - self._place
        if left:
            raise BitstreamError(f"the header has {left} bytes that mean nothing")
