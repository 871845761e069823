"""Benchmark one frame at a time, as a stream has it: encode and decode on one thread.

    python experiments/bench_streaming.py --json streaming.json   # some minutes
    python experiments/bench_streaming.py --quick --out /tmp/streaming
    python experiments/bench_streaming.py --redraw streaming.json

The peers are the quantizers of the packages themselves, with random codebooks, and ours has the
same codebooks, taken over by `from_encodec`, `from_huggingface` and
`from_vector_quantize_pytorch`.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lookup_peers import library
from reporting import machine_lines, markdown_table, write_csv, write_json, write_text
from timing import machine, restart_without_thread_limits, time_pair
from torch import Tensor

from neuralcodec.core import torchaudio_guard
from neuralcodec.quantize import ResidualVectorQuantizer

OUT = Path(__file__).parents[1] / "results" / "lookup"

Calls = tuple[Callable[[], Any], Callable[[], Any]]
"""Encode and decode of one frame."""


def _fill(module: torch.nn.Module) -> None:
    """Give random values to all codebooks of a module."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*module.named_buffers(), *module.named_parameters()):
        if name.endswith(("embed", "embed_avg", "embed_sum")):
            tensor.data.normal_(generator=generator)
        elif name.endswith(("cluster_usage", "cluster_size", "initialized", "inited")):
            tensor.data.fill_(1)


def _encodec(levels: int) -> tuple[Any, int, Calls]:
    torchaudio_guard.load()
    quantization = library("encodec.quantization")
    theirs = quantization.ResidualVectorQuantizer(dimension=128, n_q=levels, bins=1024)
    _fill(theirs)
    theirs.eval()
    z = torch.randn(1, 128, 1)
    codes = theirs.encode(z, 75)
    ours: Any = ResidualVectorQuantizer.from_encodec(theirs)
    return ours, 128, (lambda: theirs.encode(z, 75), lambda: theirs.decode(codes))


def _mimi() -> tuple[Any, int, Calls]:
    transformers = library("transformers")
    config = transformers.MimiConfig(num_quantizers=32)
    model = transformers.MimiModel(config).eval()
    _fill(model.quantizer)
    z = torch.randn(1, config.hidden_size, 1)
    theirs = model.quantizer
    codes = theirs.encode(z)
    ours: Any = ResidualVectorQuantizer.from_huggingface(model)
    return (
        ours,
        config.hidden_size,
        (lambda: theirs.encode(z), lambda: theirs.decode(codes.transpose(0, 1))),
    )


def _vector_quantize_pytorch(levels: int) -> tuple[Any, int, Calls]:
    theirs = library("vector_quantize_pytorch").ResidualVQ(
        dim=128, num_quantizers=levels, codebook_size=1024
    )
    _fill(theirs)
    theirs.eval()
    z = torch.randn(1, 1, 128)
    codes = theirs(z)[1]
    ours: Any = ResidualVectorQuantizer.from_vector_quantize_pytorch(theirs)
    return ours, 128, (lambda: theirs(z), lambda: theirs.get_output_from_indices(codes))


CASES: dict[str, Callable[[], tuple[Any, int, Calls]]] = {
    "encodec, 8 x 1024": lambda: _encodec(8),
    "encodec, 32 x 1024": lambda: _encodec(32),
    "vector-quantize-pytorch, 8 x 1024": lambda: _vector_quantize_pytorch(8),
    "transformers' Mimi, 32 x 2048": _mimi,
}


@torch.no_grad()
def measure(name: str, rounds: int) -> dict[str, Any]:
    """Time one frame of a quantizer and of ours with its codebooks; return a row."""
    ours, dim, (encode, decode) = CASES[name]()
    ours.eval()
    z: Tensor = torch.randn(1, dim, 1)
    codes = ours.encode(z)
    row: dict[str, Any] = {"quantizer": name}
    for what, mine, theirs in (
        ("encode", lambda: ours.encode(z), encode),
        ("decode", lambda: ours.decode(codes), decode),
    ):
        pair = time_pair(mine, theirs, rounds=rounds)
        row[f"{what}_ms"] = 1000 * median(pair.ours)
        row[f"{what}_ratio"] = pair.ratio
    print(json.dumps(row), flush=True)
    return row


def write_report(record: dict[str, Any], out: Path) -> None:
    """Write the report and the CSV file."""
    rows = record["rows"]
    keys = ("quantizer", "encode_ms", "encode_ratio", "decode_ms", "decode_ratio")
    header = ["quantizer", "encode, ms", "theirs / ours", "decode, ms", "theirs / ours"]
    write_text(
        out / "streaming.md",
        [
            "# One frame at a time",
            machine_lines(record["machine"]),
            "One frame, one thread, evaluation mode, without gradients: milliseconds of ours, the "
            "median of the rounds, and the time of the package divided by it, the median over "
            "rounds in which both ran one right after the other.",
            markdown_table(header, [[row[key] for key in keys] for row in rows]),
        ],
    )
    write_csv(out / "streaming.csv", rows)


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="of alternation, at most")
    parser.add_argument("--quick", action="store_true", help="the first quantizer only")
    parser.add_argument("--json", type=Path, help="where to keep all that was measured")
    parser.add_argument("--redraw", type=Path, help="write the report of such a file")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the report")
    arguments = parser.parse_args()
    if arguments.redraw:
        write_report(json.loads(arguments.redraw.read_text(encoding="utf-8")), arguments.out)
        return
    restart_without_thread_limits()
    torch.set_num_threads(1)
    names = list(CASES)[: 1 if arguments.quick else None]
    rows = [measure(name, arguments.rounds) for name in names]
    record = {"machine": machine(), "rows": rows}
    write_json(arguments.json, record)
    write_report(record, arguments.out)


if __name__ == "__main__":
    main()
