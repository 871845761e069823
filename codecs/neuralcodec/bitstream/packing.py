"""Bit packing of codes and side tensors.

Codes and integers take as many bits as their range needs, the highest bit first.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralcodec.bitstream.fields import (
    BitstreamError,
    Fields,
    check_range,
    float64,
    text,
    varint,
)

Bits = NDArray[np.uint8]
"""One bit, 0 or 1, per element."""

MAX_CODEBOOKS = 4096
MAX_COUNT = 2**48  # samples, frames, axes of a tensor
_FRAME_RATES = (1e-6, 1e9)  # Hz
_AXES = 8
_EMPTY_LIMIT = 2**20  # product of the other axes of an empty tensor: no byte of the file bounds it
_SIDE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}", re.ASCII)

# The position of a type in this table is its number in the file.
_TYPES: tuple[tuple[torch.dtype, str], ...] = (
    (torch.bool, "?"),
    (torch.uint8, "u1"),
    (torch.int8, "i1"),
    (torch.int16, "<i2"),
    (torch.int32, "<i4"),
    (torch.int64, "<i8"),
    (torch.float16, "<f2"),
    (torch.float32, "<f4"),
    (torch.float64, "<f8"),
)


def width_of(size: int) -> int:
    """Return the bits of a number in 0..size - 1: ceil(log2(size)), 0 for a single value.

    >>> [width_of(size) for size in (1, 2, 3, 1024, 1025)]
    [0, 1, 2, 10, 11]
    """
    return (size - 1).bit_length()


def _word(width: int) -> int:
    """Return the bytes of the smallest machine integer of at least `width` bits, 1..64."""
    return next(word for word in (1, 2, 4, 8) if 8 * word >= width)


def to_bits(values: NDArray[np.integer], width: int) -> Bits:
    """Return numbers `[N]` in 0..2 ** width - 1 as bits `[N * width]`; `width` is 0..64."""
    if not width:
        return np.empty(0, np.uint8)
    word = _word(width)
    rows = values.astype(f">u{word}").view(np.uint8)
    return np.unpackbits(rows).reshape(-1, 8 * word)[:, -width:].ravel()


def from_bits(bits: Bits, width: int, count: int) -> NDArray[np.uint64]:
    """Return `count` numbers of `width` bits each; the inverse of `to_bits`."""
    if not width:
        return np.zeros(count, np.uint64)
    word = _word(width)
    rows = np.zeros((count, 8 * word), np.uint8)
    rows[:, -width:] = bits.reshape(count, width)
    return np.packbits(rows.ravel()).view(f">u{word}").astype(np.uint64)


@dataclass(frozen=True)
class Books:
    """Neighbouring codebooks of equal size, frame rate and number of frames.

    Attributes:
        count: codebooks, 1..4096.
        size: V, entries of each, 1..2^63.
        frame_rate: Hz, 1e-6..1e9.
        frames: T, codes of each, 0..2^48.

    Raises:
        BitstreamError: if one of them is out of range.
    """

    count: int
    size: int
    frame_rate: float
    frames: int

    def __post_init__(self) -> None:
        check_range("the number of codebooks", self.count, 1, MAX_CODEBOOKS)
        check_range("the entries of a codebook", self.size, 1, 2**63)
        check_range("the frames of a codebook", self.frames, 0, MAX_COUNT)
        low, high = _FRAME_RATES
        if not low <= self.frame_rate <= high:
            raise BitstreamError(
                f"a frame rate must be {low:g}..{high:g} Hz, got {self.frame_rate}"
            )

    @property
    def width(self) -> int:
        """Bits of a code."""
        return width_of(self.size)

    @property
    def seconds(self) -> float:
        """Time that the frames span."""
        return self.frames / self.frame_rate

    def cut(self, block: int, blocks: int) -> range:
        """Return the frames of each codebook that block `block` of `blocks` holds."""
        return range(self.frames * block // blocks, self.frames * (block + 1) // blocks)

    def write(self) -> bytes:
        """Return the description for the header."""
        numbers = varint(self.count) + varint(self.size)
        return numbers + float64(self.frame_rate) + varint(self.frames)

    @classmethod
    def read(cls, fields: Fields) -> "Books":
        """Read a description; the inverse of `write`."""
        return cls(
            count=fields.varint("the number of codebooks"),
            size=fields.varint("the entries of a codebook"),
            frame_rate=fields.float64("a frame rate"),
            frames=fields.varint("the frames of a codebook"),
        )


Codes = Sequence[NDArray[np.int64]]
"""An array `[count, T]` per run of codebooks."""


def pack_codes(runs: Sequence[Books], codes: Codes, block: int, blocks: int) -> bytes:
    """Return the codes of one block, run after run, with no gap between them."""
    bits = []
    for books, numbers in zip(runs, codes, strict=True):
        cut = books.cut(block, blocks)
        bits.append(to_bits(numbers[:, cut.start : cut.stop].ravel(), books.width))
    return np.packbits(np.concatenate(bits)).tobytes()


def unpack_codes(data: bytes, runs: Sequence[Books], codes: Codes, block: int, blocks: int) -> None:
    """Read the codes of one block into `codes`; the inverse of `pack_codes`.

    Raises:
        BitstreamError: if a code is outside its codebook, or a bit is set after the last code.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    for books, whole in zip(runs, codes, strict=True):
        cut = books.cut(block, blocks)
        count = books.count * len(cut)
        own, bits = np.split(bits, [count * books.width])
        numbers = from_bits(own, books.width, count)
        largest = int(numbers.max(initial=0))
        if largest >= books.size:
            raise BitstreamError(f"code {largest} of a codebook of {books.size} entries")
        whole[:, cut.start : cut.stop] = numbers.reshape(books.count, len(cut))
    if bits.any():
        raise BitstreamError("bits are set after the last code")


