"""Distribution of the CPU kernels' work over threads.

Numba's own parallel loops are not safe to enter from several threads under all of its threading
layers. The kernels therefore release the interpreter lock and run in a thread pool, whose size is
`torch.get_num_threads()`, so that `torch.set_num_threads` applies to both.
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
    """Return the pool of this process; threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="neuralcodec-lookup")


def spread(work: Callable[[int, int], T], count: int, step: int) -> list[T]:
    """Call `work(start, stop)` on parts of `range(count)`, in parallel.

    Args:
        work: the function; it must release the interpreter lock for a speed-up.
        count: length of the range, at least 0.
        step: every part starts at a multiple of it.

    Returns:
        The return values, in the order of the parts; empty if `count` is 0.
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
