"""Tokens put together and taken apart: clips of a batch, pieces of time."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from neuralcodec.core.token_checks import ClipShape
from neuralcodec.core.tokens import Tokens


def _check_alike(parts: Sequence[Tokens], what: str) -> None:
    if not parts:
        raise ValueError(f"{what} needs at least one Tokens, got none")
    first = parts[0]
    for part in parts[1:]:
        for name, one, other in (
            ("codebook sizes", first.codebook_sizes, part.codebook_sizes),
            ("sample rates", first.sample_rate, part.sample_rate),
            ("sides", sorted(first.side), sorted(part.side)),
        ):
            if one != other:
                raise ValueError(f"{what} needs tokens of one codec, got {name} {one} and {other}")


def _joined(arrays: Sequence[Tensor]) -> Tensor:
    """Join along the batch, the last axis filled up with zeros to the longest."""
    if arrays[0].ndim < 2:
        return torch.cat(list(arrays))
    longest = max(array.shape[-1] for array in arrays)
    return torch.cat([pad(array, (0, longest - array.shape[-1])) for array in arrays])


def _common_rates(shapes: Sequence[ClipShape]) -> tuple[float, ...]:
    """Return the frame rates of all clips together: equal ones, or codes over seconds."""
    rates = {shape.frame_rates for shape in shapes}
    if len(rates) == 1:
        return rates.pop()
    levels = range(len(shapes[0].frames))
    codes = [sum(shape.frames[k] for shape in shapes) for k in levels]
    spans = [math.fsum(shape.frames[k] / shape.frame_rates[k] for shape in shapes) for k in levels]
    return tuple(
        count / span if span else shapes[0].frame_rates[k]
        for k, (count, span) in enumerate(zip(codes, spans, strict=True))
    )


def batch(parts: Sequence[Tokens]) -> Tokens:
    """See `Tokens.batch`."""
    _check_alike(parts, "a batch")
    if len(parts) == 1:
        return parts[0]
    shapes = tuple(shape for part in parts for shape in part.shapes)
    codes: Tensor | tuple[Tensor, ...]
    arrays = [part.codes for part in parts]
    if all(isinstance(array, Tensor) for array in arrays):
        codes = _joined([array for array in arrays if isinstance(array, Tensor)])
    else:
        levels = zip(*(part.streams for part in parts), strict=True)
        codes = tuple(_joined(level) for level in levels)
    equal = len(set(shapes)) == 1
    return replace(
        parts[0],
        codes=codes,
        frame_rates=_common_rates(shapes),
        num_samples=max(shape.num_samples for shape in shapes),
        side={name: _joined([part.side[name] for part in parts]) for name in parts[0].side},
        side_bits=max(shape.side_bits for shape in shapes),
        clips=None if equal else shapes,
    )


def _one(tokens: Tokens, index: int) -> Tokens:
    """Return one clip without padding."""
    shape = tokens.shapes[index]
    ends = dict(shape.sides)
    rows = slice(index, index + 1)
    codes: Tensor | tuple[Tensor, ...]
    if isinstance(tokens.codes, Tensor):
        codes = tokens.codes[rows, :, : max(shape.frames)]
    else:
        pairs = zip(tokens.codes, shape.frames, strict=True)
        codes = tuple(stream[rows, :count] for stream, count in pairs)
    side = tokens.side
    if len(tokens) > 1:
        side = {
            name: value[rows, ..., : ends[name]] if name in ends else value[rows]
            for name, value in side.items()
        }
    return replace(
        tokens,
        codes=codes,
        frame_rates=shape.frame_rates,
        num_samples=shape.num_samples,
        side=side,
        side_bits=shape.side_bits,
        clips=None,
    )


def select(tokens: Tokens, index: int | slice) -> Tokens:
    """See `Tokens.__getitem__`.

    Raises:
        IndexError: if there is no such clip, or a slice holds none.
    """
    if isinstance(index, slice):
        chosen = range(len(tokens))[index]
        if not chosen:
            raise IndexError(f"{index} holds no clip of a batch of {len(tokens)}")
        return batch([_one(tokens, each) for each in chosen])
    if not -len(tokens) <= index < len(tokens):
        raise IndexError(f"clip {index} of a batch of {len(tokens)}")
    return _one(tokens, index % len(tokens))


def _check_time(tokens: Tokens, what: str) -> None:
    if tokens.side:
        raise ValueError(
            f"tokens with {', '.join(sorted(tokens.side))} beside the codes can't be {what}: which "
            f"part of it belongs to which time is not known"
        )
    if tokens.clips is not None:
        raise ValueError(f"clips of different lengths are {what} one by one: tokens[i]")


def _per_frame(tokens: Tokens) -> list[int]:
    """Return the codes that each codebook has per frame of the slowest one."""
    slowest = min(tokens.frame_rates)
    ratios = [rate / slowest for rate in tokens.frame_rates]
    if not all(math.isclose(ratio, round(ratio), rel_tol=1e-6) for ratio in ratios):
        raise ValueError(f"frame rates {tokens.frame_rates} have no common frames to cut at")
    return [round(ratio) for ratio in ratios]


def _cut(
    tokens: Tokens, first: int, last: int, units: Sequence[int]
) -> Tensor | tuple[Tensor, ...]:
    if isinstance(tokens.codes, Tensor):
        return tokens.codes[..., first:last]
    pairs = zip(tokens.codes, units, strict=True)
    return tuple(stream[:, first * unit : last * unit] for stream, unit in pairs)


def _samples(tokens: Tokens, frames: int) -> int:
    """Return the samples before a frame of the slowest codebook."""
    return round(frames / min(tokens.frame_rates) * tokens.sample_rate)


def crop(tokens: Tokens, start: float, stop: float | None) -> Tokens:
    """See `Tokens.crop`."""
    _check_time(tokens, "cropped")
    units, rate = _per_frame(tokens), min(tokens.frame_rates)
    pairs = zip(tokens.streams, units, strict=True)
    count = max(-(-stream.shape[1] // unit) for stream, unit in pairs)
    end = tokens.duration if stop is None else min(stop, tokens.duration)
    if not 0 <= start < end:
        raise ValueError(
            f"start must be 0 or more and before stop and the end at {tokens.duration:g} s, "
            f"got {start}..{stop}"
        )
    first = math.floor(start * rate + 1e-6)
    last = count if stop is None or stop >= tokens.duration else math.ceil(stop * rate - 1e-6)
    last = min(last, count)
    begin = _samples(tokens, first)
    if first >= last or begin >= tokens.num_samples:
        raise ValueError(f"no frame lies in {start}..{stop} s of {tokens.duration:g} s")
    until = tokens.num_samples if last == count else _samples(tokens, last)
    return replace(
        tokens,
        codes=_cut(tokens, first, last, units),
        num_samples=min(until, tokens.num_samples) - begin,
    )


def concat(parts: Sequence[Tokens]) -> Tokens:
    """See `Tokens.concat`."""
    _check_alike(parts, "concat")
    for position, part in enumerate(parts):
        _check_time(part, "joined in time")
        if part.frame_rates != parts[0].frame_rates or len(part) != len(parts[0]):
            raise ValueError(
                f"parts differ in frame rates or batch size: {parts[0].frame_rates} of "
                f"{len(parts[0])} clips and {part.frame_rates} of {len(part)}"
            )
        spare = part.padded_duration * part.sample_rate - part.num_samples
        if position < len(parts) - 1 and abs(spare) >= 1:
            raise ValueError(
                f"part {position} has {part.num_samples} samples in frames of "
                f"{part.num_samples + spare:g}: only the last part may end within a frame"
            )
    codes: Tensor | tuple[Tensor, ...]
    if all(isinstance(part.codes, Tensor) for part in parts):
        codes = torch.cat([torch.stack(part.streams, dim=1) for part in parts], dim=-1)
    else:
        codes = tuple(
            torch.cat(level, dim=-1)
            for level in zip(*(part.streams for part in parts), strict=True)
        )
    return replace(parts[0], codes=codes, num_samples=sum(part.num_samples for part in parts))
