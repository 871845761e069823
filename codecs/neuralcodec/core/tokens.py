"""Tokens: the codes of a batch of clips, and what they cost in tokens and bits.

A codec at f frames/s with K codebooks of V entries costs f * K tokens/s and f * K * log2(V) bits/s.
Codebooks may differ in size and, in multi-scale codecs such as SNAC (arXiv:2410.14411), in frame
rate. Each codebook therefore has its own size and rate, and the totals are sums over codebooks.
"""

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from neuralcodec.core.clip_shape import (
    ClipShape,
    check_spans,
    common_rates,
    is_measured,
    join_padded,
    mean_side_bits,
    stack_shapes,
)


def nominal_rates(
    frame_rates: Sequence[float], codebook_sizes: Sequence[int]
) -> tuple[float, float]:
    """Return tokens/s and kbit/s of codebooks with these frame rates (Hz) and sizes (entries).

    A token counts log2(V) bits, as in the literature, also if V is not a power of two.

    >>> nominal_rates([50.0] * 4, [1024] * 4)
    (200.0, 2.0)
    """
    bits = (rate * math.log2(size) for rate, size in zip(frame_rates, codebook_sizes, strict=True))
    return math.fsum(frame_rates), math.fsum(bits) / 1000


def _check_type(codes: Any) -> None:
    """Raise ValueError unless codes are a tensor `[B, K, T]` or a tuple of tensors."""
    if isinstance(codes, Tensor):
        if codes.ndim != 3:
            raise ValueError(f"codes must be [B, K, T], got shape {tuple(codes.shape)}")
        return
    found = codes
    if isinstance(codes, tuple):
        found = next((stream for stream in codes if not isinstance(stream, Tensor)), None)
        if found is None:
            return
    raise ValueError(
        f"codes must be a tensor [B, K, T] or a tuple of tensors [B, T_k], got "
        f"{'a tuple with ' if isinstance(codes, tuple) else ''}{type(found).__name__}: "
        f"torch.from_numpy makes a tensor of a NumPy array, torch.tensor of a list"
    )


def _check_codebooks(
    streams: Sequence[Tensor], rates: Sequence[float], sizes: Sequence[int]
) -> None:
    """Raise ValueError unless counts, types and shapes of the codebooks fit together."""
    if not len(streams) == len(rates) == len(sizes):
        raise ValueError(
            f"{len(streams)} codebooks of codes, {len(rates)} frame rates and "
            f"{len(sizes)} codebook sizes: the three numbers must be equal"
        )
    if not streams:
        raise ValueError("tokens need at least one codebook, got none")
    for k, (stream, rate, size) in enumerate(zip(streams, rates, sizes, strict=True)):
        if stream.ndim != 2 or stream.dtype != torch.int64:
            raise ValueError(
                f"codes of codebook {k} must be int64 [B, T], "
                f"got {stream.dtype} {list(stream.shape)}"
            )
        if not (rate > 0 and math.isfinite(rate)) or size < 1:
            raise ValueError(f"codebook {k} has frame rate {rate} Hz and {size} entries")
    if len({stream.shape[0] for stream in streams}) > 1:
        raise ValueError(f"batch sizes differ: {[stream.shape[0] for stream in streams]}")


def _check_values(codes: Tensor | tuple[Tensor, ...], sizes: Sequence[int]) -> None:
    """Raise ValueError unless all codes lie in 0..V-1. Waits for the device once."""
    if isinstance(codes, Tensor):
        if not codes.numel() or codes.is_meta:
            return
        bounds = torch.stack([codes.amin((0, 2)), codes.amax((0, 2))], dim=1)
        books: Sequence[int] = range(len(sizes))
    else:
        books = [k for k, stream in enumerate(codes) if stream.numel() and not stream.is_meta]
        if not books:
            return
        bounds = torch.stack([torch.stack(codes[k].aminmax()) for k in books])
    for k, (low, high) in zip(books, bounds.tolist(), strict=True):
        if not 0 <= low <= high < sizes[k]:
            raise ValueError(
                f"codes of codebook {k} must lie in 0..{sizes[k] - 1}, got {low}..{high}"
            )


