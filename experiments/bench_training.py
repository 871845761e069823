"""Benchmark a training step of the quantizer: forward and backward, with moving averages.

    python experiments/bench_training.py --json training.json   # about fifteen minutes, two cores
    python experiments/bench_training.py --quick --out /tmp/training
    python experiments/bench_training.py --redraw training.json

Each implementation gets the same latents and a quantizer of the same size whose codebooks exist,
and learns with decay 0.99 and replacement of dead entries. Peak memory is that of one step beyond
the quantizer and the latents, each in a process of its own.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lookup_peers import library
from reporting import machine_lines, markdown_table, verdict, write_csv, write_json, write_text
from timing import machine, mebibytes, peak_growth, restart_without_thread_limits, time_pair
from torch import Generator, Tensor

from neuralcodec.core import torchaudio_guard
from neuralcodec.quantize import ResidualVectorQuantizer

OUT = Path(__file__).parents[1] / "results" / "lookup"
Shape = tuple[int, int, int]
"""D, V, K: dimension of the latents, entries per codebook, number of codebooks."""

SHAPES: list[Shape] = [
    (64, 1024, 8),
    (128, 1024, 8),
    (128, 1024, 32),
    (256, 2048, 8),
    (512, 1024, 4),
    (32, 4096, 3),
    (96, 512, 6),
]
BATCH, FRAMES = 8, 150  # two seconds at 75 frames/s
PEERS = ("vector-quantize-pytorch", "encodec")
_TARGETS = {"vector-quantize-pytorch": 4.0, "encodec": 2.0}
_DECAY, _DEAD = 0.99, 2.0

Step = Callable[[], Tensor]


def latents(shape: Shape) -> Tensor:
    """Return Gaussian latents `[B, D, T]` that require gradients."""
    z = torch.randn(BATCH, shape[0], FRAMES, generator=Generator().manual_seed(0))
    return z.requires_grad_()


def _ours(shape: Shape, z: Tensor) -> Step:
    dim, size, levels = shape
    books = torch.randn(levels, size, dim, generator=Generator().manual_seed(1))
    rvq = ResidualVectorQuantizer.from_codebooks(books).train()

    def step() -> Tensor:
        result = rvq(z)
        loss: Tensor = result.quantized.square().mean() + result.commitment_loss
        return loss

    return step


def _vector_quantize_pytorch(shape: Shape, z: Tensor) -> Step:
    dim, size, levels = shape
    residual = library("vector_quantize_pytorch").ResidualVQ(
        dim=dim,
        num_quantizers=levels,
        codebook_size=size,
        decay=_DECAY,
        threshold_ema_dead_code=_DEAD,
    )
    residual.train()

    def step() -> Tensor:
        quantized, _, losses = residual(z.mT)
        loss: Tensor = quantized.square().mean() + losses.mean()
        return loss

    return step


def _encodec(shape: Shape, z: Tensor) -> Step:
    dim, size, levels = shape
    torchaudio_guard.load()
    quantization = library("encodec.quantization")
    quantizer = quantization.ResidualVectorQuantizer(
        dimension=dim,
        n_q=levels,
        bins=size,
        decay=_DECAY,
        kmeans_init=False,
        threshold_ema_dead_code=_DEAD,
    )
    quantizer.train()

    def step() -> Tensor:
        result = quantizer(z, 75)
        loss: Tensor = result.quantized.square().mean() + result.penalty
        return loss

    return step


MAKERS = {"ours": _ours, "vector-quantize-pytorch": _vector_quantize_pytorch, "encodec": _encodec}


def full_step(name: str, shape: Shape) -> Callable[[], None]:
    """Return a call of one implementation that does a forward and a backward pass."""
    torch.manual_seed(0)
    z = latents(shape)
    forward = MAKERS[name](shape, z)

    def step() -> None:
        z.grad = None
        forward().backward()  # type: ignore[no-untyped-call]

    return step


def memory_mib(name: str, shape: Shape) -> float:
    """Return the peak memory of a step in a new process."""
    command = [sys.executable, __file__, "--memory", name, *map(str, shape)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(out.split()[-1])


def _measure_memory(name: str, shape: Shape) -> None:
    full_step(name, (8, 16, 2))()  # loads the code of both passes
    step = full_step(name, shape)
    print(mebibytes(peak_growth(step)[0]))


def measure(shape: Shape, threads: int, rounds: int) -> dict[str, Any]:
    """Time a step of each implementation against ours; return a row."""
    torch.set_num_threads(threads)
    ours = full_step("ours", shape)
    row: dict[str, Any] = dict(zip(("dim", "codebook_size", "num_codebooks"), shape, strict=True))
    row["threads"] = threads
    for name in PEERS:
        pair = time_pair(ours, full_step(name, shape), rounds=rounds, budget_seconds=40)
        row["ours_ms"] = 1000 * min(pair.ours)
        row[f"{name}_ratio"] = pair.ratio
    print(json.dumps(row), flush=True)
    return row


def write_report(record: dict[str, Any], out: Path) -> None:
    """Write the report and the CSV file."""
    rows, memory = record["rows"], record["memory"]
    names = ("dim", "codebook_size", "num_codebooks", "threads", "ours_ms")
    keys = [*names, *(f"{name}_ratio" for name in PEERS)]
    table = markdown_table(
        ["D", "V", "K", "threads", "ours, ms", *PEERS], [[row[key] for key in keys] for row in rows]
    )
    sizes = markdown_table(
        ["D", "V", "K", "ours, MiB", *(f"{name}, MiB" for name in PEERS)],
        [[*row["shape"], row["ours"], *(row[name] for name in PEERS)] for row in memory],
    )
    claims = [
        verdict(
            f"smallest ratio, {name}",
            min(row[f"{name}_ratio"] for row in rows),
            _TARGETS[name],
            at_least=True,
        )
        for name in PEERS
    ]
    most = max(row["ours"] / min(row[name] for name in PEERS) for row in memory)
    claims.append(verdict("memory over the smaller of the others", most, 1.0, at_least=False))
    notes = (
        f"One step on {BATCH} x {FRAMES} latents: forward in training mode and backward. Columns "
        "named after other implementations are their time divided by ours, the median over rounds "
        "in which both ran one right after the other; above 1, ours is faster. Memory: the peak of "
        "the first step, beyond quantizer and latents."
    )
    write_text(
        out / "training.md",
        [
            "# A training step of the quantizer",
            machine_lines(record["machine"]),
            notes,
            markdown_table(["claim", "target", "measured", "met"], claims),
            table,
            sizes,
        ],
    )
    write_csv(out / "training.csv", rows)


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="of alternation, at most")
    parser.add_argument("--quick", action="store_true", help="one small shape only")
    parser.add_argument("--json", type=Path, help="where to keep all that was measured")
    parser.add_argument("--redraw", type=Path, help="write the report of such a file")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the report")
    parser.add_argument("--memory", nargs=4, help="print the memory of a step: NAME D V K")
    arguments = parser.parse_args()
    if arguments.memory:
        name, *sizes = arguments.memory
        dim, size, levels = map(int, sizes)
        _measure_memory(name, (dim, size, levels))
        return
    if arguments.redraw:
        write_report(json.loads(arguments.redraw.read_text(encoding="utf-8")), arguments.out)
        return
    restart_without_thread_limits()
    shapes: list[Shape] = [(8, 16, 2)] if arguments.quick else SHAPES
    most = torch.get_num_threads()
    rows = [
        measure(shape, threads, arguments.rounds)
        for shape in shapes
        for threads in dict.fromkeys((1, most))
    ]
    memory = [
        {"shape": shape, **{name: memory_mib(name, shape) for name in MAKERS}} for shape in shapes
    ]
    record = {"machine": machine(), "rows": rows, "memory": memory}
    write_json(arguments.json, record)
    write_report(record, arguments.out)


if __name__ == "__main__":
    main()
