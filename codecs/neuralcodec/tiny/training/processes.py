"""The processes of a distributed training: a single one, or those that `torchrun` started."""

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
        rank: rank of this process; rank 0 writes all files.
        count: number of processes.
        device: device of this process.
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
        """Overwrite a tensor with that of rank 0, in place."""
        if self.count > 1:
            distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.count > 1:
            distributed.barrier()


def _device(name: str, local_rank: int) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the process group of `torchrun`, if there is one, for the duration of the context.

    Args:
        device: a torch device, or "auto" for one GPU per process if there are any, otherwise the
            CPU.
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