def _check_side(side: Mapping[str, Tensor], batch_size: int, *, always: bool = False) -> None:
    """Raise ValueError unless each side has one row per clip.

    One clip may have sides of any shape, as files of earlier versions do, unless `always`.
    """
    for name, value in side.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"side {name!r} must be a tensor, got {type(value).__name__}")
        if (batch_size > 1 or always) and value.shape[:1] != (batch_size,):
            raise ValueError(
                f"side {name!r} has shape {list(value.shape)}: "
                f"its first axis must be the batch, {batch_size}"
            )


def _axes(value: Tensor | None) -> str:
    """Return the type and the axes of a side that all clips of a batch must share."""
    if value is None:
        return "none"
    middle = "".join(f"{size}, " for size in value.shape[1:-1])
    return f"{value.dtype} [B]" if value.ndim == 1 else f"{value.dtype} [B, {middle}n]"


def _full_shape(tokens: "Tokens") -> ClipShape:
    """Return the shape of a clip that fills the arrays of its batch."""
    sides = sorted(tokens.side.items())
    return ClipShape(
        tokens.num_samples,
        frames=tuple(stream.shape[1] for stream in tokens.streams),
        frame_rates=tokens.frame_rates,
        side_bits=tokens.side_bits,
        side_sizes=tuple((name, value.shape[-1]) for name, value in sides if value.ndim > 1),
    )


def _check_clips(tokens: "Tokens", clips: Sequence[ClipShape]) -> None:
    """Raise ValueError unless the shapes of the clips are those of the arrays and the totals."""
    if len(clips) != tokens.batch_size:
        raise ValueError(f"{len(clips)} clips in a batch of {tokens.batch_size}")
    full = _full_shape(tokens)
    for index, clip in enumerate(clips):
        names = [name for name, _ in clip.side_sizes]
        if len(clip.frames) != len(full.frames) or names != [name for name, _ in full.side_sizes]:
            raise ValueError(
                f"clip {index} has {len(clip.frames)} codebooks and sizes of {names}, the arrays "
                f"{len(full.frames)} and {[name for name, _ in full.side_sizes]}"
            )
    longest = tuple(max(each) for each in zip(*(clip.frames for clip in clips), strict=True))
    if longest != full.frames:
        raise ValueError(f"the longest clips have {longest} frames, the arrays {full.frames}")
    if max(clip.num_samples for clip in clips) != full.num_samples:
        raise ValueError(
            f"clips have {[clip.num_samples for clip in clips]} samples, "
            f"but num_samples, that of the longest, is {full.num_samples}"
        )
    sizes = tuple(max(each) for each in zip(*(clip.side_sizes for clip in clips), strict=True))
    if sizes != full.side_sizes:
        raise ValueError(f"the longest sides have {sizes} values, the arrays {full.side_sizes}")
    rates, bits = common_rates(clips), mean_side_bits(clips)
    pairs = zip((*rates, bits), (*full.frame_rates, full.side_bits), strict=True)
    if not all(math.isclose(ours, theirs, rel_tol=1e-9) for ours, theirs in pairs):
        raise ValueError(
            f"frame rates {full.frame_rates} Hz and {full.side_bits} side bits are not those of "
            f"the clips together, {rates} and {bits}"
        )


def _clip(tokens: "Tokens", index: int) -> "Tokens":
    """Return a clip of a batch as a batch of 1, unpadded: views of the arrays."""
    shape, row = tokens.clip_shapes[index], slice(index, index + 1)
    codes: Tensor | tuple[Tensor, ...]
    if isinstance(tokens.codes, Tensor) and len(set(shape.frames)) == 1:
        codes = tokens.codes[row, :, : shape.frames[0]]
    else:
        pairs = zip(tokens.streams, shape.frames, strict=True)
        codes = tuple(stream[row, :frames] for stream, frames in pairs)
    sizes = dict(shape.side_sizes)
    return replace(
        tokens,
        codes=codes,
        frame_rates=shape.frame_rates,
        num_samples=shape.num_samples,
        side={name: value[row][..., : sizes.get(name)] for name, value in tokens.side.items()},
        side_bits=shape.side_bits,
        clips=None,
    )


