"""Tokens cut and joined in time, at whole frames of every codebook.

Codebooks of different frame rates begin frames together only at some moments. The span from one of
these to the next is called a block here: one frame if all rates are equal, one frame of the slowest
codebook in SNAC, 2 and 3 frames (40 ms) for codebooks at 50 and 75 Hz.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import torch

from neuralcodec.core.token_batch import batch, check_alike, take
from neuralcodec.core.token_data import TokenData

T = TypeVar("T", bound=TokenData)

_LARGEST = 1000  # frames of the slowest codebook in a block
_ROUNDING = 1e-9  # relative error of rates and block lengths
_CLOSE = 1e-6  # blocks: a moment so near a block's edge is meant to be the edge


@dataclass(frozen=True)
class _Block:
    """The shortest span of whole frames of every codebook.

    Attributes:
        frames: codes per codebook.
        seconds: its length.
        samples: its length, not always whole.
    """

    frames: tuple[int, ...]
    seconds: float
    samples: float

    def edge(self, index: int) -> int:
        """Return the first sample of block `index`."""
        return math.floor(index * self.samples + _CLOSE)

    def count(self, tokens: TokenData) -> int:
        """Return how many blocks the codes of tokens take, the last one whole or not."""
        pairs = zip(tokens.streams, self.frames, strict=True)
        return max(-(-stream.shape[1] // frames) for stream, frames in pairs)


def _block(tokens: TokenData) -> _Block:
    slowest = min(tokens.frame_rates)
    ratios = [Fraction(rate / slowest).limit_denominator(_LARGEST) for rate in tokens.frame_rates]
    slow = math.lcm(*(ratio.denominator for ratio in ratios))
    exact = all(
        math.isclose(rate / slowest, ratio, rel_tol=_ROUNDING)
        for rate, ratio in zip(tokens.frame_rates, ratios, strict=True)
    )
    if slow > _LARGEST or not exact:
        raise ValueError(
            f"frames at {tokens.frame_rates} Hz do not begin together within {_LARGEST} of the "
            f"slowest: such tokens cannot be cut or joined in time"
        )
    samples = slow / slowest * tokens.sample_rate
    if math.isclose(samples, round(samples), rel_tol=_ROUNDING):
        samples = round(samples)
    return _Block(tuple(int(slow * ratio) for ratio in ratios), slow / slowest, samples)


def _check_no_side(what: str, tokens: TokenData) -> None:
    if tokens.side or tokens.side_bits:
        names = ", ".join(sorted(tokens.side)) or "bits without a tensor"
        raise ValueError(
            f"tokens with a side ({names}) cannot be {what} in time: "
            f"which of its values belong to which frames is known to the codec alone"
        )


def _span(start: float | None, stop: float | None, duration: float) -> tuple[float, float]:
    """Return a span in seconds from the beginning, or raise ValueError if there is none such."""
    ends = [0.0 if start is None else start, duration if stop is None else stop]
    first, last = (end + duration if end < 0 else end for end in ends)
    if not 0 <= first < last <= duration + 1e-9:
        raise ValueError(
            f"crop from {start} to {stop} s: start must be before stop and both in 0..{duration} s "
            f"(negative: from the end)"
        )
    return first, last


def crop(tokens: T, start: float | None, stop: float | None) -> T:
    """Return the blocks that overlap a span of time; see `Tokens.crop`."""
    _check_no_side("cropped", tokens)
    if tokens.clips is not None:
        return batch([crop(take(tokens, i), start, stop) for i in range(tokens.batch_size)])
    begin, end = _span(start, stop, tokens.duration)
    block = _block(tokens)
    total = block.count(tokens)
    first = math.floor(begin / block.seconds + _CLOSE)
    last = math.ceil(end / block.seconds - _CLOSE)
    if first >= last:  # a span shorter than the rounding
        first = math.floor(begin / block.seconds)
        last = first + 1
    if first >= total:
        raise ValueError(
            f"no frame overlaps {begin}..{end} s: the frames span {tokens.padded_duration} s"
        )
    if last >= total or end > tokens.duration - 1e-9:  # codecs may have frames beyond the audio
        last, end_sample = total, tokens.num_samples
    else:
        end_sample = min(block.edge(last), tokens.num_samples)
    if first == 0 and last == total:
        return tokens
    length = end_sample - block.edge(first)
    cuts = [slice(first * frames, last * frames) for frames in block.frames]
    if len(set(block.frames)) == 1:
        return tokens.with_codes([array[..., cuts[0]] for array in tokens.arrays], length)
    pairs = zip(tokens.streams, cuts, strict=True)
    return tokens.with_codes([stream[..., cut] for stream, cut in pairs], length)


def _check_full(tokens: TokenData, block: _Block, index: int) -> None:
    """Raise ValueError unless the audio of a part ends where a block does."""
    frames = [stream.shape[1] for stream in tokens.streams]
    count = block.count(tokens)
    whole = frames == [count * each for each in block.frames]
    # Less than a sample of difference is rounding: a block may be no whole number of samples.
    if not whole or abs(tokens.num_samples - count * block.samples) >= 1:
        raise ValueError(
            f"part {index} of concat has {tokens.num_samples} samples and {frames} frames, which "
            f"are {count} times {block.frames} frames of {block.samples:g} samples only in part: "
            f"every part but the last must fill its frames"
        )


def concat(parts: Sequence[T]) -> T:
    """Join tokens in time; see `Tokens.concat`."""
    check_alike("concat", parts)
    first = parts[0]
    for index, part in enumerate(parts):
        _check_no_side("joined", part)
        if part.batch_size != first.batch_size:
            raise ValueError(
                f"batch sizes differ: {first.batch_size} in part 0, {part.batch_size} in {index}"
            )
    if any(part.clips for part in parts):
        return batch([concat([take(part, i) for part in parts]) for i in range(first.batch_size)])
    for index, part in enumerate(parts):
        if part.frame_rates != first.frame_rates:
            raise ValueError(
                f"frame rates differ: {first.frame_rates} Hz in part 0, "
                f"{part.frame_rates} Hz in part {index}"
            )
    block = _block(first)
    for index, part in enumerate(parts[:-1]):
        _check_full(part, block, index)
    length = sum(part.num_samples for part in parts)
    tensors = all(isinstance(part.codes, torch.Tensor) for part in parts)
    pieces = zip(*(part.arrays if tensors else part.streams for part in parts), strict=True)
    return first.with_codes([torch.cat(each, dim=-1) for each in pieces], length)
