"""Work of the CPU kernels spread over threads.

Numba's own parallel loops aren't safe to enter from several threads under each of its threading
layers, so the kernels release the interpreter lock and run in a pool of ours. Their number is
torch's: `torch.set_num_threads` holds for both.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

T = TypeVar("T")


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """The pool of this process: threads don't survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="neuralcodec-lookup")


def spread(work: Callable[[int, int], T], count: int, step: int) -> list[T]:
    """Call `work(start, stop)` on parts of `range(count)`, in parallel.

    Args:
        work: must release the interpreter lock to gain by it.
        count: how much there is to do, at least 0.
        step: parts start at multiples of it.

    Returns:
        What the calls returned, in the order of the parts.
    """
    threads = torch.get_num_threads()
    units = -(-count // step)
    parts = min(units, 1 if threads == 1 else 8 * threads)  # more parts than threads: even load
    bounds = [min(count, units * i // parts * step) for i in range(parts + 1)] if parts else [0]
    spans = list(pairwise(bounds))
    if len(spans) < 2:
        return [work(*span) for span in spans]
    futures = [_pool(threads, os.getpid()).submit(work, *span) for span in spans]
    return [future.result() for future in futures]
