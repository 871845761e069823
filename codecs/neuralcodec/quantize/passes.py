"""Which forward passes of a training module teach its codebooks, so that each batch counts once.

A pass with gradients teaches, a pass under `torch.no_grad` does not. Activation checkpointing
(`torch.utils.checkpoint`) computes a pass again during the backward pass. Its two variants differ:
without `use_reentrant` the first pass has gradients and has taught already, so that the second one
must not teach and must see the codebooks of the first one; with it the first pass runs without
gradients, so that the second one has to teach.
"""

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

_PENDING = 8  # passes that wait to be computed again, at most

_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


class Pass(NamedTuple):
    """A forward pass in training mode.

    Attributes:
        teaches: whether the codebooks learn from it.
        again: whether it is computed again, during a backward pass.
    """

    teaches: bool
    again: bool


def _may_be_computed_again() -> bool:
    """Return whether something intercepts what autograd saves, as checkpointing does."""
    return _hooks is None or _hooks(True) is not None


class Passes:
    """Tells the passes that teach from those that do not, and keeps what a second one needs."""

    def __init__(self) -> None:
        self._silent = 0  # passes without gradients since the last one with gradients
        self._before: deque[Tensor] = deque(maxlen=_PENDING)

    def next(self) -> Pass:
        """Return what the pass that begins is; to be asked once per pass."""
        again = torch._C._current_graph_task_id() != -1
        if not torch.is_grad_enabled():
            self._silent += 1
            return Pass(teaches=False, again=again)
        if not again:
            self._silent = 0
            return Pass(teaches=True, again=False)
        teaches = self._silent > 0
        self._silent -= teaches
        return Pass(teaches, again=True)

    def keep(self, codebooks: Tensor) -> None:
        """Keep the codebooks of a pass that teaches, if it may be computed again."""
        if _may_be_computed_again():
            self._before.append(codebooks.detach().clone())

    def recall(self) -> Tensor | None:
        """Return the codebooks with which a pass that is computed again was computed at first.

        Backward passes are in reverse order of the forward ones. The last codebooks stay, since a
        backward pass can be repeated.
        """
        if len(self._before) > 1:
            return self._before.pop()
        return self._before[0] if self._before else None
