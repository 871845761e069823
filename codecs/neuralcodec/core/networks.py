"""Helpers of the wrappers for networks of torch: loading, weight norm and receptive fields."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


@contextmanager
def seeded(device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's generator of a device with 0 in this context and restore it afterwards."""
    place = torch.device(device)
    if place.type != "cuda":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            yield
        return
    with torch.random.fork_rng(devices=[place]), torch.cuda.device(place):
        torch.cuda.manual_seed(0)
        yield


def load_saved(path: Path) -> Any:
    """Read a file of `torch.save` with tensors, numbers and strings; no code in it is run.

    Raises:
        ValueError: if it is not such a file, or holds other objects.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, EOFError, RuntimeError) as error:
        # The error's own text is a page long, and suggests loading in a way that can run code.
        raise ValueError(f"{path} is no checkpoint of tensors and numbers alone") from error


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint of torch that is a dict of tensors by name.

    Raises:
        ValueError: if it is not such a file, or holds other objects.
    """
    state = load_saved(path)
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"{path} is no checkpoint: it must hold tensors by name")
    return state


def fill(network: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load `state` into `network`; raise ValueError if it is not a state of the model `name`."""
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"the checkpoint is not of {name}: {error}") from error


def _forget_old_names(module: nn.Module) -> None:
    """Remove the hook that reads weight norm of older checkpoints.

    torch leaves it in place when weight norm is removed, and as a local function it cannot be
    pickled.
    """
    hooks = module._load_state_dict_pre_hooks
    for key, hook in list(hooks.items()):
        function = getattr(hook, "hook", hook)  # torch wraps the function
        if "weight_norm" in getattr(function, "__qualname__", ""):
            del hooks[key]


def fold_weight_norm(network: nn.Module) -> None:
    """Multiply weight norm, of either implementation in torch, into the weights, in place."""
    for module in list(network.modules()):
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
        elif parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
            _forget_old_names(module)


def seen(network: nn.Module, first: int, last: int) -> tuple[int, int]:
    """Return the first and last input index on which outputs `first`..`last` of a network depend.

    All convolutions count as one sequence. The skip connections of residual units have a smaller
    receptive field than the branches that they bypass.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]
    for layer in reversed(layers):
        reach = layer.dilation[0] * (layer.kernel_size[0] - 1)
        stride, padding = layer.stride[0], int(layer.padding[0])
        if isinstance(layer, nn.ConvTranspose1d):
            first, last = -((reach - padding - first) // stride), (last + padding) // stride
        else:
            first, last = first * stride - padding, last * stride - padding + reach
    return first, last
