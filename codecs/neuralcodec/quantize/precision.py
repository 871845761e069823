"""Arithmetic in float32, whatever autocast says around it."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast leaves operations on the tensor's device alone."""
    if tensor.is_meta:  # it has no autocast
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)
