"""The processes that train together: alone, or as many as `torchrun` started."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number, 0 for the one that writes.
        count: of processes.
        device: that it computes on.
    """

    rank: int
    count: int
    device: torch.device

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Average tensors over all processes, in place."""
        if self.count > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)
                tensor /= self.count

    def copy_first(self, tensor: Tensor) -> None:
        """Take the tensor of the first process, in place."""
        if self.count > 1:
            distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait until all are here."""
        if self.count > 1:
            distributed.barrier()


def _device(name: str, local_rank: int) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the other processes that `torchrun` started, if it did, for as long as it lasts.

    Args:
        device: of torch, or "auto": a GPU of its own for each process where there are any.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local_rank = (int(os.environ.get(name, "0")) for name in ("RANK", "LOCAL_RANK"))
    found = _device(device, local_rank)
    if count == 1:
        yield Processes(0, 1, found)
        return
    if found.type == "cuda":
        torch.cuda.set_device(found)
    distributed.init_process_group("nccl" if found.type == "cuda" else "gloo")
    try:
        yield Processes(rank, count, found)
    finally:
        distributed.destroy_process_group()
