"""The header of a file: what the file states about itself, checked before it is believed."""

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import groupby
from typing import BinaryIO

from neuralcodec.bitstream import settings as rules
from neuralcodec.bitstream.fields import (
    BitstreamError,
    Ended,
    Fields,
    check_range,
    float64,
    take,
    text,
    varint,
)
from neuralcodec.bitstream.packing import MAX_CODEBOOKS, MAX_COUNT, Books, SideField, describe
from neuralcodec.bitstream.settings import Setting
from neuralcodec.core.rates import nominal_rates
from neuralcodec.core.tokens import Tokens

MAGIC = b"\x8fNCT"
"""First bytes of a file. No text begins with 8f, in ASCII or UTF-8."""

VERSION = 2
"""Version that is written; version 1, of one clip per file, is read too."""

BLOCK_BITS = 8 * 16384
"""Bits of codes per block, about; each block has a checksum of its own."""

CHECKSUM = 4
"""Bytes of a checksum."""

_PREFIX = len(MAGIC) + 1 + 2  # bytes of magic, version and length of the fields
_LONGEST = 2**16 - 1  # bytes of the fields
_RAGGED, _ORIGIN, _DIGEST, _SIDE, _CLIPS = 1, 2, 4, 8, 16  # flags: which fields there are
_LENGTHS = ("sample rate", "channels", "samples")  # of the original
_FLAGS = {1: 15, VERSION: 31}  # known in each version

# Codebooks of one entry and constant sides take no bits: the length of a file does not bound them.
_FREE_NUMBERS = 2**20  # more of those than of numbers that take bits
_SPARE_SECONDS = 1  # of audio after the last frame, which a codec may drop

_SAMPLE_RATE = 1_000_000  # Hz
_CHANNELS = 1024
_SIDES = 64
_DIGITS = re.compile("([0-9a-f]{16})?", re.ASCII)
_CODEC_BYTES = 128
_PART = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
_CODEC = re.compile(rf"([A-Za-z0-9][A-Za-z0-9._-]*|{_PART}:{_PART})(\+rvq)?", re.ASCII)


@dataclass(frozen=True)
class Origin:
    """The audio before it was mixed and resampled for the codec.

    Attributes:
        sample_rate: Hz.
        channels: 1..1024.
        num_samples: per channel.

    Raises:
        BitstreamError: if one of them is out of range.
    """

    sample_rate: int
    channels: int
    num_samples: int

    def __post_init__(self) -> None:
        check_range("the original sample rate", self.sample_rate, 1, _SAMPLE_RATE)
        check_range("the original channels", self.channels, 1, _CHANNELS)
        check_range("the original samples", self.num_samples, 0, MAX_COUNT)


