"""Benchmark the codebook lookup against other packages and against a plain matrix product.

    python experiments/bench_lookup.py --json lookup.json     # all; more than an hour on two cores
    python experiments/bench_lookup.py --quick --out /tmp/lookup
    python experiments/bench_lookup.py --redraw lookup.json   # tables and figure from records
    python experiments/bench_lookup.py --memory-10m           # 10 million vectors, 8 GiB of memory

The script needs the packages of the extra `bench` and, for the peers of that name, `encodec` and
`descript-audio-codec`. A peer that is not installed is left out and listed in the report. Before
the timing, the codes of each peer are compared with ours.
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lookup_peers import (
    CONTESTANTS,
    SGEMM,
    Case,
    Contestant,
    Ready,
    Shape,
    contestants,
    gaussian_case,
    ours,
    worst_excess,
)
from lookup_report import write_memory, write_report
from reporting import write_json
from timing import (
    Pair,
    machine,
    mebibytes,
    memory_total,
    peak_growth,
    restart_without_thread_limits,
    seconds_a_call,
    time_pair,
)

SHAPES: tuple[Shape, ...] = (  # D, V, K
    (8, 1024, 8),  # DAC
    (16, 256, 8),
    (64, 16, 46),  # Lyra v2
    (64, 1024, 8),
    (128, 1024, 8),  # EnCodec
    (256, 2048, 8),  # Mimi
    (512, 1024, 8),
    (128, 4096, 8),
)
SIZES = (1_000, 22_500, 200_000)
MEMORY_SHAPES = ((8, 1024, 8), (64, 16, 46), (128, 1024, 8))
TEN_MILLION = (128, 1024, 8), 10_000_000
TOLERANCE = 1e-5  # excess over the nearest distance that float32 rounding explains

_CHECKED = 2_000  # vectors
_TRIED = 1_000  # vectors of the call from which the duration of larger ones is estimated
_SLOWEST = 30.0  # maximum seconds per call; slower contestants are timed on fewer vectors
_MEMORY_SHARE = 0.6  # fraction of the memory that a contestant's matrices may fill
_OURS = Contestant("ours, auto", ours())


def check(contestant: Contestant, case: Case) -> dict[str, Any]:
    """Compare a contestant's codes with ours: the share that differs, and whether by near ties."""
    if contestant.metric is None:
        return {"mismatch": None, "excess": None, "same": True}
    theirs = contestant.load(case)
    codes = theirs.codes(theirs.run()).to(torch.int64)
    mine = ours(contestant.metric)(case)
    differ = (codes != mine.codes(mine.run())).any(dim=1)
    excess = worst_excess(case, codes, contestant.metric)
    return {
        "mismatch": float(differ.double().mean()),
        "excess": excess,
        "same": excess <= TOLERANCE,
    }


def affordable(contestant: Contestant, case: Case) -> int:
    """Return the number of vectors a contestant can search within the limits of time and memory."""
    size = case.codebooks.shape[1]
    small = case.first(min(_TRIED, len(case.vectors)))
    ready = contestant.load(small)
    ready.run()
    seconds = seconds_a_call(ready.run) / len(small.vectors)
    counts = [len(case.vectors), max(1, int(_SLOWEST / seconds))]
    if contestant.matrices:
        counts.append(int(_MEMORY_SHARE * memory_total() / (4 * size * contestant.matrices)))
    count = min(counts)
    if count == len(case.vectors):
        return count
    step = max(1, int(10 ** (int(math.log10(count)) - 1)))  # two significant digits
    return count // step * step


def _finished(ready: Ready, device: str) -> Ready:
    """Return a contestant whose calls wait for the GPU, where calls are asynchronous."""
    if device == "cpu":
        return ready

    def run() -> Any:
        result = ready.run()
        torch.cuda.synchronize()
        return result

    return Ready(run, ready.codes)


