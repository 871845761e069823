"""Streaming layers: networks that take a signal in pieces and give the result of the whole signal.

Each layer keeps what its next output needs: a convolution the end of its input, an LSTM its state,
a sum of branches the output by which one branch is ahead of the other. Apart from some samples of
each transposed convolution, and the context of `Windowed`, nothing is computed twice. An output is
returned only once all input that it depends on is known.

Reflection at the start of a signal, with which EnCodec pads its convolutions, needs as many later
samples as it adds: such a layer waits for them once, and has no delay from then on.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuralcodec.core.audio import check_tensor, check_wav

if TYPE_CHECKING:
    from neuralcodec.core.codec import Codec


class Layer(Protocol):
    """A layer with the state of one signal."""

    def step(self, x: Tensor, last: bool) -> Tensor:
        """Take the next `x [B, C, T]`, T >= 0, and return the output that is known by now.

        With `last` the signal ends after `x`, and all remaining output is returned.
        """
        ...


class Pointwise:
    """A function of each time step alone that also accepts signals of length 0."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def step(self, x: Tensor, last: bool) -> Tensor:
        """See `Layer`."""
        return self._function(x)


class Frames:
    """A function of each frame alone that needs at least one frame, such as a quantizer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def step(self, x: Tensor, last: bool) -> Tensor:
        """See `Layer`."""
        if x.shape[-1]:
            return self._function(x)
        return self._function(functional.pad(x, (0, 1)))[..., :0]


class Conv:
    """A causal convolution whose padding, kernel - stride samples, lies before the signal.

    After the signal it is padded until the last window is full, so that T samples become
    ceil(T / stride).

    Args:
        conv: convolution without padding. For padding by reflection its kernel must be at least
            two strides long, or its stride 1.
        mode: padding mode: "constant" for zeros, "replicate" for the nearest sample, "reflect".
        whole: the same convolution, padding included, of a whole signal. It is called for signals
            that end before there are enough samples to reflect.
    """

    def __init__(self, conv: nn.Conv1d, mode: str, whole: Callable[[Tensor], Tensor]) -> None:
        (kernel,), (self._stride,), (dilation,) = conv.kernel_size, conv.stride, conv.dilation
        self._conv, self._mode, self._whole = conv, mode, whole
        self._left = (kernel - 1) * dilation + 1 - self._stride
        reflects = mode == "reflect"
        # Otherwise a reflection at the end would need samples before those that are kept.
        assert not reflects or self._stride == 1 or (kernel >= 2 * self._stride and dilation == 1)
        self._least = self._left + 1 if reflects else 1  # samples that the first padding needs
        self._started = False
        self._tail: Tensor | None = None

    def step(self, x: Tensor, last: bool) -> Tensor:
        """See `Layer`."""
        if self._tail is not None:
            x = torch.cat([self._tail, x], dim=-1)
        if not self._started:
            if x.shape[-1] < self._least:
                return self._whole(x) if last else self._keep(x, x.shape[-1])
            self._started = True
            x = functional.pad(x, (self._left, 0), mode=self._mode)
        missing = (self._left - x.shape[-1]) % self._stride
        if last and missing:
            x = functional.pad(x, (0, missing), mode=self._mode)
        windows = (x.shape[-1] - self._left) // self._stride
        kept = self._keep(x, x.shape[-1] - windows * self._stride)
        out: Tensor = self._conv(x) if windows else kept
        return out

    def _keep(self, x: Tensor, count: int) -> Tensor:
        """Keep the last `count` samples of `x` and return an output of length 0."""
        # A clone: a view would hold the whole of x in memory.
        self._tail = x[..., x.shape[-1] - count :].clone()
        return x.new_empty(len(x), self._conv.out_channels, 0)


class TransposedConv:
    """A causal transposed convolution: T samples become T * stride, the excess cut at the end.

    Args:
        conv: transposed convolution without padding.
    """

    def __init__(self, conv: nn.ConvTranspose1d) -> None:
        (kernel,), (self._stride,) = conv.kernel_size, conv.stride
        self._conv = conv
        self._context = -(-kernel // self._stride) - 1  # earlier samples that an output needs
        self._tail: Tensor | None = None

    def step(self, x: Tensor, last: bool) -> Tensor:
        """See `Layer`."""
        if x.shape[-1] == 0:
            return x.new_empty(len(x), self._conv.out_channels, 0)
        known = 0 if self._tail is None else self._tail.shape[-1]
        if self._tail is not None:
            x = torch.cat([self._tail, x], dim=-1)
        self._tail = x[..., max(x.shape[-1] - self._context, 0) :].clone()
        out: Tensor = self._conv(x)
        return out[..., known * self._stride : x.shape[-1] * self._stride]


class Recurrent:
    """An LSTM over time, whose input is added to its output if `skip`."""

    def __init__(self, lstm: nn.LSTM, *, skip: bool) -> None:
        self._lstm, self._skip = lstm, skip
        self._state: tuple[Tensor, Tensor] | None = None

    def step(self, x: Tensor, last: bool) -> Tensor:
        """See `Layer`."""
        if x.shape[-1] == 0:
            return x.new_empty(len(x), self._lstm.hidden_size, 0)
        inward = x.permute(2, 0, 1)
        out, self._state = self._lstm(inward, self._state)
        joined: Tensor = out + inward if self._skip else out
        return joined.permute(1, 2, 0)


class Chain:
    """Layers that are applied one after the other."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers

    def step(self, x: Tensor, last: bool) -> Tensor:
        """See `Layer`."""
        for layer in self._layers:
            x = layer.step(x, last)
        return x


