"""Checks of what a quantizer is given: tensors, and whole numbers in a range."""

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor


def check_tensor(value: object, what: str) -> Tensor:
    """Return `value`, or raise ValueError unless it is a tensor; `what` is its name and shape."""
    if isinstance(value, Tensor):
        return value
    name = what.split()[0]
    is_array = isinstance(value, np.ndarray)
    kind = f"a numpy array: torch.from_numpy({name})" if is_array else type(value).__name__
    raise ValueError(f"{what} must be a torch tensor, got {kind}")


def check_latents(z: object, dim: int) -> Tensor:
    """Return `z`, or raise ValueError unless it is a float tensor `[B, dim, T]`."""
    z = check_tensor(z, f"z [B, {dim}, T]")
    if z.ndim != 3 or z.shape[1] != dim or not z.is_floating_point():
        raise ValueError(f"z must be float [B, {dim}, T], got {z.dtype} {list(z.shape)}")
    return z


def check_codes(codes: object) -> None:
    """Raise ValueError unless `codes` is an int64 tensor `[B, K, T]`."""
    codes = check_tensor(codes, "codes [B, K, T]")
    if codes.ndim != 3 or codes.dtype != torch.int64:
        raise ValueError(f"codes must be int64 [B, K, T], got {codes.dtype} {list(codes.shape)}")


def check_mask(mask: object, z: Tensor) -> None:
    """Raise ValueError unless `mask` is None or a bool tensor `[B, T]` of latents `[B, D, T]`."""
    if mask is None:
        return
    shape = [z.shape[0], z.shape[2]]
    mask = check_tensor(mask, f"mask {shape}")
    if mask.dtype != torch.bool or list(mask.shape) != shape or mask.device != z.device:
        raise ValueError(
            f"mask must be bool {shape} on {z.device}, "
            f"got {mask.dtype} {list(mask.shape)} on {mask.device}"
        )


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number by its type: 2 and numpy's 2 are, 2.0 is not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_number(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return a whole number in `least..most`, or at least `least`.

    Raises:
        ValueError: if it is out of the range, or no whole number.

    >>> check_number("num_codebooks", 9, 1, 8)
    Traceback (most recent call last):
    ValueError: num_codebooks must be 1..8, got 9
    """
    if is_whole(value) and value >= least and (most is None or value <= most):
        return int(value)
    allowed = f"{least}..{most}" if most is not None else f"at least {least}"
    kind = "" if is_whole(value) else ", a whole number"
    raise ValueError(f"{name} must be {allowed}{kind}, got {value!r}")


def check_lengths(lengths: Sequence[int], most: int) -> list[int]:
    """Return lengths of prefixes, one or more whole numbers in 1..most.

    Raises:
        ValueError: if there is none, or one is out of the range.
    """
    given = list(lengths)
    if not given or not all(is_whole(each) and 1 <= each <= most for each in given):
        raise ValueError(f"prefix_lengths must be numbers in 1..{most}, got {given}")
    return given
