"""What tokens must fulfil, and the shape of one clip of a batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from neuralcodec.core.tokens import Tokens


@dataclass(frozen=True)
class ClipShape:
    """One clip of a batch, where clips differ.

    Attributes:
        num_samples: length of its audio.
        frames: codes, one number per codebook.
        frame_rates: Hz, one per codebook.
        side_bits: what its side costs, in bits.
        sides: size of the last axis of each side `[B, ..., n]`, by name.
    """

    num_samples: int
    frames: tuple[int, ...]
    frame_rates: tuple[float, ...]
    side_bits: float = 0.0
    sides: tuple[tuple[str, int], ...] = ()

    @property
    def seconds(self) -> float:
        """What the frames span."""
        return max(n / rate for n, rate in zip(self.frames, self.frame_rates, strict=True))

    def bits(self, codebook_sizes: Sequence[int]) -> float:
        """Return the bits of the clip, its side included."""
        pairs = zip(self.frames, codebook_sizes, strict=True)
        return math.fsum(n * math.log2(size) for n, size in pairs) + self.side_bits


def check_array(codes: object) -> None:
    """Raise ValueError unless `codes` is a tensor `[B, K, T]`."""
    if not isinstance(codes, Tensor):
        raise ValueError(
            f"codes must be a torch.Tensor [B, K, T], got {type(codes).__name__}; write "
            f"torch.from_numpy(codes) or torch.tensor(codes)"
        )
    if codes.ndim != 3:
        raise ValueError(f"codes must be [B, K, T], got shape {tuple(codes.shape)}")


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same type, shape and values, on whatever device."""
    if one.shape != other.shape or one.dtype != other.dtype or one.is_meta != other.is_meta:
        return False
    return one.is_meta or bool(torch.equal(one, other.to(one.device)))


def _check_streams(streams: Sequence[object]) -> None:
    checked = [stream for stream in streams if isinstance(stream, Tensor)]
    if len(checked) < len(streams):
        check_array(next(each for each in streams if not isinstance(each, Tensor)))
    for k, stream in enumerate(checked):
        if stream.ndim != 2 or stream.dtype != torch.int64:
            raise ValueError(
                f"codes of codebook {k} must be int64 [B, T], "
                f"got {stream.dtype} {list(stream.shape)}"
            )
    if len({stream.shape[0] for stream in checked}) > 1:
        raise ValueError(f"batch sizes differ: {[stream.shape[0] for stream in checked]}")


def _check_values(tokens: "Tokens") -> None:
    """Check all codes with one read from the device."""
    filled = [k for k, stream in enumerate(tokens.streams) if stream.numel()]
    if not filled or tokens.streams[0].is_meta:
        return
    if isinstance(tokens.codes, Tensor):
        ends = torch.stack(tokens.codes.movedim(1, 0).flatten(1).aminmax(dim=1), dim=1)
    else:
        ends = torch.stack([torch.stack(tokens.codes[k].aminmax()) for k in filled])
    for k, (low, high) in zip(filled, ends.tolist(), strict=True):
        size = tokens.codebook_sizes[k]
        if not 0 <= low <= high < size:
            raise ValueError(f"codes of codebook {k} must lie in 0..{size - 1}, got {low}..{high}")


def _check_spans(frames: Sequence[int], rates: Sequence[float]) -> None:
    spans = [count / rate for count, rate in zip(frames, rates, strict=True)]
    if max(spans) - min(spans) > 1 / min(rates) + 1e-9:
        raise ValueError(f"codebooks span different times, in seconds: {spans}")


def _check_clips(tokens: "Tokens", clips: tuple[ClipShape, ...]) -> None:
    """Check that the shapes of the clips are those of the arrays."""
    if len(clips) != tokens.batch_size:
        raise ValueError(f"{len(clips)} shapes for a batch of {tokens.batch_size} clips")
    longest = max(clip.num_samples for clip in clips)
    if longest != tokens.num_samples or min(clip.num_samples for clip in clips) < 0:
        lengths = [clip.num_samples for clip in clips]
        raise ValueError(f"clips of {lengths} samples, the longest of {tokens.num_samples}")
    for clip in clips:
        _check_spans(clip.frames, clip.frame_rates)
    for k, stream in enumerate(tokens.streams):
        counts = [clip.frames[k] for clip in clips]
        if max(counts) != stream.shape[1] or min(counts) < 0:
            raise ValueError(
                f"clips of {counts} frames in codebook {k}, its codes have {stream.shape[1]}"
            )


def check(tokens: "Tokens") -> None:
    """Raise ValueError unless shapes, counts, rates and code values fit together."""
    if not isinstance(tokens.codes, tuple):
        check_array(tokens.codes)
    streams = tokens.streams
    if not len(streams) == len(tokens.frame_rates) == len(tokens.codebook_sizes):
        raise ValueError(
            f"{len(streams)} codebooks of codes, {len(tokens.frame_rates)} frame rates and "
            f"{len(tokens.codebook_sizes)} codebook sizes: they must be equally many"
        )
    if not streams:
        raise ValueError("tokens need at least one codebook, got none")
    if tokens.sample_rate <= 0 or tokens.num_samples < 0:
        raise ValueError(
            f"sample_rate must be positive and num_samples not negative, "
            f"got {tokens.sample_rate} and {tokens.num_samples}"
        )
    if not 0 <= tokens.side_bits < math.inf:
        raise ValueError(f"side_bits must be finite and not negative, got {tokens.side_bits}")
    for k, pair in enumerate(zip(tokens.frame_rates, tokens.codebook_sizes, strict=True)):
        if not (pair[0] > 0 and math.isfinite(pair[0])) or pair[1] < 1:
            raise ValueError(f"codebook {k} has frame rate {pair[0]} Hz and {pair[1]} entries")
    _check_streams(streams)
    for name, side in tokens.side.items():
        if tokens.batch_size > 1 and (not side.ndim or side.shape[0] != tokens.batch_size):
            raise ValueError(
                f"side {name!r} must be [{tokens.batch_size}, ...], one row per clip, "
                f"got {list(side.shape)}"
            )
    _check_values(tokens)
    if tokens.clips is None:
        _check_spans([stream.shape[1] for stream in streams], tokens.frame_rates)
    else:
        _check_clips(tokens, tokens.clips)
