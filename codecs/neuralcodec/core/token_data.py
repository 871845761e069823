"""Fields of `Tokens`: their checks, what they cost in tokens and bits, and equality by value.

A codec at f frames/s with K codebooks of V entries costs f * K tokens/s and f * K * log2(V) bits/s.
Codebooks may differ in size and, in multi-scale codecs such as SNAC (arXiv:2410.14411), in frame
rate. Each codebook therefore has its own size and rate, and the totals are sums over codebooks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from neuralcodec.core.clip_shape import ClipShape, check_clips, check_spans
from neuralcodec.core.rates import nominal_rates


def check_type(codes: Any) -> None:
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
    if len({stream.device for stream in streams}) > 1:
        raise ValueError(f"devices differ: {[str(stream.device) for stream in streams]}")


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


def check_side(side: Mapping[str, Tensor], batch_size: int, *, always: bool = False) -> None:
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


def _same_values(ours: Tensor, theirs: Tensor) -> bool:
    """Compare two tensors of one shape on any device; NaN equals NaN.

    Tensors on the meta device have no values; they equal each other and nothing else.
    """
    if ours.is_meta or theirs.is_meta:
        return ours.is_meta and theirs.is_meta
    theirs = theirs.to(ours.device)
    if ours.is_floating_point():
        return bool(((ours == theirs) | (ours.isnan() & theirs.isnan())).all())
    return torch.equal(ours, theirs)


@dataclass(frozen=True, eq=False, repr=False)
class TokenData:
    """Fields and counts of `Tokens`, which describes them."""

    codes: Tensor | tuple[Tensor, ...]
    frame_rates: tuple[float, ...]
    codebook_sizes: tuple[int, ...]
    sample_rate: int
    num_samples: int
    side: Mapping[str, Tensor] = field(default_factory=dict)
    side_bits: float = 0.0
    clips: tuple[ClipShape, ...] | None = None

    def __post_init__(self) -> None:
        check_type(self.codes)
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
        check_side(self.side, self.batch_size)
        if self.clips is not None:
            self._check_clips(self.clips)
        check_spans(self._counted)

    def _check_clips(self, clips: Sequence[ClipShape]) -> None:
        if len(clips) != self.batch_size or not clips:
            raise ValueError(f"clips has {len(clips)} shapes for a batch of {self.batch_size}")
        check_clips(clips, self._full_shape)
        alike = len(set(clips)) == 1
        object.__setattr__(self, "clips", None if alike else tuple(clips))

    def __eq__(self, other: object) -> bool:
        """Compare values: codes and sides on any device, and all numbers; padding is left out."""
        if not isinstance(other, TokenData):
            return NotImplemented
        if self is other:
            return True
        if self._numbers != other._numbers:
            return False
        return all(map(_same_values, self._valid, other._valid))

    def __hash__(self) -> int:
        return hash(self._numbers)

    @property
    def streams(self) -> tuple[Tensor, ...]:
        """The codes of each codebook: K tensors `[B, T_k]`."""
        return self.codes.unbind(1) if isinstance(self.codes, Tensor) else self.codes

    @property
    def arrays(self) -> tuple[Tensor, ...]:
        """The codes as they are stored: one `[B, K, T]`, or K tensors `[B, T_k]`."""
        return (self.codes,) if isinstance(self.codes, Tensor) else self.codes

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
        return (self._full_shape,) * self.batch_size

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
        """Seconds that the frames of one clip span; at least its audio for codecs that pad.

        In a batch of different lengths, this and the counts below are means over the clips.
        """
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
        return self.clips or (self._full_shape,)

    @staticmethod
    def _mean(values: Sequence[float]) -> float:
        return values[0] if len(values) == 1 else math.fsum(values) / len(values)

    def with_codes(self, arrays: Sequence[Tensor], num_samples: int) -> Self:
        """Return tokens with other codes, in the form of `arrays`, for `num_samples` samples."""
        codes = arrays[0] if len(arrays) == 1 and arrays[0].ndim == 3 else tuple(arrays)
        return replace(self, codes=codes, num_samples=num_samples)

    @property
    def _full_shape(self) -> ClipShape:
        """The shape of a clip that fills the arrays."""
        sides = sorted(self.side.items())
        return ClipShape(
            self.num_samples,
            frames=tuple(stream.shape[1] for stream in self.streams),
            frame_rates=self.frame_rates,
            side_bits=self.side_bits,
            side_sizes=tuple((name, value.shape[-1]) for name, value in sides if value.ndim > 1),
        )

    @property
    def _numbers(self) -> tuple[Any, ...]:
        """All numbers and the shapes of the arrays, without a look at a code."""
        sides = sorted(self.side.items())
        return (
            *(self.sample_rate, self.num_samples, self.side_bits, self.clips),
            *(self.frame_rates, self.codebook_sizes),
            tuple(stream.shape for stream in self.streams),
            tuple((name, value.dtype, value.shape) for name, value in sides),
        )

    @property
    def _valid(self) -> Iterator[Tensor]:
        """The codes and the sides without their padding."""
        sides = [value for _, value in sorted(self.side.items())]
        if self.clips is None:
            yield from (*self.streams, *sides)
            return
        for index, shape in enumerate(self.clips):
            for stream, frames in zip(self.streams, shape.frames, strict=True):
                yield stream[index, :frames]
            sizes = dict(shape.side_sizes)
            for name, value in sorted(self.side.items()):
                yield value[index : index + 1][..., : sizes.get(name)]
