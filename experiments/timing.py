"""Measurement tools of the benchmarks: paired times, peak memory, a description of the machine.

The speed of a shared machine varies from minute to minute. Two contestants are therefore timed
alternately, and compared by the median of the ratios of adjacent measurements.
"""

import gc
import importlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep, strftime
from typing import Any

THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_THREAD_LIMIT",
    "VECLIB_MAXIMUM_THREADS",
)

_FEWEST_ROUNDS = 3
_SHORTEST_SPAN = 0.05  # s; a shorter call is repeated until this time has passed
_LONG_CALL = 1.0  # s; a longer call needs no warm-up round
_REST = 0.01  # s between spans, since the idle threads of a library spin before they sleep
_VERSIONS = (
    "torch numba numpy faiss-cpu vector-quantize-pytorch encodec descript-audio-codec "
    "ai-edge-litert"
).split()
_MIB = 1 << 20


@dataclass(frozen=True)
class Pair:
    """Times of two contestants, measured alternately.

    Attributes:
        ours: seconds per call, one value per round.
        theirs: the same for the other contestant.
    """

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Time of the other contestant divided by ours, per round."""
        return tuple(b / a for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the ratios; above 1, ours is faster."""
        return statistics.median(self.ratios)


def restart_without_thread_limits() -> None:
    """Restart this script if its environment limits threads, which libraries read at import."""
    limits = [name for name in THREAD_LIMITS if os.environ.pop(name, None) is not None]
    if limits:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def seconds_a_call(call: Callable[[], object], calls: int = 1) -> float:
    """Return the mean duration in seconds of `calls` consecutive calls."""
    start = perf_counter()
    for _ in range(calls):
        call()
    return (perf_counter() - start) / calls


def _calls(seconds: float) -> int:
    return max(1, math.ceil(_SHORTEST_SPAN / max(seconds, 1e-9)))


def time_pair(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    rounds: int = 9,
    budget_seconds: float = 60.0,
) -> Pair:
    """Time two contestants alternately; the order changes with every round.

    The first round is a warm-up and not counted, unless its calls are so long that warm-up is
    negligible. Short calls are repeated within a round.

    Args:
        ours: the contestant whose speed the ratio describes.
        theirs: the contestant that it is compared with.
        rounds: maximum number of rounds, at least 3.
        budget_seconds: approximate limit of the total time, which reduces the rounds to no fewer
            than 3.

    Raises:
        ValueError: if `rounds` is below 3.
    """
    if rounds < _FEWEST_ROUNDS:
        raise ValueError(f"rounds must be at least {_FEWEST_ROUNDS}, got {rounds}")
    first = (seconds_a_call(ours), seconds_a_call(theirs))
    times = [first] if min(first) > _LONG_CALL else []
    if not times:
        first = (seconds_a_call(ours), seconds_a_call(theirs))
    calls = (_calls(first[0]), _calls(first[1]))
    a_round = first[0] * calls[0] + first[1] * calls[1]
    rounds = max(_FEWEST_ROUNDS, min(rounds, int(budget_seconds / a_round)))
    for turn in range(len(times), rounds):
        both = [0.0, 0.0]
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            sleep(_REST)
            both[which] = seconds_a_call((ours, theirs)[which], calls[which])
        times.append((both[0], both[1]))
    return Pair(tuple(a for a, _ in times), tuple(b for _, b in times))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive numbers.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    return math.exp(statistics.fmean(math.log(value) for value in values))


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def peak_growth(call: Callable[[], Any]) -> tuple[int, Any]:
    """Return by how many bytes the resident memory of this process grows at most during a call.

    Linux only: the peak that the kernel records is reset before the call. Use a new process per
    measurement, since memory that was freed but not returned to the system hides later allocations.

    Returns:
        The growth in bytes, and the return value of the call, whose memory is included.

    Raises:
        OSError: if the system keeps no such record.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_bytes("VmRSS")
    result = call()
    return max(0, _status_bytes("VmHWM") - before), result


def memory_total() -> int:
    """Return the memory of this machine in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _vectors_of_cpu() -> str:
    """Return the widest vector instructions, on which the speed of every contestant depends."""
    features = importlib.import_module("llvmlite.binding").get_host_cpu_features()
    wide = ("avx512f", "avx2", "neon")
    return next((name for name in wide if features.get(name)), "none known")


def _threads() -> dict[str, int]:
    """Return the number of threads of each library."""
    import torch

    found = {"torch": torch.get_num_threads(), "neuralcodec": torch.get_num_threads()}
    if importlib.util.find_spec("faiss") is not None:
        found["faiss"] = int(importlib.import_module("faiss").omp_get_max_threads())
    return found


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """Return a description of the machine, for the record."""
    import torch

    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "vector_instructions": _vectors_of_cpu(),
        "memory_gib": round(memory_total() / (1 << 30), 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "threads": _threads(),
        "versions": {name: version for name in _VERSIONS if (version := _installed(name))},
        "date": strftime("%Y-%m-%d"),
    }


def mebibytes(count: int) -> float:
    """Convert bytes to MiB."""
    return count / _MIB
