"""Shapes of the clips of a batch, and zero-padded batches of arrays of different lengths."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_MEASURED = 1e-6  # relative difference between a measured rate and codes / duration: rounding alone


@dataclass(frozen=True)
class ClipShape:
    """How much of a zero-padded batch belongs to one clip, and what that clip costs.

    Attributes:
        num_samples: length of the clip's audio, samples.
        frames: codes per codebook.
        frame_rates: Hz, one per codebook. They differ from clip to clip in codecs of variable
            bitrate, whose rate is codes / duration.
        side_bits: cost of the clip's side, bits.
        side_sizes: name and valid length of the last axis of each side of two or more axes, sorted
            by name.

    Raises:
        ValueError: if a count is negative, or the numbers of frames and frame rates differ.
    """

    num_samples: int
    frames: tuple[int, ...]
    frame_rates: tuple[float, ...]
    side_bits: float = 0.0
    side_sizes: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.frames or len(self.frames) != len(self.frame_rates):
            raise ValueError(
                f"a clip has frames {self.frames} and frame rates {self.frame_rates}: "
                f"there must be one of each per codebook, and at least one codebook"
            )
        if min(self.num_samples, *self.frames, *(size for _, size in self.side_sizes)) < 0:
            raise ValueError(f"a clip's counts must not be negative, got {self}")
        if not all(0 < rate < math.inf for rate in self.frame_rates):
            raise ValueError(
                f"a clip's frame rates must be positive and finite, got {self.frame_rates}"
            )
        if not 0 <= self.side_bits < math.inf:
            raise ValueError(f"side_bits must be finite and not negative, got {self.side_bits}")

    @property
    def spans(self) -> tuple[float, ...]:
        """Seconds that the frames of each codebook span."""
        return tuple(n / rate for n, rate in zip(self.frames, self.frame_rates, strict=True))

    @property
    def padded_duration(self) -> float:
        """Seconds that the frames span: the most of any codebook."""
        return max(self.spans)

    @property
    def num_tokens(self) -> int:
        """Number of codes, all codebooks together."""
        return sum(self.frames)

    def num_bits(self, codebook_sizes: Sequence[int]) -> float:
        """Return the bits of the codes, at log2(V) per code, and of the side."""
        pairs = zip(self.frames, codebook_sizes, strict=True)
        return math.fsum(n * math.log2(size) for n, size in pairs) + self.side_bits

    def prefix(self, num_codebooks: int) -> "ClipShape":
        """Return the shape of the first `num_codebooks` codebooks, the side included."""
        frames, rates = self.frames[:num_codebooks], self.frame_rates[:num_codebooks]
        return replace(self, frames=frames, frame_rates=rates)


def stack_shapes(num_samples: int, shapes: Sequence[ClipShape]) -> ClipShape:
    """Return the shape of a clip that has the codebooks and the sides of all `shapes`."""
    return ClipShape(
        num_samples,
        frames=tuple(frames for shape in shapes for frames in shape.frames),
        frame_rates=tuple(rate for shape in shapes for rate in shape.frame_rates),
        side_bits=math.fsum(shape.side_bits for shape in shapes),
        side_sizes=tuple(sorted(size for shape in shapes for size in shape.side_sizes)),
    )


def is_measured(shape: ClipShape, codebook: int, sample_rate: int) -> bool:
    """Return whether a frame rate is codes / duration, as in codecs of variable bitrate."""
    seconds = shape.num_samples / sample_rate
    found, count = shape.frame_rates[codebook] * seconds, shape.frames[codebook]
    return math.isclose(found, count, rel_tol=_MEASURED)


def common_rates(shapes: Sequence[ClipShape]) -> tuple[float, ...]:
    """Return the frame rates (Hz) of a batch, one per codebook.

    That is the clips' own rate if they share it, else all codes / all seconds of the codebook.
    """
    common = []
    for k, rate in enumerate(shapes[0].frame_rates):
        seconds = math.fsum(shape.spans[k] for shape in shapes)
        if seconds and any(shape.frame_rates[k] != rate for shape in shapes):
            rate = sum(shape.frames[k] for shape in shapes) / seconds
        common.append(rate)
    return tuple(common)


def mean_side_bits(shapes: Sequence[ClipShape]) -> float:
    """Return the mean over clips of what their sides cost, in bits."""
    if len({shape.side_bits for shape in shapes}) == 1:
        return shapes[0].side_bits
    return math.fsum(shape.side_bits for shape in shapes) / len(shapes)


def check_spans(shapes: Sequence[ClipShape]) -> None:
    """Raise ValueError if the codebooks of a clip span times that differ by more than a frame."""
    for shape in shapes:
        if max(shape.spans) - min(shape.spans) > 1 / min(shape.frame_rates) + 1e-9:
            raise ValueError(f"codebooks span different times, in seconds: {[*shape.spans]}")


def check_clips(clips: Sequence[ClipShape], full: ClipShape) -> None:
    """Raise ValueError unless the clips fill arrays of the shape `full` and agree with its totals.

    Args:
        clips: at least one.
        full: frames and sizes of the arrays; samples of the longest clip; frame rates and side bits
            of the batch as `common_rates` and `mean_side_bits` count them.
    """
    names = [name for name, _ in full.side_sizes]
    for index, clip in enumerate(clips):
        own = [name for name, _ in clip.side_sizes]
        if len(clip.frames) != len(full.frames) or own != names:
            raise ValueError(
                f"clip {index} has {len(clip.frames)} codebooks and sizes of {own}, "
                f"the arrays have {len(full.frames)} and {names}"
            )
    frames = tuple(max(each) for each in zip(*(clip.frames for clip in clips), strict=True))
    sizes = tuple(max(each) for each in zip(*(clip.side_sizes for clip in clips), strict=True))
    longest = max(clip.num_samples for clip in clips)
    for what, found, wanted in (
        ("num_samples", longest, full.num_samples),
        ("frames", frames, full.frames),
        ("sizes of the sides", sizes, full.side_sizes),
    ):
        if found != wanted:
            raise ValueError(
                f"{what} of the longest clip must be those of the batch, {wanted}, got {found}"
            )
    rates, bits = common_rates(clips), mean_side_bits(clips)
    pairs = zip((*rates, bits), (*full.frame_rates, full.side_bits), strict=True)
    if not all(math.isclose(ours, theirs, rel_tol=1e-9) for ours, theirs in pairs):
        raise ValueError(
            f"frame rates {full.frame_rates} Hz and {full.side_bits} side bits of the batch are "
            f"not those of its clips together, {rates} Hz and {bits}"
        )


def join_padded(arrays: Sequence[Tensor]) -> Tensor:
    """Join batches along the first axis, zero-padded to the longest along the last of several.

    Args:
        arrays: `[B_i, ..., T_i]`, or `[B_i]`, which are not padded; axes between must agree.

    Returns:
        `[sum of B_i, ..., longest T]`.
    """
    if arrays[0].ndim < 2:
        return torch.cat([*arrays])
    longest = max(array.shape[-1] for array in arrays)
    pad = torch.nn.functional.pad
    return torch.cat([pad(array, (0, longest - array.shape[-1])) for array in arrays])