def _numbers(tokens: "Tokens") -> tuple[Any, ...]:
    """Return all numbers of tokens and the shapes of their arrays, without reading a code."""
    sides = sorted(tokens.side.items())
    return (
        *(tokens.sample_rate, tokens.num_samples, tokens.side_bits, tokens.clips),
        *(tokens.frame_rates, tokens.codebook_sizes),
        tuple(stream.shape for stream in tokens.streams),
        tuple((name, value.dtype, value.shape) for name, value in sides),
    )


def _valid(tokens: "Tokens") -> Iterator[Tensor]:
    """Yield the codes of each codebook and the sides by name, clip by clip, without padding."""
    clips = [tokens] if tokens.clips is None else [_clip(tokens, i) for i in range(len(tokens))]
    for clip in clips:
        yield from clip.streams
        yield from (value for _, value in sorted(clip.side.items()))


def _same_values(ours: Tensor, theirs: Tensor) -> bool:
    """Compare two tensors of one shape on any device; NaN equals NaN.

    Tensors on the meta device have no values and equal each other alone.
    """
    if ours.is_meta or theirs.is_meta:
        return ours.is_meta and theirs.is_meta
    theirs = theirs.to(ours.device)
    if ours.is_floating_point():
        return bool(((ours == theirs) | (ours.isnan() & theirs.isnan())).all())
    return torch.equal(ours, theirs)


def _check_alike(what: str, parts: "Sequence[Tokens]") -> None:
    """Raise ValueError unless there are parts, of one sample rate, codebook sizes and device."""
    if not parts:
        raise ValueError(f"{what} needs at least one Tokens, got none")
    first = parts[0]
    for index, part in enumerate(parts[1:], start=1):
        ours = (first.sample_rate, first.codebook_sizes, first.device)
        theirs = (part.sample_rate, part.codebook_sizes, part.device)
        if ours != theirs:
            raise ValueError(
                f"{what} takes tokens of one codec on one device: part 0 has {ours[0]} Hz, "
                f"codebook sizes {ours[1]} on {ours[2]}, part {index} {theirs[0]} Hz, "
                f"{theirs[1]} on {theirs[2]}"
            )


def _check_batchable(parts: "Sequence[Tokens]") -> None:
    """Raise ValueError unless rates and sides of parts can stand in one batch."""
    first = parts[0]
    for index, part in enumerate(parts):
        _check_side(part.side, part.batch_size, always=True)
        for name in first.side.keys() | part.side.keys():
            ours, theirs = (_axes(tokens.side.get(name)) for tokens in (first, part))
            if ours != theirs:
                raise ValueError(
                    f"side {name!r} must be alike in all parts but for its first and last axis: "
                    f"part 0 has {ours}, part {index} {theirs}"
                )
    shapes = [(index, shape) for index, part in enumerate(parts) for shape in part.clip_shapes]
    if len({shape.frame_rates for _, shape in shapes}) == 1:
        return
    for index, shape in shapes:
        if not is_measured(shape, first.sample_rate):
            other = next(i for i, each in shapes if each.frame_rates != shape.frame_rates)
            raise ValueError(
                f"frame rates differ, and are not codes / duration as in codecs of variable "
                f"bitrate: {shape.frame_rates} Hz in part {index}, "
                f"{parts[other].frame_rates} Hz in part {other}"
            )


