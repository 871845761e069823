"""What stands beside the codes: tensors by name, such as scales or the sizes of packets.

Whole numbers take as many bits as their range needs, over their smallest; floats stay as they are.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralcodec.bitstream.fields import BitstreamError, Fields, text, varint, zigzag
from neuralcodec.bitstream.packing import from_bits, to_bits

# The place of a type in this table is its number in the file.
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
_AXES = 8
_EMPTY_LIMIT = 2**20  # product of the other axes where one is empty: nothing in the file bounds it
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}", re.ASCII)


@dataclass(frozen=True)
class SideField:
    """A tensor beside the codes, as the header describes it.

    Attributes:
        name: in `Tokens.side`.
        kind: place in the table of types.
        shape: of the tensor.
        smallest: what is added to every packed number; 0 for floats.
        width: bits of a number, 0..64.

    Raises:
        BitstreamError: if one of them is out of range.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    smallest: int
    width: int

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BitstreamError(f"side {self.name!r} is no name of 1..64 letters, digits, _ and .")
        if len(self.shape) > _AXES:
            raise BitstreamError(f"side {self.name!r} has {len(self.shape)} axes, not 0..{_AXES}")
        if not self.count and math.prod(max(axis, 1) for axis in self.shape) > _EMPTY_LIMIT:
            raise BitstreamError(f"side {self.name!r} claims the shape {list(self.shape)}")
        if not self._is_whole and self.width != 8 * self._dtype.itemsize:
            raise BitstreamError(f"side {self.name!r} has floats of {self.width} bits")

    @property
    def _dtype(self) -> np.dtype[np.generic]:
        return np.dtype(_TYPES[self.kind][1])

    @property
    def _is_whole(self) -> bool:
        return self._dtype.kind in "?biu"

    @property
    def dtype(self) -> torch.dtype:
        """Type of the tensor."""
        return _TYPES[self.kind][0]

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes, behind the header."""
        return -(-self.count * self.width // 8)

    def write(self) -> bytes:
        """Write the description."""
        shape = b"".join([varint(len(self.shape)), *map(varint, self.shape)])
        kind, width = bytes([self.kind]), bytes([self.width])
        return text(self.name) + kind + shape + (zigzag(self.smallest) + width) * self._is_whole

    @classmethod
    def read(cls, fields: Fields) -> "SideField":
        """Read a description; the inverse of `write`."""
        name = fields.text("the name of a side", 64)
        kind = fields.varint(f"the type of side {name!r}", 0, len(_TYPES) - 1)
        axes = fields.varint(f"the axes of side {name!r}", 0, _AXES)
        shape = tuple(fields.varint(f"the shape of side {name!r}", 0, 2**48) for _ in range(axes))
        dtype = np.dtype(_TYPES[kind][1])
        if dtype.kind == "f":
            return cls(name, kind, shape, 0, 8 * dtype.itemsize)
        smallest = fields.zigzag(f"the smallest of side {name!r}")
        width = fields.varint(f"the bits of side {name!r}", 0, 64)
        return cls(name, kind, shape, smallest, width)

    def pack(self, value: Tensor) -> bytes:
        """Write the numbers of a tensor of this description."""
        numbers = value.detach().cpu().numpy().ravel()
        if not self._is_whole:
            return numbers.astype(self._dtype).tobytes()
        # Modulo 2 ** 64, where the difference of any two int64 is right.
        above = numbers.astype(np.int64).view(np.uint64) - np.uint64(self.smallest % 2**64)
        return np.packbits(to_bits(above, self.width)).tobytes()

    def unpack(self, data: bytes) -> Tensor:
        """Read the tensor from its `num_bytes`; the inverse of `pack`.

        Raises:
            BitstreamError: if a number is beyond its type.
        """
        if not self._is_whole:
            return self._tensor(np.frombuffer(data, self._dtype).copy())
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=self.count * self.width)
        above = from_bits(bits, self.width, self.count)
        low, high = _range(self._dtype)
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


def _range(dtype: np.dtype[np.generic]) -> tuple[int, int]:
    if dtype.kind == "b":
        return 0, 1
    found = np.iinfo(str(dtype))
    return int(found.min), int(found.max)


def describe(name: str, value: Tensor) -> SideField:
    """Describe a tensor, with no more bits a number than it needs.

    Raises:
        BitstreamError: if a file can't carry it.
    """
    kinds = [dtype for dtype, _ in _TYPES]
    if value.dtype not in kinds:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in kinds)
        raise BitstreamError(f"side {name!r} is {value.dtype}; a file has {known}")
    kind, shape = kinds.index(value.dtype), tuple(value.shape)
    if value.is_floating_point():
        return SideField(name, kind, shape, 0, 8 * value.element_size())
    if not value.numel():
        return SideField(name, kind, shape, 0, 0)
    low, high = int(value.min()), int(value.max())
    return SideField(name, kind, shape, low, (high - low).bit_length())
