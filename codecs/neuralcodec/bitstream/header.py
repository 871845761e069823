"""The header of a file: all that is known before the first code, checked before it is believed."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

from torch import Tensor

from neuralcodec.bitstream import settings as rules
from neuralcodec.bitstream.fields import BitstreamError
from neuralcodec.bitstream.packing import width_of
from neuralcodec.bitstream.settings import Setting
from neuralcodec.bitstream.side import SideField, describe
from neuralcodec.core.tokens import Tokens, nominal_rates

BLOCK_BITS = 8 * 16384
"""About how much of the codes is in a block, with a checksum of its own."""

# What can be claimed at no cost. Codebooks of one entry and constant sides take no bits, so the
# length of the file doesn't bound them.
_FREE_NUMBERS = 2**20  # beyond as many as there are that take bits
_SPARE_SECONDS = 1.0  # of audio beyond the last frame: what a codec may drop at the end

MAX_CODEBOOKS = 4096
MAX_SIDES = 64
MAX_COUNT = 2**48  # of samples, of frames
_RATES = (1e-6, 1e9)  # Hz, of frames
_SAMPLE_RATE = 1_000_000  # Hz
_CHANNELS = 1024
DIGEST_BYTES = 8
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}(\+rvq)?", re.ASCII)
_DIGEST = re.compile(rf"([0-9a-f]{{{2 * DIGEST_BYTES}}})?", re.ASCII)


def _check_range(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise BitstreamError(f"{what} must be {low}..{high}, got {value}")


@dataclass(frozen=True)
class Origin:
    """The audio as it was before it was made fit for the codec.

    Attributes:
        sample_rate: Hz.
        channels: of it.
        num_samples: a channel.
    """

    sample_rate: int
    channels: int
    num_samples: int

    def __post_init__(self) -> None:
        _check_range("the original sample rate", self.sample_rate, 1, _SAMPLE_RATE)
        _check_range("the original channels", self.channels, 1, _CHANNELS)
        _check_range("the original samples", self.num_samples, 0, MAX_COUNT)


@dataclass(frozen=True)
class Books:
    """Codebooks next to each other that are alike.

    Attributes:
        count: how many.
        size: V, entries of each.
        frame_rate: Hz.
        frames: T, codes of each.
    """

    count: int
    size: int
    frame_rate: float
    frames: int

    def __post_init__(self) -> None:
        _check_range("the number of codebooks", self.count, 1, MAX_CODEBOOKS)
        _check_range("the entries of a codebook", self.size, 1, 2**63)
        _check_range("the frames of a codebook", self.frames, 0, MAX_COUNT)
        if not _RATES[0] <= self.frame_rate <= _RATES[1]:
            raise BitstreamError(
                f"a frame rate must be {_RATES[0]:g}..{_RATES[1]:g} Hz, got {self.frame_rate}"
            )

    @property
    def width(self) -> int:
        """Bits of a code."""
        return width_of(self.size)

    @property
    def seconds(self) -> float:
        """What the frames span."""
        return self.frames / self.frame_rate

    def cut(self, block: int, blocks: int) -> range:
        """Say which frames of each codebook lie in a block."""
        return range(self.frames * block // blocks, self.frames * (block + 1) // blocks)


@dataclass(frozen=True)
class Header:
    """What a file says of the tokens in it.

    Attributes:
        codec: name for `neuralcodec.load`.
        sample_rate: of the tokens' audio, Hz.
        num_samples: of it.
        books: the codebooks, in runs of equal ones.
        settings: of the codec.
        needs: names of settings that the codec had and no file carries.
        origin: the audio before it was made fit for the codec; None if nothing is known of it.
        digest: 16 hex digits that tell one quantizer from another, "" for none.
        ragged: whether `Tokens.codes` is a tuple, a tensor a codebook.
        side: what stands beside the codes.
        side_bits: what the field counts it as.

    Raises:
        BitstreamError: if one is out of range, or they contradict each other.
    """

    codec: str
    sample_rate: int
    num_samples: int
    books: tuple[Books, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    origin: Origin | None = None
    digest: str = ""
    ragged: bool = False
    side: tuple[SideField, ...] = ()
    side_bits: float = 0.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.codec):
            raise BitstreamError(f"{self.codec!r} is no name of a codec")
        if not _DIGEST.fullmatch(self.digest):
            raise BitstreamError(f"the digest must be 16 hex digits or nothing: {self.digest!r}")
        rules.check(self.settings, self.needs)
        _check_range("the sample rate", self.sample_rate, 1, _SAMPLE_RATE)
        _check_range("the samples", self.num_samples, 0, MAX_COUNT)
        _check_range("the number of codebooks", self.num_codebooks, 1, MAX_CODEBOOKS)
        _check_range("the sides", len(self.side), 0, MAX_SIDES)
        if not 0 <= self.side_bits < math.inf:
            raise BitstreamError(f"the bits of the side must not be negative: {self.side_bits}")
        if len({each.name for each in self.side}) < len(self.side):
            raise BitstreamError(f"a side stands there twice: {[each.name for each in self.side]}")
        if not self.ragged and len({books.frames for books in self.books}) > 1:
            raise BitstreamError(f"codes in one tensor of frames {self.frames[:8]}")
        self._check_lengths()

    def _check_lengths(self) -> None:
        spans = [books.seconds for books in self.books]
        if max(spans) - min(spans) > 1 / min(self.frame_rates) + 1e-9:  # as `Tokens` has it
            raise BitstreamError(f"codebooks span different times, in seconds: {spans[:8]}")
        if self.duration > max(spans) + _SPARE_SECONDS:
            raise BitstreamError(
                f"{self.num_samples} samples at {self.sample_rate} Hz last {self.duration:.6g} s, "
                f"the frames {max(spans):.6g} s"
            )
        origin = self.origin
        if origin is not None:
            length = origin.num_samples * self.sample_rate / origin.sample_rate
            if abs(length - self.num_samples) > 1 + 1e-9 * length:
                raise BitstreamError(
                    f"{origin.num_samples} samples at {origin.sample_rate} Hz are not as long as "
                    f"{self.num_samples} at {self.sample_rate} Hz"
                )
        counts = [(books.count * books.frames, books.width) for books in self.books]
        counts += [(each.count, each.width) for each in self.side]
        free = sum(count for count, width in counts if not width)
        paid = sum(count for count, width in counts if width)
        if free > paid + _FREE_NUMBERS:
            raise BitstreamError(
                f"{free} numbers that take no bits beside {paid} that do: there may be "
                f"{_FREE_NUMBERS} more of them"
            )

    @property
    def num_codebooks(self) -> int:
        """K."""
        return sum(books.count for books in self.books)

    @property
    def frame_rates(self) -> tuple[float, ...]:
        """Hz, one a codebook."""
        return tuple(books.frame_rate for books in self.books for _ in range(books.count))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Entries, one a codebook."""
        return tuple(books.size for books in self.books for _ in range(books.count))

    @property
    def frames(self) -> tuple[int, ...]:
        """Codes, one number a codebook."""
        return tuple(books.frames for books in self.books for _ in range(books.count))

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return self.num_samples / self.sample_rate

    @property
    def bitrate_kbps(self) -> float:
        """Kilobits a second of padded audio, as `Tokens.bitrate_kbps` counts them."""
        span = max(books.seconds for books in self.books)
        side = self.side_bits / span / 1000 if self.side_bits and span else 0.0
        return nominal_rates(self.frame_rates, self.codebook_sizes)[1] + side

    @cached_property
    def code_bits(self) -> int:
        """Bits of all codes."""
        return sum(books.count * books.frames * books.width for books in self.books)

    @cached_property
    def num_blocks(self) -> int:
        """Blocks of codes, 1 at the least."""
        return max(1, -(-self.code_bits // BLOCK_BITS))

    def block_bytes(self, block: int) -> int:
        """Bytes of the codes in a block: their bits, filled up to a whole byte."""
        cuts = ((books, len(books.cut(block, self.num_blocks))) for books in self.books)
        return -(-sum(books.count * frames * books.width for books, frames in cuts) // 8)

    @property
    def side_bytes(self) -> int:
        """Bytes of all sides."""
        return sum(each.num_bytes for each in self.side)


def header_of(
    tokens: Tokens,
    *,
    codec: str,
    settings: Mapping[str, Setting],
    needs: Sequence[str],
    origin: Origin | None,
    digest: str,
) -> Header:
    """Describe tokens of one clip; the arguments are those of `Header`.

    Raises:
        BitstreamError: if there are several clips, or a file cannot carry what is asked for.
    """
    if tokens.batch_size != 1:
        raise BitstreamError(f"a file holds one clip, the tokens are of {tokens.batch_size}")
    frames = [stream.shape[1] for stream in tokens.streams]
    each = zip(tokens.codebook_sizes, tokens.frame_rates, frames, strict=True)
    return Header(
        codec,
        tokens.sample_rate,
        tokens.num_samples,
        tuple(Books(len(list(run)), *alike) for alike, run in groupby(each)),
        settings=dict(settings),
        needs=tuple(sorted(needs)),
        origin=origin,
        digest=digest,
        ragged=not isinstance(tokens.codes, Tensor),
        side=tuple(describe(name, value) for name, value in sorted(tokens.side.items())),
        side_bits=float(tokens.side_bits),
    )