@dataclass(frozen=True, eq=False)
class Tokens:
    """The codes of a batch of clips, with all that is needed to count them.

    Rates are over the *padded* duration, frames / frame rate: a 10 ms clip costs a whole frame, and
    the rates of a codec don't depend on the clip. Indexing starts at 0 in every codebook.

    Clips of one batch may differ in length; `clips` then holds the shape of each, and the arrays
    are zero-padded to the longest. In such a batch `num_tokens`, `num_bits`, `side_bits` and
    `padded_duration` are means over the clips, each clip counted once. `tokens_per_second` and
    `bitrate_kbps` are therefore all tokens and all bits over all padded seconds, not means of the
    clips' rates. `num_samples` and `duration` are those of the longest clip.

    Attributes:
        codes: `[B, K, T]` int64 in 0..V-1, or a tuple of `[B, T_k]`, one per codebook, if the
            codebooks run at different frame rates.
        frame_rates: Hz, one per codebook. If the clips' own rates differ (variable bitrate), all
            codes / all seconds of the codebook.
        codebook_sizes: entries, one per codebook.
        sample_rate: of the audio, Hz.
        num_samples: length of the audio before padding; decoding restores it.
        side: whatever else a decoder needs (scales, packet sizes), by name: `[B, ..., n]`
            zero-padded along the last axis, or `[B]`. With one clip other shapes are allowed.
        side_bits: cost of `side` per clip, in bits; 0 if the literature does not count it.
        clips: shape of each clip; None if all clips are alike and fill the arrays.

    Raises:
        ValueError: if shapes, counts, rates or code values don't fit together.

    >>> tokens = Tokens.uniform(torch.zeros(1, 4, 100, dtype=torch.long), frame_rate=50,
    ...                         codebook_size=1024, sample_rate=16000, num_samples=32000)
    >>> tokens.tokens_per_second, tokens.bitrate_kbps, tokens.duration
    (200.0, 2.0, 2.0)
    >>> tokens.prefix(1).bitrate_kbps
    0.5
    """

    codes: Tensor | tuple[Tensor, ...]
    frame_rates: tuple[float, ...]
    codebook_sizes: tuple[int, ...]
    sample_rate: int
    num_samples: int
    side: Mapping[str, Tensor] = field(default_factory=dict)
    side_bits: float = 0.0
    clips: tuple[ClipShape, ...] | None = None

    @classmethod
    def uniform(
        cls,
        codes: Tensor,
        *,
        frame_rate: float,
        codebook_size: int,
        sample_rate: int,
        num_samples: int,
    ) -> "Tokens":
        """Return tokens whose codebooks all share one frame rate (Hz) and one size.

        Args:
            codes: `[B, K, T]` int64.
            frame_rate: Hz.
            codebook_size: entries of each codebook.
            sample_rate: of the audio, Hz.
            num_samples: length of the audio before padding.
        """
        _check_type(codes)
        num_codebooks = codes.shape[1]
        return cls(
            codes,
            frame_rates=(float(frame_rate),) * num_codebooks,
            codebook_sizes=(codebook_size,) * num_codebooks,
            sample_rate=sample_rate,
            num_samples=num_samples,
        )

    @staticmethod
    def batch(parts: "Sequence[Tokens]") -> "Tokens":
        """Join clips of one codec into one batch, zero-padded to the longest.

        `Tokens.batch([a, b])[0] == a` for parts of one clip each; a part may itself be a batch.

        Raises:
            ValueError: if there is no part, or the parts differ in sample rate, codebooks, device
                or names and axes of `side`, or in frame rates that are not codes / duration.
        """
        parts = [*parts]
        _check_alike("batch", parts)
        if len(parts) == 1:
            return parts[0]
        _check_batchable(parts)
        codes: Tensor | tuple[Tensor, ...]
        if all(isinstance(part.codes, Tensor) for part in parts):
            codes = join_padded([part.codes for part in parts if isinstance(part.codes, Tensor)])
        else:
            streams = zip(*(part.streams for part in parts), strict=True)
            codes = tuple(join_padded(each) for each in streams)
        shapes = tuple(shape for part in parts for shape in part.clip_shapes)
        return replace(
            parts[0],
            codes=codes,
            frame_rates=common_rates(shapes),
            num_samples=max(shape.num_samples for shape in shapes),
            side={name: join_padded([part.side[name] for part in parts]) for name in parts[0].side},
            side_bits=mean_side_bits(shapes),
            clips=shapes,
        )

    def __post_init__(self) -> None:
        _check_type(self.codes)
        for name in ("frame_rates", "codebook_sizes"):  # a list could not be hashed
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.sample_rate <= 0 or self.num_samples < 0:
            raise ValueError(
                f"sample_rate must be positive and num_samples not negative, "
                f"got {self.sample_rate} and {self.num_samples}"
            )
        if not 0 <= self.side_bits < math.inf:
            raise ValueError(f"side_bits must be finite and not negative, got {self.side_bits}")
        _check_codebooks(self.streams, self.frame_rates, self.codebook_sizes)
        _check_values(self.codes, self.codebook_sizes)
        _check_side(self.side, self.batch_size)
        if self.clips is not None:
            _check_clips(self, self.clips)
            alike = len(set(self.clips)) == 1
            object.__setattr__(self, "clips", None if alike else tuple(self.clips))
        check_spans(self.clip_shapes)

    def __eq__(self, other: object) -> bool:
        """Compare values: codes and sides on any device, and all numbers; padding is left out."""
        if not isinstance(other, Tokens):
            return NotImplemented
        if self is other:
            return True
        if _numbers(self) != _numbers(other):
            return False
        return all(map(_same_values, _valid(self), _valid(other)))

    def __hash__(self) -> int:
        return hash(_numbers(self))

    def __len__(self) -> int:
        return self.batch_size

    def __iter__(self) -> "Iterator[Tokens]":
        return (self[index] for index in range(self.batch_size))

    def __getitem__(self, index: int | slice) -> "Tokens":
        """Return one clip as a batch of 1, or the clips of a slice; what was padded is cut off.

        Raises:
            IndexError: if there is no such clip.
            ValueError: if a slice selects no clip.
        """
        if isinstance(index, slice):
            chosen = range(self.batch_size)[index]
            if not chosen:
                raise ValueError(f"{index} selects none of {self.batch_size} clips")
            if chosen == range(self.batch_size):
                return self
            return Tokens.batch([self[each] for each in chosen])
        place = operator.index(index)
        if not -self.batch_size <= place < self.batch_size:
            raise IndexError(f"clip {place} of a batch of {self.batch_size}")
        return self if self.batch_size == 1 else _clip(self, place % self.batch_size)

    @property
    def streams(self) -> tuple[Tensor, ...]:
        """The codes of each codebook: K tensors `[B, T_k]`."""
        return self.codes.unbind(1) if isinstance(self.codes, Tensor) else self.codes

    @property
    def num_codebooks(self) -> int:
        """K."""
        return len(self.codebook_sizes)

    @property
    def batch_size(self) -> int:
        """B."""
        return self.streams[0].shape[0]

    @property
    def device(self) -> torch.device:
        """Where the codes are."""
        return self.streams[0].device

    @property
    def clip_shapes(self) -> tuple[ClipShape, ...]:
        """The shape of each clip, also if all are alike: B of them."""
        if self.clips is not None:
            return self.clips
        return (_full_shape(self),) * self.batch_size

    @property
    def lengths(self) -> tuple[int, ...]:
        """Samples of each clip before padding."""
        return tuple(shape.num_samples for shape in self.clip_shapes)

    @property
    def duration(self) -> float:
        """Length of the audio in seconds, without padding; of the longest clip."""
        return self.num_samples / self.sample_rate

    @property
    def padded_duration(self) -> float:
        """Seconds that the frames of one clip span; at least `duration` for codecs that pad."""
        return self._mean([shape.padded_duration for shape in self._counted])

    @property
    def num_tokens(self) -> float:
        """Codes of one clip: the sum of T_k. Whole if all clips are alike."""
        return self._mean([shape.num_tokens for shape in self._counted])

    @property
    def num_bits(self) -> float:
        """Bits of one clip: the sum of T_k * log2(V_k), and `side_bits`."""
        return self._mean([shape.num_bits(self.codebook_sizes) for shape in self._counted])

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of padded audio: the sum of the frame rates."""
        return nominal_rates(self.frame_rates, self.codebook_sizes)[0]

    @property
    def bitrate_kbps(self) -> float:
        """Kilobits per second of padded audio, `side_bits` included.

        Infinite if there are side bits and no frame.
        """
        seconds, side = self.padded_duration, 0.0
        if self.side_bits:
            side = self.side_bits / seconds / 1000 if seconds else math.inf
        return nominal_rates(self.frame_rates, self.codebook_sizes)[1] + side

    @property
    def _counted(self) -> tuple[ClipShape, ...]:
        """The shapes that means are taken over: one if all clips are alike."""
        return self.clips or (_full_shape(self),)

    @staticmethod
    def _mean(values: Sequence[float]) -> float:
        return values[0] if len(values) == 1 else math.fsum(values) / len(values)

    def prefix(self, num_codebooks: int) -> "Tokens":
        """Keep the first `num_codebooks` codebooks, 1..K: a coarser coding if codes are nested.

        Raises:
            ValueError: if `num_codebooks` is outside 1..K.
        """
        if not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(f"num_codebooks must be 1..{self.num_codebooks}, got {num_codebooks}")
        return replace(
            self,
            codes=self.codes[:, :num_codebooks]
            if isinstance(self.codes, Tensor)
            else self.codes[:num_codebooks],
            frame_rates=self.frame_rates[:num_codebooks],
            codebook_sizes=self.codebook_sizes[:num_codebooks],
            clips=self.clips and tuple(shape.prefix(num_codebooks) for shape in self.clips),
        )

    def unpad(self, wav: Tensor) -> list[Tensor]:
        """Cut decoded audio to the length of each clip.

        Args:
            wav: `[B, C, T]`, T at least `num_samples`.

        Returns:
            B tensors `[C, lengths[i]]`, views of `wav`.

        Raises:
            ValueError: if `wav` has another number of axes or clips, or is too short.
        """
        if wav.ndim != 3 or len(wav) != self.batch_size or wav.shape[-1] < self.num_samples:
            raise ValueError(
                f"wav must be [{self.batch_size}, C, T] with T at least {self.num_samples}, "
                f"got {list(wav.shape)}"
            )
        return [clip[..., :length] for clip, length in zip(wav, self.lengths, strict=True)]


def stack(*parts: Tokens) -> Tokens:
    """Put the codebooks of several tokenizations of the same audio on top of each other.

    An example is semantic tokens over acoustic ones. The result has the codebooks of all parts in
    the order given, each at its own frame rate, and the sum of their costs.

    Raises:
        ValueError: if there is no part, or the parts differ in batch size, or a clip in duration
            by more than a sample at the lowest sample rate, or two parts have a side of one name.

    >>> acoustic = Tokens.uniform(torch.zeros(1, 8, 75, dtype=torch.long), frame_rate=75,
    ...                           codebook_size=1024, sample_rate=24000, num_samples=24000)
    >>> semantic = Tokens.uniform(torch.zeros(1, 1, 25, dtype=torch.long), frame_rate=25,
    ...                           codebook_size=500, sample_rate=16000, num_samples=16000)
    >>> stack(semantic, acoustic).tokens_per_second
    625.0
    """
    if not parts:
        raise ValueError("stack needs at least one Tokens, got none")
    if len({part.batch_size for part in parts}) > 1:
        raise ValueError(f"batch sizes differ: {[part.batch_size for part in parts]}")
    lowest = min(part.sample_rate for part in parts)
    for lengths in zip(*(part.lengths for part in parts), strict=True):
        durations = [n / part.sample_rate for n, part in zip(lengths, parts, strict=True)]
        # Resampling rounds a length up to whole samples: the same audio may differ by almost one.
        if max(durations) - min(durations) > 1 / lowest:
            raise ValueError(f"parts last {durations} s: they must be equal to a sample")
    side = {name: value for part in parts for name, value in part.side.items()}
    if len(side) < sum(len(part.side) for part in parts):
        raise ValueError(f"the same name stands in the side of two parts: {sorted(side)}")
    finest = max(parts, key=lambda part: part.sample_rate)
    streams = tuple(stream for part in parts for stream in part.streams)
    rates = tuple(rate for part in parts for rate in part.frame_rates)
    same = len({stream.shape for stream in streams}) == 1 and len(set(rates)) == 1
    clips = None
    if any(part.clips for part in parts):
        shapes = zip(finest.lengths, *(part.clip_shapes for part in parts), strict=True)
        clips = tuple(stack_shapes(length, each) for length, *each in shapes)
    return Tokens(
        torch.stack(streams, dim=1) if same else streams,
        frame_rates=rates,
        codebook_sizes=tuple(size for part in parts for size in part.codebook_sizes),
        sample_rate=finest.sample_rate,
        num_samples=finest.num_samples,
        side=side,
        side_bits=math.fsum(part.side_bits for part in parts),
        clips=clips,
    )