@dataclass(frozen=True)
class Layout:
    """How the tokens of one clip lie in a file.

    Attributes:
        books: the codebooks, in runs of equal ones.
        side: the tensors of `Tokens.side`.
        side_bits: of `Tokens`, finite and not negative.

    Raises:
        BitstreamError: if they contradict each other.
    """

    books: tuple[Books, ...]
    side: tuple[SideField, ...] = ()
    side_bits: float = 0.0

    def __post_init__(self) -> None:
        check_range("the number of sides", len(self.side), 0, _SIDES)
        if not 0 <= self.side_bits < math.inf:
            raise BitstreamError(f"the side bits must not be negative, got {self.side_bits}")
        if len({each.name for each in self.side}) < len(self.side):
            raise BitstreamError(f"a side is given twice: {[each.name for each in self.side]}")
        spans = [books.seconds for books in self.books]
        # the same expression as that of `Tokens`, so that both judge alike
        if max(spans) - min(spans) > 1 / min(self.frame_rates) + 1e-9:
            raise BitstreamError(f"codebooks span different times, in seconds: {spans[:8]}")

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Entries, one per codebook."""
        return tuple(books.size for books in self.books for _ in range(books.count))

    @property
    def frame_rates(self) -> tuple[float, ...]:
        """Hz, one per codebook."""
        return tuple(books.frame_rate for books in self.books for _ in range(books.count))

    @property
    def bitrate_kbps(self) -> float:
        """Kilobits per second of padded audio, as `Tokens.bitrate_kbps`."""
        span = max(books.seconds for books in self.books)
        rate = nominal_rates(self.frame_rates, self.codebook_sizes)[1]
        if not self.side_bits:
            return rate
        return rate + (self.side_bits / span / 1000 if span else math.inf)

    def longest(self, sample_rate: int) -> Fraction:
        """Return how many samples the audio may have: a second and a sample more than its frames.

        It is exact, and the sample is more than any rounding of lengths.
        """
        span = max(Fraction(books.frames) / Fraction(books.frame_rate) for books in self.books)
        return (span + _SPARE_SECONDS) * sample_rate + 1


def layout_of(tokens: Tokens) -> Layout:
    """Return the layout of tokens of one clip."""
    frames = [stream.shape[1] for stream in tokens.streams]
    each = zip(tokens.codebook_sizes, tokens.frame_rates, frames, strict=True)
    return Layout(
        tuple(Books(len(list(run)), *alike) for alike, run in groupby(each)),
        tuple(describe(name, value) for name, value in sorted(tokens.side.items())),
        float(tokens.side_bits),
    )


@dataclass(frozen=True)
class Header:
    """What a file states about the tokens in it.

    Attributes:
        codec: name for `neuralcodec.load`: registered or `module:Class`, either with "+rvq" or
            without, at most 128 characters.
        sample_rate: of the tokens' audio, Hz.
        num_samples: of it.
        clips: layouts of the clips: one, or one per channel where each was coded on its own.
        settings: of the codec.
        needs: names of settings that the codec had and the file does not hold.
        origin: the audio before it was made fit for the codec; None if unknown.
        digest: first 16 hex digits of `Codec.digest`, "" if unknown. In files of version 1: of
            the codebooks alone.
        ragged: whether `Tokens.codes` is a tuple of one tensor per codebook.
        version: of the format that the file has.

    Raises:
        BitstreamError: if one is out of range, or they contradict each other.
    """

    codec: str
    sample_rate: int
    num_samples: int
    clips: tuple[Layout, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    origin: Origin | None = None
    digest: str = ""
    ragged: bool = False
    version: int = VERSION

    def __post_init__(self) -> None:
        if len(self.codec) > _CODEC_BYTES or not _CODEC.fullmatch(self.codec):
            raise BitstreamError(
                f"the name of a codec must be letters, digits, '.', '_' and '-' or module:Class, "
                f"at most {_CODEC_BYTES} characters, got {self.codec[:80]!r}"
            )
        if not _DIGITS.fullmatch(self.digest):
            raise BitstreamError(f"the digest must be 16 hex digits or empty: {self.digest!r}")
        rules.check(self.settings, self.needs)
        check_range("the sample rate", self.sample_rate, 1, _SAMPLE_RATE)
        check_range("the samples", self.num_samples, 0, MAX_COUNT)
        check_range("the number of clips", len(self.clips), 1, _CHANNELS)
        check_range("the number of codebooks", self.num_codebooks, 1, MAX_CODEBOOKS)
        self._check_clips()
        self._check_origin()
        self._check_free()

    def _check_clips(self) -> None:
        if len({clip.codebook_sizes for clip in self.clips}) > 1:
            raise BitstreamError("the channels have different codebooks")
        for clip in self.clips:
            frames = [books.frames for books in clip.books]
            if not self.ragged and len({*frames}) > 1:
                raise BitstreamError(f"codes in one tensor have frames {frames[:8]}")
            if self.num_samples > clip.longest(self.sample_rate):
                seconds = max(books.seconds for books in clip.books)
                raise BitstreamError(
                    f"{self.num_samples} samples at {self.sample_rate} Hz last "
                    f"{self.duration:.6g} s, the frames {seconds:.6g} s"
                )

    def _check_origin(self) -> None:
        origin = self.origin
        if origin is None:
            return
        # Resampling rounds a length up: it is off by less than a sample of the lower rate.
        off = origin.num_samples * self.sample_rate - self.num_samples * origin.sample_rate
        if abs(off) > origin.sample_rate:
            raise BitstreamError(
                f"{origin.num_samples} samples at {origin.sample_rate} Hz are not as long as "
                f"{self.num_samples} at {self.sample_rate} Hz"
            )
        if len(self.clips) not in (1, origin.channels):
            raise BitstreamError(f"{origin.channels} channels are coded as {len(self.clips)}")

    def _check_free(self) -> None:
        counts = [(books.count * books.frames, books.width) for books in self.books]
        counts += [(each.count, each.width) for each in self.side]
        free = sum(count for count, width in counts if not width)
        paid = sum(count for count, width in counts if width)
        if free > paid + _FREE_NUMBERS:
            raise BitstreamError(
                f"{free} numbers that take no bits and {paid} that do: at most {_FREE_NUMBERS} "
                f"more are allowed"
            )

    @cached_property
    def books(self) -> tuple[Books, ...]:
        """Runs of codebooks of all clips, in the order of the file."""
        return tuple(books for clip in self.clips for books in clip.books)

    @property
    def side(self) -> tuple[SideField, ...]:
        """Side tensors of all clips, in the order of the file."""
        return tuple(each for clip in self.clips for each in clip.side)

    @property
    def num_codebooks(self) -> int:
        """Codebooks of all clips together."""
        return sum(books.count for books in self.books)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Entries, one per codebook of all clips."""
        return tuple(size for clip in self.clips for size in clip.codebook_sizes)

    @property
    def frame_rates(self) -> tuple[float, ...]:
        """Hz, one per codebook of all clips."""
        return tuple(rate for clip in self.clips for rate in clip.frame_rates)

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return self.num_samples / self.sample_rate

    @property
    def bitrate_kbps(self) -> float:
        """Kilobits per second of padded audio, all clips together."""
        return math.fsum(clip.bitrate_kbps for clip in self.clips)

    @cached_property
    def code_bits(self) -> int:
        """Bits of all codes."""
        return sum(books.count * books.frames * books.width for books in self.books)

    @cached_property
    def num_blocks(self) -> int:
        """Blocks of codes, at least 1."""
        return max(1, -(-self.code_bits // BLOCK_BITS))

    def block_bytes(self, block: int) -> int:
        """Return the bytes of the codes in a block: their bits, rounded up to a whole byte."""
        cuts = ((books, len(books.cut(block, self.num_blocks))) for books in self.books)
        return -(-sum(books.count * frames * books.width for books, frames in cuts) // 8)

    @property
    def side_bytes(self) -> int:
        """Bytes of all side tensors."""
        return sum(each.num_bytes for each in self.side)


def _write_clip(clip: Layout, has_side: bool) -> bytes:
    parts = [varint(len(clip.books)), *(books.write() for books in clip.books)]
    if has_side:
        parts += [varint(len(clip.side)), float64(clip.side_bits)]
        parts += [each.write() for each in clip.side]
    return b"".join(parts)


def _read_clip(fields: Fields, has_side: bool) -> Layout:
    runs = fields.varint("the runs of codebooks", 1, MAX_CODEBOOKS)
    books = tuple(Books.read(fields) for _ in range(runs))
    if not has_side:
        return Layout(books)
    sides = fields.varint("the number of sides", 0, _SIDES)
    side_bits = fields.float64("the side bits")
    return Layout(books, tuple(SideField.read(fields) for _ in range(sides)), side_bits)


def _write_fields(header: Header) -> bytes:
    origin, clips = header.origin, header.clips
    has_side = any(clip.side or clip.side_bits for clip in clips)
    flags = _RAGGED * header.ragged | _ORIGIN * (origin is not None) | _SIDE * has_side
    flags |= _DIGEST * bool(header.digest) | _CLIPS * (len(clips) > 1)
    lengths = (origin.sample_rate, origin.channels, origin.num_samples) if origin else ()
    return b"".join(
        [
            bytes([flags]),
            text(header.codec),
            text(rules.to_json(header.settings, header.needs)),
            varint(header.sample_rate),
            varint(header.num_samples),
            *map(varint, lengths),
            bytes.fromhex(header.digest),
            varint(len(clips)) if len(clips) > 1 else b"",
            *(_write_clip(clip, has_side) for clip in clips),
        ]
    )


def _read_fields(data: bytes, version: int) -> Header:
    fields = Fields(data)
    flags = fields.take(1, "the flags")[0]
    if flags & ~_FLAGS[version]:
        raise BitstreamError(f"the header has flags unknown in version {version}: {flags:#04x}")
    codec = fields.text("the name of the codec", _CODEC_BYTES)
    settings, needs = rules.from_json(fields.text("the settings", rules.LIMIT))
    sample_rate = fields.varint("the sample rate")
    num_samples = fields.varint("the samples")
    lengths = [fields.varint(f"the original {each}") for each in _LENGTHS if flags & _ORIGIN]
    digest = fields.take(8, "the digest").hex() if flags & _DIGEST else ""
    count = fields.varint("the number of clips", 2, _CHANNELS) if flags & _CLIPS else 1
    clips = tuple(_read_clip(fields, bool(flags & _SIDE)) for _ in range(count))
    fields.finish()
    return Header(
        codec,
        sample_rate,
        num_samples,
        clips,
        settings=settings,
        needs=needs,
        origin=Origin(*lengths) if lengths else None,
        digest=digest,
        ragged=bool(flags & _RAGGED),
        version=version,
    )


def write_header(header: Header) -> bytes:
    """Return the bytes of a header, from the magic number to its checksum.

    Raises:
        BitstreamError: if it is too long.
    """
    fields = _write_fields(header)
    check_range("the bytes of the header", len(fields), 0, _LONGEST)
    found = MAGIC + bytes([header.version]) + len(fields).to_bytes(2, "little") + fields
    return found + zlib.crc32(found).to_bytes(CHECKSUM, "little")


def read_header(stream: BinaryIO) -> tuple[Header, int, int]:
    """Read a header, and nothing after it.

    Returns:
        The header, its length in bytes and its checksum.

    Raises:
        BitstreamError: if it is of another format or version, damaged, or states what cannot be.
    """
    prefix = stream.read(_PREFIX)
    if not prefix.startswith(MAGIC):
        raise BitstreamError(
            f"it is not a file of tokens: it begins with {prefix[:4]!r}; "
            "`neuralcodec encode` makes one from audio"
        )
    if len(prefix) < _PREFIX:
        raise Ended("the file ends within the header")
    version = prefix[len(MAGIC)]
    if version not in _FLAGS:
        raise BitstreamError(f"it has format version {version}, this program reads 1..{VERSION}")
    length = int.from_bytes(prefix[-2:], "little")
    fields = take(stream, length, "the header")
    checksum = take(stream, CHECKSUM, "the header")
    if zlib.crc32(prefix + fields).to_bytes(CHECKSUM, "little") != checksum:
        raise BitstreamError("the header fails its checksum: the file is beyond repair")
    length += _PREFIX + CHECKSUM
    return _read_fields(fields, version), length, int.from_bytes(checksum, "little")
