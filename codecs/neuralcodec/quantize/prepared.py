"""What a lookup needs of tensors that rarely change, made once and again when they have changed."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

_ROWS = 1024

T = TypeVar("T")


def _sample(tensor: Tensor) -> Tensor:
    """Return the first element of at most `_ROWS` rows of `[..., n]`, evenly spread."""
    first = tensor.detach()[..., 0].reshape(-1)
    return first[:: -(-len(first) // _ROWS)]


class _Mark(NamedTuple):
    """The state of a tensor: another one means that it may have changed.

    Attributes:
        tensor: detached; it keeps the memory, so that no other tensor gets its address.
        version: number of changes in place that autograd has counted.
        shown: the first elements of rows, a view of the tensor.
        sample: what they were, since changes through `.data` are not counted.
    """

    tensor: Tensor
    version: int
    shown: Tensor
    sample: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        shown = _sample(tensor)
        return cls(tensor.detach(), tensor._version, shown, shown.clone())

    def holds(self, tensor: Tensor) -> bool:
        """Return whether a tensor is this one and, as far as can be seen, unchanged."""
        mine = self.tensor
        return (
            tensor.data_ptr() == mine.data_ptr()
            and tensor._version == self.version
            and (tensor.shape, tensor.stride()) == (mine.shape, mine.stride())
            and (tensor.dtype, tensor.device) == (mine.dtype, mine.device)
            and torch.equal(self.shown, self.sample)
        )


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor has memory and a count of changes: not while something traces it."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and not tensor.is_meta
        and not tensor.is_inference()
    )


class Prepared:
    """Keeps what was made of some tensors, until one of them changes.

    A change in place is seen by the tensor's version. Changes through `.data` are not counted by
    torch: one of all rows is seen, one of few rows only if there are at most 1024. Threads may
    share it. Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self._kept: tuple[list[_Mark], dict[Hashable, Any]] = ([], {})

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()

    def get(self, name: Hashable, sources: Sequence[Tensor], make: Callable[[], T]) -> T:
        """Return what `make` returned for these tensors under this name, or call it.

        Args:
            name: of what is made; each has one `make`.
            sources: all tensors that it is made of, `[..., n]` each, the same ones for all names.
            make: makes it.
        """
        if torch._C._is_tracing() or not all(map(_is_plain, sources)):
            return make()
        marks, made = self._kept
        if len(marks) != len(sources) or not all(
            mark.holds(source) for mark, source in zip(marks, sources, strict=True)
        ):
            made = {}
            self._kept = [_Mark.of(source) for source in sources], made
        if name not in made:
            made[name] = make()
        found: T = made[name]
        return found