def _row(contestant: Contestant, case: Case, asked: int, device: str, pair: Pair) -> dict[str, Any]:
    levels, size, dim = case.codebooks.shape
    seconds = median(pair.ours), median(pair.theirs)
    return {
        "device": device,
        "dim": dim,
        "codebook_size": size,
        "num_codebooks": levels,
        "vectors_asked": asked,
        "vectors": len(case.vectors),
        "contestant": contestant.name,
        "metric": contestant.metric,
        "seconds": seconds[1],
        "gflops": case.operations / seconds[1] / 1e9,
        "ours_seconds": seconds[0],
        "ours_gflops": case.operations / seconds[0] / 1e9,
        "ratio": pair.ratio,
        "lowest_ratio": min(pair.ratios),
        "highest_ratio": max(pair.ratios),
        "rounds": len(pair.ours),
        "all_ours_seconds": pair.ours,
        "all_seconds": pair.theirs,
    }


def time_one(
    contestant: Contestant, case: Case, device: str, rounds: int, budget: float
) -> dict[str, Any]:
    """Time a contestant against ours on one case, or on as many vectors as are affordable."""
    asked = len(case.vectors)
    case = case.first(affordable(contestant, case))
    mine = _finished(ours(contestant.metric or "euclidean")(case), device)
    theirs = _finished(contestant.load(case), device)
    pair = time_pair(mine.run, theirs.run, rounds=rounds, budget_seconds=budget)
    return _row(contestant, case, asked, device, pair)


def _names(rows: Sequence[dict[str, Any]]) -> set[tuple[Any, ...]]:
    keys = "device", "dim", "codebook_size", "num_codebooks", "contestant"
    return {tuple(row[key] for key in keys) for row in rows}