class Sum:
    """The sum of two branches of one input, as far as both outputs are known."""

    def __init__(self, first: Layer, second: Layer) -> None:
        self._branches = (first, second)
        self._ahead: tuple[Tensor, Tensor] | None = None

    def step(self, x: Tensor, last: bool) -> Tensor:
        """See `Layer`."""
        first, second = (branch.step(x, last) for branch in self._branches)
        if self._ahead is not None:
            first = torch.cat([self._ahead[0], first], dim=-1)
            second = torch.cat([self._ahead[1], second], dim=-1)
        ready = min(first.shape[-1], second.shape[-1])
        self._ahead = first[..., ready:].clone(), second[..., ready:].clone()
        return first[..., :ready] + second[..., :ready]


class Windowed:
    """A function with a finite receptive field, computed on each piece with its context.

    Args:
        function: function of `[B, C, T]` that returns `[B, channels, T * ratio]`.
        context: samples before and after a sample on which its output depends.
        channels: channels of the output.
        ratio: output samples per input sample.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], *, context: int, channels: int, ratio: int
    ) -> None:
        self._function, self._context = function, context
        self._channels, self._ratio = channels, ratio
        self._held: Tensor | None = None
        self._done = 0  # number of held samples whose output was returned

    def step(self, x: Tensor, last: bool) -> Tensor:
        """See `Layer`."""
        if self._held is not None:
            x = torch.cat([self._held, x], dim=-1)
        first, end = self._done, x.shape[-1] - (0 if last else self._context)
        if end <= first:
            self._held = x.clone()  # the caller may reuse the memory
            return torch.empty(len(x), self._channels, 0, device=x.device)
        start = max(end - self._context, 0)
        self._held, self._done = x[..., start:].clone(), end - start
        return self._function(x)[..., first * self._ratio : end * self._ratio]


class Stream:
    """One signal that is encoded or decoded piece by piece.

    Args:
        layer: layer in its initial state, which no other stream may use.
        codec: codec to which the layer belongs.
        kind: type of the input, "wav" or "codes".
    """

    def __init__(self, layer: Layer, codec: "Codec", kind: Literal["wav", "codes"]) -> None:
        self._layer, self._codec, self._kind = layer, codec, kind
        self._end: Tensor | None = None  # a piece of no samples, of the signal's shape
        self._ended = self._heard = False

    def push(self, x: Tensor) -> Tensor:
        """Take the next piece and return the output that it completes.

        Args:
            x: wav `[B, C, T]` or codes `[B, K, frames]`; T and frames may be 0, B, C and K must
                stay the same.

        Returns:
            Codes `[B, K, frames]` int64, or wav `[B, C, T]`, on the device of `x`.

        Raises:
            ValueError: if the piece is not audio or codes of the codec, its batch size or number
                of codebooks differs from the first piece's, or the stream has ended.
        """
        if self._ended:
            raise ValueError("the stream has ended: begin another one")
        self._check(x)
        if self._end is not None and x.shape[:2] != self._end.shape[:2]:
            raise ValueError(
                f"the stream began with {list(self._end.shape[:2])} for batch and channels or "
                f"codebooks, got {list(x.shape[:2])}"
            )
        self._end = x[..., :0]
        self._heard = self._heard or x.shape[-1] > 0
        return self._step(x, last=False)

    def finish(self) -> Tensor:
        """End the signal and return the remaining output, on the device of the last piece.

        Raises:
            ValueError: if no samples or frames were pushed, or the stream has already ended.
        """
        if self._ended:
            raise ValueError("the stream has ended: begin another one")
        if self._end is None or not self._heard:
            raise ValueError("nothing was pushed")
        self._ended = True
        return self._step(self._end, last=True)

    def _check(self, x: Tensor) -> None:
        channels = self._codec.channels
        if self._kind == "codes":
            self._codec.check_depth(self._codec.tokens(x, 0).num_codebooks)
            return
        check_tensor(x, "wav", f"[B, {channels}, T]")
        if x.ndim != 3 or x.shape[1] != channels or x.shape[-1] > 0:
            check_wav(x, channels=channels)

    def _step(self, x: Tensor, *, last: bool) -> Tensor:
        with torch.inference_mode(), self._codec._computing():
            out = self._layer.step(self._codec._inward(x), last)
        return out.to(x.device, copy=True)  # here, so that it is no inference tensor
