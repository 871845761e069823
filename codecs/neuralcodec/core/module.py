"""The base of everything that takes or gives audio: where it computes, and in which numbers."""

from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn

from neuralcodec.core.inputs import check_device, device_of


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters and buffers of a module."""
    return chain(module.parameters(), module.buffers())


class AudioModule(nn.Module, ABC):
    """A module with audio on one side, such as a codec or a feature extractor.

    It moves with `.to` like any module. Two things differ from other modules. It stays in eval
    mode, also inside a model that trains, since dropout or moving averages would make codes depend
    on chance; what shall train is trained as `codec.network`. And it computes in the type of its
    own weights, float32 unless changed by `.to`, whatever `torch.autocast` says around it.

    Attributes:
        name: as in the registry.
        sample_rate: of the audio, Hz.
        channels: of the audio.
        device_types: types of devices on which it runs, such as `("cpu",)`; empty for any.
    """

    name: str
    sample_rate: int
    channels: int = 1
    device_types: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where it computes: the device of its weights, the CPU where it has none."""
        first = next(tensors_of(self), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of its weights, float32 where it has none."""
        kinds = (each.dtype for each in tensors_of(self) if each.is_floating_point())
        return next(kinds, torch.float32)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move as `nn.Module.to` does.

        Raises:
            ValueError: if it does not run on that type of device, or torch can't use it here.
        """
        device = device_of(args, kwargs)
        if device is not None:
            check_device(self.name, self.device_types, device)
        return super().to(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # What runs on some devices only stays where it is when a model around it moves.
        return self if self.device_types else super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def cuda(self, device: int | torch.device | None = None) -> Self:
        """Move to a CUDA device; errors as `to`."""
        return self.to("cuda" if device is None else torch.device("cuda", device))  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever the mode of a model around it."""
        return super().train(False)

    def _inward(self, tensor: Tensor) -> Tensor:
        """Move what a caller gives to where and in what this module computes."""
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute in the type of the weights in here, also under autocast."""
        kind = self.device.type
        if kind == "meta":  # it has no autocast
            yield
            return
        with torch.autocast(kind, enabled=False):
            yield