@torch.inference_mode()
def check_all(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare the codes of all contestants for all shapes."""
    rows = []
    for device, shape in itertools.product(arguments.devices, arguments.shapes):
        dim, size, levels = shape
        case = gaussian_case(shape, _CHECKED, device=device)
        for contestant in contestants(device):
            row = {"device": device, "dim": dim, "codebook_size": size, "num_codebooks": levels}
            rows.append(row | {"contestant": contestant.name} | check(contestant, case))
            if not rows[-1]["same"]:
                print(f"other codes than ours, not timed: {rows[-1]}", flush=True)
    return rows


@torch.inference_mode()
def time_all(
    arguments: argparse.Namespace, checks: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Time all contestants whose codes match ours, in ascending order of sizes."""
    rows = []
    same = _names([row for row in checks if row["same"]])
    for device, count, shape in itertools.product(
        arguments.devices, sorted(arguments.sizes), arguments.shapes
    ):
        case = gaussian_case(shape, count, device=device)
        for contestant in contestants(device):
            if (device, *shape, contestant.name) not in same:
                continue
            if arguments.only and contestant.name not in arguments.only:
                continue
            row = time_one(contestant, case, device, arguments.repeats, arguments.budget)
            print(
                f"{device} D={shape[0]} V={shape[1]} K={shape[2]} N={row['vectors']}: "
                f"{contestant.name} {row['seconds']:.4g} s, ours {row['ours_seconds']:.4g} s, "
                f"ratio {row['ratio']:.2f}, {row['ours_gflops']:.1f} GFLOP/s",
                flush=True,
            )
            rows.append(row)
    return rows


def measure_memory(name: str, shape: Shape, count: int) -> dict[str, Any]:
    """Measure a contestant's memory in addition to input and codes, in a separate process.

    Memory that a search of 64 vectors loads and allocates is not counted.

    Raises:
        RuntimeError: if the process fails.
    """
    done = subprocess.run(
        [
            *(sys.executable, __file__, "--memory-of", name),
            *("--shapes", ",".join(map(str, shape)), "--sizes", str(count)),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"measuring the memory of {name!r} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@torch.inference_mode()
def _memory_of(name: str, shape: Shape, count: int) -> dict[str, Any]:
    contestant = next(each for each in (_OURS, *CONTESTANTS) if each.name == name)
    case = gaussian_case(shape, count)
    contestant.load(case.first(64)).run()
    ready = contestant.load(case)
    growth, result = peak_growth(lambda: seconds_and_result(ready))
    seconds, codes = result
    return {
        "contestant": name,
        "dim": shape[0],
        "codebook_size": shape[1],
        "num_codebooks": shape[2],
        "vectors": count,
        "mib": mebibytes(max(0, growth - codes.nbytes)),
        "codes_mib": mebibytes(codes.nbytes),
        "seconds": seconds,
    }


def seconds_and_result(ready: Ready) -> tuple[float, Any]:
    """Run a contestant once; return the duration in seconds and the result."""
    kept: list[Any] = []
    seconds = seconds_a_call(lambda: kept.append(ready.run()))
    return seconds, kept[0]


def memory_all(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the memory of ours and the peers on the CPU for some shapes, at the largest size."""
    shapes = [shape for shape in arguments.shapes if shape in MEMORY_SHAPES]
    rows = []
    for shape in shapes:
        case = gaussian_case(shape, max(arguments.sizes))
        counts = {
            contestant.name: affordable(contestant, case)
            for contestant in (_OURS, *contestants("cpu"))
            if contestant.name != SGEMM
            and not (arguments.only and contestant.name not in (_OURS.name, *arguments.only))
        }
        for name, count in counts.items():
            rows.append(measure_memory(name, shape, count))
            print(f"{name} D={shape[0]} V={shape[1]}: {rows[-1]['mib']:.0f} MiB", flush=True)
    return rows


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all requested checks, timings and memory measurements."""
    checks = check_all(arguments)
    return {
        "machine": machine(),
        "missing": sorted({each.name for each in CONTESTANTS if not each.installed}),
        "tolerance": TOLERANCE,
        "checks": checks,
        "timings": time_all(arguments, checks),
        "memory": memory_all(arguments),
    }


def joined(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Combine the timings and the memory of several records of one machine.

    Raises:
        ValueError: if the records are of different machines or versions.
    """
    if any(record["machine"] != records[0]["machine"] for record in records):
        raise ValueError("the records are of machines or versions that differ")
    rows = {
        name: [row for record in records for row in record[name]] for name in ("timings", "memory")
    }
    return records[0] | rows


def _shape(text: str) -> Shape:
    numbers = [int(part) for part in text.split(",")]
    if len(numbers) not in (2, 3):
        raise argparse.ArgumentTypeError(f"a shape is D,V or D,V,K, got {text!r}")
    known = {(dim, size): levels for dim, size, levels in SHAPES}
    dim, size = numbers[:2]
    return dim, size, numbers[2] if len(numbers) == 3 else known.get((dim, size), 8)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the codebook lookup.")
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    parser.add_argument("--shapes", type=_shape, nargs="+", default=SHAPES, metavar="D,V[,K]")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    names = [each.name for each in CONTESTANTS]
    parser.add_argument("--only", nargs="+", choices=names, help="contestants to time; default all")
    parser.add_argument("--devices", choices=devices, nargs="+", default=devices)
    parser.add_argument("--repeats", type=int, default=9, help="rounds of a pair, at most")
    parser.add_argument("--budget", type=float, default=40.0, help="seconds a pair, about")
    parser.add_argument("--quick", action="store_true", help="two shapes, small sizes, few rounds")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--out", type=Path, default=_results(), help="folder of the tables")
    parser.add_argument(
        "--redraw",
        type=Path,
        nargs="+",
        help="measure nothing, read what --json wrote",
    )
    parser.add_argument(
        "--memory-10m", action="store_true", help="the memory of 10 million vectors"
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # what measure_memory starts
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shapes = ((8, 1024, 8), (64, 16, 46))
        arguments.sizes, arguments.repeats, arguments.budget = (500, 2_000), 3, 1.0
    return arguments


def _results() -> Path:
    return Path(__file__).parents[1] / "results" / "lookup"


def main() -> None:
    """Measure, or read an earlier record, and write the tables and the figure."""
    restart_without_thread_limits()
    arguments = _arguments()
    if arguments.memory_of:
        print(json.dumps(_memory_of(arguments.memory_of, arguments.shapes[0], arguments.sizes[0])))
        return
    if arguments.memory_10m:
        shape, count = TEN_MILLION
        if arguments.quick:
            count //= 1_000
        row = measure_memory(_OURS.name, shape, count)
        write_json(arguments.json, {"machine": machine(), "memory": row})
        write_memory(machine(), row, arguments.out)
        return
    if arguments.redraw:
        record = joined([json.loads(path.read_text(encoding="utf-8")) for path in arguments.redraw])
    else:
        record = measure(arguments)
        write_json(arguments.json, record)
    write_report(record, arguments.out)


if __name__ == "__main__":
    main()