@dataclass(frozen=True)
class SideField:
    """A side tensor, such as scales or packet sizes, as the header describes it.

    Attributes:
        name: in `Tokens.side`.
        kind: position in the table of types.
        shape: of the tensor.
        smallest: added to every packed integer; 0 for floats.
        width: bits per number, 0..64.

    Raises:
        BitstreamError: if one of them is out of range.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    smallest: int
    width: int

    def __post_init__(self) -> None:
        if not _SIDE_NAME.fullmatch(self.name):
            raise BitstreamError(
                f"a side name must be 1..64 letters, digits, _ and ., got {self.name!r}"
            )
        check_range(f"the axes of side {self.name!r}", len(self.shape), 0, _AXES)
        if not self.count and math.prod(max(axis, 1) for axis in self.shape) > _EMPTY_LIMIT:
            raise BitstreamError(f"side {self.name!r} has the impossible shape {list(self.shape)}")

    @property
    def _dtype(self) -> np.dtype[np.generic]:
        return np.dtype(_TYPES[self.kind][1])

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes after the header."""
        return -(-self.count * self.width // 8)

    def write(self) -> bytes:
        """Return the description for the header."""
        shape = b"".join([varint(len(self.shape)), *map(varint, self.shape)])
        found = text(self.name) + bytes([self.kind]) + shape
        if self._dtype.kind == "f":
            return found
        zigzag = 2 * self.smallest if self.smallest >= 0 else -2 * self.smallest - 1
        return found + varint(zigzag) + bytes([self.width])

    @classmethod
    def read(cls, fields: Fields) -> "SideField":
        """Read a description; the inverse of `write`."""
        name = fields.text("the name of a side", 64)
        kind = fields.varint(f"the type of side {name!r}", 0, len(_TYPES) - 1)
        axes = fields.varint(f"the axes of side {name!r}", 0, _AXES)
        shape = tuple(
            fields.varint(f"the shape of side {name!r}", 0, MAX_COUNT) for _ in range(axes)
        )
        dtype = np.dtype(_TYPES[kind][1])
        if dtype.kind == "f":
            return cls(name, kind, shape, 0, 8 * dtype.itemsize)
        zigzag = fields.varint(f"the smallest of side {name!r}")
        smallest = zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2
        return cls(name, kind, shape, smallest, fields.varint(f"the bits of side {name!r}", 0, 64))

    def pack(self, value: Tensor) -> bytes:
        """Return the numbers of a tensor of this description."""
        numbers = value.detach().cpu().numpy().ravel()
        if self._dtype.kind == "f":
            return numbers.astype(self._dtype).tobytes()
        # Modulo 2 ** 64, where the difference of any two int64 is right.
        above = numbers.astype(np.int64).view(np.uint64) - np.uint64(self.smallest % 2**64)
        return np.packbits(to_bits(above, self.width)).tobytes()

    def unpack(self, data: bytes) -> Tensor:
        """Return the tensor from its `num_bytes`; the inverse of `pack`.

        Raises:
            BitstreamError: if a number is outside its type.
        """
        if self._dtype.kind == "f":
            return self._tensor(np.frombuffer(data, self._dtype).copy())
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=self.count * self.width)
        above = from_bits(bits, self.width, self.count)
        low, high = _limits(self._dtype)
        largest = self.smallest + int(above.max(initial=0))
        if not low <= self.smallest <= largest <= high:
            raise BitstreamError(
                f"side {self.name!r} has {self.smallest}..{largest}, its type {low}..{high}"
            )
        above += np.uint64(self.smallest % 2**64)
        return self._tensor(above.view(np.int64))

    def _tensor(self, numbers: NDArray[np.generic]) -> Tensor:
        native = numbers.astype(self._dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(native.reshape(self.shape))


def _limits(dtype: np.dtype[np.generic]) -> tuple[int, int]:
    if dtype.kind == "b":
        return 0, 1
    found = np.iinfo(str(dtype))
    return int(found.min), int(found.max)


def describe(name: str, value: Tensor) -> SideField:
    """Describe a side tensor, with no more bits per number than its range needs.

    Raises:
        BitstreamError: if its type is none that a file holds.
    """
    kinds = [dtype for dtype, _ in _TYPES]
    if value.dtype not in kinds:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in kinds)
        raise BitstreamError(f"side {name!r} is {value.dtype}; a file holds {known}")
    kind, shape = kinds.index(value.dtype), tuple(value.shape)
    if value.is_floating_point():
        return SideField(name, kind, shape, 0, 8 * value.element_size())
    if not value.numel():
        return SideField(name, kind, shape, 0, 0)
    low, high = int(value.min()), int(value.max())
    return SideField(name, kind, shape, low, (high - low).bit_length())
