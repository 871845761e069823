"""Blocks of the networks: ConvNeXt in one dimension, causal or not, and folding time to channels.

Signals are `[B, T, C]`: what works on channels is then one matrix product.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class TimeConv(nn.Module):
    """A convolution over time for each channel on its own; zeros are outside the signal.

    Args:
        channels: of the signal.
        kernel_size: frames, odd.
        causal: whether it sees the past alone, or as much of the future.
    """

    def __init__(self, channels: int, kernel_size: int, *, causal: bool) -> None:
        super().__init__()
        behind = 0 if causal else kernel_size // 2
        self._padding = (kernel_size - 1 - behind, behind)
        self.conv = nn.Conv1d(channels, channels, kernel_size, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x [B, T, C]`; the length stays."""
        out: Tensor = self.conv(functional.pad(x.mT, self._padding)).mT
        return out


class Block(nn.Module):
    """A ConvNeXt block (Liu et al. 2022, arXiv:2201.03545) over time, as Vocos uses it.

    Normalization is over channels, so that a frame depends on no more than the kernel reaches.

    Args:
        channels: of the signal.
        expansion: width inside over `channels`.
        kernel_size: frames, odd.
        causal: see `TimeConv`.
        scale: of the branch when training begins.
    """

    def __init__(
        self, channels: int, expansion: int, kernel_size: int, *, causal: bool, scale: float
    ) -> None:
        super().__init__()
        self.time = TimeConv(channels, kernel_size, causal=causal)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, expansion * channels)
        self.narrow = nn.Linear(expansion * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Refine `x [B, T, C]`."""
        inner = functional.gelu(self.widen(self.norm(self.time(x))))
        out: Tensor = x + self.scale * self.narrow(inner)
        return out


def fold_time(x: Tensor, count: int) -> Tensor:
    """Make one frame of `count` that follow each other: `[B, T, C]` to `[B, T/count, count*C]`."""
    return x.reshape(len(x), -1, count * x.shape[2])


def unfold_time(x: Tensor, count: int) -> Tensor:
    """Undo `fold_time`."""
    return x.reshape(len(x), -1, x.shape[2] // count)
