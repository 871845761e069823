"""Building blocks of the network: one-dimensional ConvNeXt blocks, and folding of time.

Signals are `[B, T, C]`, so that an operation on the channels is a single matrix product.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class TimeConv(nn.Module):
    """A depthwise convolution over time with zero padding.

    Args:
        channels: number of channels.
        kernel_size: kernel in frames, odd.
        causal: whether the kernel covers only the past, or as much of the future.
    """

    def __init__(self, channels: int, kernel_size: int, *, causal: bool) -> None:
        super().__init__()
        behind = 0 if causal else kernel_size // 2
        self._padding = (kernel_size - 1 - behind, behind)
        self.conv = nn.Conv1d(channels, channels, kernel_size, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Filter `x [B, T, C]`; the length is unchanged."""
        out: Tensor = self.conv(functional.pad(x.mT, self._padding)).mT
        return out


class Block(nn.Module):
    """A ConvNeXt block (Liu et al. 2022, arXiv:2201.03545) over time, as in Vocos.

    Normalisation is over the channels of a frame, so that the receptive field is that of the
    kernel.

    Args:
        channels: number of channels.
        expansion: ratio of the hidden channels to `channels`.
        kernel_size: kernel in frames, odd.
        causal: see `TimeConv`.
        scale: initial scale of the residual branch.
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
        """Apply the block to `x [B, T, C]`; the shape is unchanged."""
        inner = functional.gelu(self.widen(self.norm(self.time(x))))
        out: Tensor = x + self.scale * self.narrow(inner)
        return out


def fold_time(x: Tensor, count: int) -> Tensor:
    """Concatenate each `count` consecutive frames: `[B, T, C]` to `[B, T/count, count*C]`."""
    return x.reshape(len(x), -1, count * x.shape[2])


def unfold_time(x: Tensor, count: int) -> Tensor:
    """Invert `fold_time`."""
    return x.reshape(len(x), -1, x.shape[2] // count)
