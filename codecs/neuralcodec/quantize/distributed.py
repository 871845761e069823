"""Collective operations with which several processes train one quantizer.

They have no effect unless `torch.distributed` runs with more than one process. The default process
group is used, and all processes must execute the same training steps.
"""

import torch
from torch import Tensor, distributed


def is_distributed() -> bool:
    """Return whether more than one process is training."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def is_first() -> bool:
    """Return whether this process has rank 0, and so makes the random choices for all processes."""
    return not is_distributed() or distributed.get_rank() == 0


def add_all(*tensors: Tensor) -> None:
    """Sum float32 tensors over all processes, in place, in one collective operation."""
    if not is_distributed():
        return
    joined = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(joined)
    parts = torch.split(joined, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def copy_first(tensor: Tensor) -> None:
    """Overwrite a tensor with that of rank 0, in place."""
    if is_distributed():
        distributed.broadcast(tensor, 0)


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows `[N, D]` of all processes in the order of their ranks; N may differ."""
    if not is_distributed():
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, count)
    lengths = [int(each) for each in counts]
    padded = rows.new_zeros(max(lengths), rows.shape[1])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(gathered, padded)
    return torch.cat([part[:length] for part, length in zip(gathered, lengths, strict=True)])
