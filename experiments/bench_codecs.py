"""Benchmark the codecs: time, memory, parameters, delay, and the overhead of our wrappers.

    python experiments/bench_codecs.py [CODEC ...] [--seconds S] [--rounds N] [--json FILE]

Without names, all codecs with published weights in the registry are measured. Where the weights are
not on this machine, random ones are used, which take the same time. The script writes
`results/codecs/codecs.md` and `.csv`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from codec_peers import package
from reporting import machine_lines, markdown_table, verdict, write_csv, write_json, write_text
from timing import machine, peak_growth, restart_without_thread_limits, seconds_a_call, time_pair
from torch import Tensor

from neuralcodec import weights
from neuralcodec.core import loading as codecs
from neuralcodec.core.audio import resample
from neuralcodec.core.codec import Codec
from neuralcodec.core.registry import REGISTRY
from neuralcodec.data import clips

OUT = Path(__file__).parents[1] / "results" / "codecs"
_MOST_ADDED = 1.03
_MIB = 1 << 20


def _published(name: str) -> bool:
    """Return whether the published weights of a codec are on this machine."""
    return all(weights.find(checkpoint) for checkpoint in REGISTRY[name].checkpoints)


def load(name: str) -> Any:
    """Return a codec, with random weights if the published ones are not on this machine."""
    return codecs.load(name) if _published(name) else codecs.load(name, weights="random")


def speech(codec: Any, seconds: float) -> Tensor:
    """Give `[1, C, T]` of real speech at the codec's rate."""
    parts = [clip.read(16000) for clip in clips("starter:test")]
    wav = torch.cat(parts, dim=-1)[:, : round(seconds * 16000)]
    wav = resample(wav, 16000, codec.sample_rate)
    return wav.expand(codec.channels, -1)[None].contiguous()


def calls(codec: Any, wav: Tensor) -> tuple[Any, Any]:
    """Give our encode and decode, or those of latents where there are no codebooks."""
    if codec.num_codebooks:
        tokens = codec.encode(wav)
        return lambda: codec.encode(wav), lambda: codec.decode(tokens)
    analyse, synthesise = map(torch.no_grad(), (codec.encode_latents, codec.decode_latents))
    z = analyse(wav)
    return lambda: analyse(wav), lambda: synthesise(z, wav.shape[-1])


def delay_ms(codec: Codec) -> float | None:
    """Give how long after a sample went in it may come out: a frame, and what is looked ahead."""
    ahead = 0
    if codec.hop_length is None:
        return None
    if not codec.is_causal:
        if codec.decode_context is None:
            return None
        ahead = (codec.encode_context or 0) + codec.decode_context
    return float((1 + ahead) * codec.hop_length / codec.sample_rate * 1000)


def parameters(codec: Any) -> float | None:
    """Count the weights of the network in millions."""
    count = sum(parameter.numel() for parameter in codec.parameters())
    return count / 1e6 if count else None


def memory_mib(name: str, seconds: float) -> float:
    """Return the memory of encoding and decoding in addition to the model, from a new process."""
    command = [sys.executable, __file__, name, "--seconds", str(seconds), "--memory"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(out.split()[-1])


def _measure_memory(name: str, seconds: float) -> None:
    codec = load(name)
    wav = speech(codec, seconds)

    def both() -> None:
        for call in calls(codec, wav):
            call()

    print(peak_growth(both)[0] / _MIB)


def measure(name: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure one codec; return its row."""
    codec = load(name)
    wav = speech(codec, seconds)
    encode, decode = calls(codec, wav)
    row: dict[str, Any] = {"codec": name, "seconds": seconds, "parameters_m": parameters(codec)}
    peer = package(codec, wav)
    ratios: dict[str, float | None] = {"encode_over_package": None, "decode_over_package": None}
    times = {}
    for what, ours in (("encode", encode), ("decode", decode)):
        if peer is None:
            times[what] = min(seconds_a_call(ours) for _ in range(3))
            continue
        with torch.inference_mode():
            pair = time_pair(ours, getattr(peer, what), rounds=rounds, budget_seconds=120)
        times[what] = min(pair.ours)
        ratios[f"{what}_over_package"] = 1 / pair.ratio
    row |= {f"{what}_rtf": spent / seconds for what, spent in times.items()}
    row |= ratios
    row |= {"memory_mib": memory_mib(name, seconds), "delay_ms": delay_ms(codec)}
    row["delay_removed_samples"] = codec.delay_samples
    row["weights"] = "published" if _published(name) else "random"
    return row


def write_report(record: dict[str, Any], out: Path) -> None:
    """Write the report and the CSV file."""
    rows = record["codecs"]
    header = [
        *("codec", "weights", "clip, s", "parameters, M", "encode, RTF", "decode, RTF"),
        *("encode / package", "decode / package", "memory, MiB", "delay, ms", "removed, samples"),
    ]
    keys = "codec weights seconds parameters_m encode_rtf decode_rtf encode_over_package"
    keys += " decode_over_package memory_mib delay_ms delay_removed_samples"
    table = markdown_table(header, [[row[key] for key in keys.split()] for row in rows])
    added = [
        row[f"{what}_over_package"]
        for row in rows
        for what in ("encode", "decode")
        if row[f"{what}_over_package"] is not None
    ]
    claim = verdict(
        "largest ratio of a wrapper's time to its package's",
        max(added, default=None),
        _MOST_ADDED,
        at_least=False,
    )
    notes = (
        "RTF (real-time factor): computing time per second of audio with all codebooks, in the "
        "fastest round. encode / package and decode / package: our time divided by that of the "
        "same network called through its package, the median of alternating rounds; - if there is "
        "no such call. Memory: the peak while the clip is encoded and decoded, without the model. "
        "Delay: one frame, plus, for networks that are not causal, the later frames that encoder "
        "and decoder depend on; - if they depend on the whole clip. Removed: by how many samples "
        "the output of the package is late (negative: early), which the wrapper compensates for."
    )
    write_text(
        out / "codecs.md",
        [
            "# Time, memory and delay of the codecs",
            machine_lines(record["machine"]),
            table,
            notes,
            markdown_table(["claim", "target", "measured", "met"], [claim]),
        ],
    )
    write_csv(out / "codecs.csv", rows)


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("codecs", nargs="*", help="names; default all neural ones")
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio")
    parser.add_argument("--rounds", type=int, default=9, help="of alternation, at most")
    parser.add_argument("--json", type=Path, help="where to keep all that was measured")
    parser.add_argument("--redraw", type=Path, nargs="+", help="write the report of such files")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the report")
    parser.add_argument("--memory", action="store_true", help="print the memory of one codec")
    arguments = parser.parse_args()
    if arguments.memory:
        _measure_memory(arguments.codecs[0], arguments.seconds)
        return
    if arguments.redraw:
        records = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.redraw]
        rows = list({row["codec"]: row for each in records for row in each["codecs"]}.values())
        write_report({"machine": records[0]["machine"], "codecs": rows}, arguments.out)
        return
    restart_without_thread_limits()
    names = arguments.codecs or [name for name, entry in REGISTRY.items() if entry.checkpoints]
    rows = []
    for name in names:
        rows.append(measure(name, arguments.seconds, arguments.rounds))
        print(json.dumps(rows[-1]), flush=True)
    record = {"machine": machine(), "codecs": rows}
    write_json(arguments.json, record)
    write_report(record, arguments.out)


if __name__ == "__main__":
    main()
