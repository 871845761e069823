"""Clips of tokens taken out of a batch, and joined to one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from neuralcodec.core.clip_shape import common_rates, is_measured, join_padded, mean_side_bits
from neuralcodec.core.token_data import TokenData, check_side

T = TypeVar("T", bound=TokenData)


def take(tokens: T, index: int) -> T:
    """Return clip `index`, 0..B-1, as a batch of 1 without padding: views of the arrays."""
    if tokens.batch_size == 1:
        return tokens
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


def _axes(value: Tensor | None) -> str:
    """Return the type and the axes of a side that all clips of a batch must share."""
    if value is None:
        return "none"
    middle = "".join(f"{size}, " for size in value.shape[1:-1])
    return f"{value.dtype} [B]" if value.ndim == 1 else f"{value.dtype} [B, {middle}n]"


def check_alike(what: str, parts: Sequence[TokenData]) -> None:
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


def _check_sides(parts: Sequence[TokenData]) -> None:
    """Raise ValueError unless the sides of all parts can be joined."""
    first = parts[0]
    for index, part in enumerate(parts):
        check_side(part.side, part.batch_size, always=True)
        for name in sorted(first.side.keys() | part.side.keys()):
            ours, theirs = (_axes(tokens.side.get(name)) for tokens in (first, part))
            if ours != theirs:
                raise ValueError(
                    f"side {name!r} must be alike in all parts but for its first and last axis: "
                    f"part 0 has {ours}, part {index} {theirs}"
                )


def _check_rates(parts: Sequence[TokenData]) -> None:
    """Raise ValueError if frame rates differ that are not measured."""
    shapes = [(index, shape) for index, part in enumerate(parts) for shape in part.clip_shapes]
    for k in range(parts[0].num_codebooks):
        if len({shape.frame_rates[k] for _, shape in shapes}) == 1:
            continue
        for index, shape in shapes:
            if not is_measured(shape, k, parts[0].sample_rate):
                rate = shape.frame_rates[k]
                other, theirs = next((i, each) for i, each in shapes if each.frame_rates[k] != rate)
                raise ValueError(
                    f"frame rates of codebook {k} differ, and are not codes / duration as in "
                    f"codecs of variable bitrate: {rate} Hz in part {index}, "
                    f"{theirs.frame_rates[k]} Hz in part {other}"
                )


def batch(parts: Sequence[T]) -> T:
    """Join clips of one codec into one batch; see `Tokens.batch`."""
    check_alike("batch", parts)
    if len(parts) == 1:
        return parts[0]
    _check_sides(parts)
    _check_rates(parts)
    codes: Tensor | tuple[Tensor, ...]
    if all(isinstance(part.codes, Tensor) for part in parts):
        codes = join_padded([part.arrays[0] for part in parts])
    else:
        codes = tuple(map(join_padded, zip(*(part.streams for part in parts), strict=True)))
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
