"""Encode an hour of audio by the command line: memory, time and correctness of the codes.

    NEURALCODEC_WEIGHTS=FOLDER python experiments/long_audio.py

The script encodes and decodes an hour of concatenated recordings. It also encodes the minute from
30:00 alone, with a context of 10 s on either side, whose codes must equal those of the whole. It
writes `results/codecs/long_audio.md`.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch
from reporting import machine_lines, markdown_table, verdict, write_text
from timing import machine
from torch import Tensor

from neuralcodec import bitstream, weights
from neuralcodec.core import audio
from neuralcodec.core import loading as codecs
from neuralcodec.core.registry import REGISTRY
from neuralcodec.data import clips

OUT = Path(__file__).parents[1] / "results" / "codecs"
CODECS = {"encodec_24khz": 8, "lyra_v2": 46}
"""The codecs to measure, with their numbers of codebooks."""

_MINUTE, _CONTEXT = 60, 10  # seconds
_MOST_GIB = 3.0


def recording(minutes: int, sample_rate: int) -> Tensor:
    """Join the starter recordings, over and over, to wav `[1, T]`."""
    parts = [clip.read(sample_rate) for clip in clips("starter")]
    once = torch.cat(parts, dim=-1)
    length = minutes * _MINUTE * sample_rate
    return once.repeat(1, -(-length // once.shape[-1]))[:, :length]


def _run(*arguments: str | Path) -> float:
    """Run the command line; return the duration in seconds."""
    start = perf_counter()
    command = [sys.executable, "-m", "neuralcodec", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start


def _peak_gib() -> float:
    """Return the largest resident memory in GiB of all child processes so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 20)


def _differing(name: str, settings: dict[str, str], wav: Tensor, codes: Tensor) -> float:
    """Return the fraction of codes of the middle minute that change if it is encoded alone."""
    codec = codecs.load(name, **settings)
    rate, frames = codec.sample_rate, round(codec.frame_rates[0])
    middle = wav.shape[-1] // rate // 2
    cut = wav[:, (middle - _CONTEXT) * rate : (middle + _MINUTE + _CONTEXT) * rate]
    alone = torch.stack(codec.encode(cut[None], codes.shape[1]).streams, dim=1)
    alone = alone[..., _CONTEXT * frames : (_CONTEXT + _MINUTE) * frames]
    whole = codes[..., middle * frames : (middle + _MINUTE) * frames]
    return float((alone != whole).float().mean())


def measure(name: str, depth: int, minutes: int, folder: Path) -> list[object]:
    """Measure one codec; return its row."""
    here = all(weights.find(checkpoint) for checkpoint in REGISTRY[name].checkpoints)
    settings = {} if here else {"weights": "random"}
    facts = REGISTRY[name].facts
    rate = facts.sample_rate if facts else 16000
    source, coded, back = (folder / f"{name}{ending}" for ending in (".flac", ".nct", ".wav"))
    wav = recording(minutes, rate)
    audio.write(source, wav, rate)
    del wav
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    seconds = [
        _run("encode", source, coded, "--codec", name, "--num-codebooks", str(depth), *given),
        _run("decode", coded, back, *given),
    ]
    peak = _peak_gib()
    codes = bitstream.read(coded).tokens.codes
    assert isinstance(codes, Tensor)
    differing = _differing(name, settings, audio.read(source)[0], codes)
    length = minutes * _MINUTE
    kind = "published" if here else "random"
    size = coded.stat().st_size * 8 / length / 1000
    return [name, kind, depth, seconds[0] / length, seconds[1] / length, peak, size, differing]


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=60, help="of audio")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the report")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(name, depth, arguments.minutes, Path(folder)) for name, depth in CODECS.items()
        ]
    header = [
        *("codec", "weights", "codebooks", "encode, RTF", "decode, RTF"),
        *("peak so far, GiB", "file, kbit/s", "codes that differ"),
    ]
    peak = max(float(str(row[5])) for row in rows)
    differing = max(float(str(row[7])) for row in rows)
    write_text(
        arguments.out / "long_audio.md",
        [
            f"# {arguments.minutes} minutes of audio on the command line",
            machine_lines(machine()),
            markdown_table(header, rows),
            "RTF (real-time factor): seconds per second of audio, including the start of the "
            "program and reading and writing files. Peak: the largest resident memory of an "
            "encoding or decoding process in this and the rows above. Codes that differ: the share "
            "of the codes of the minute after the middle that change if this minute is encoded "
            f"with only {_CONTEXT} s of audio on either side.",
            markdown_table(
                ["claim", "target", "measured", "met"],
                [
                    verdict("peak memory of a process, GiB", peak, _MOST_GIB, at_least=False),
                    verdict("share of codes that differ", differing, 0.0, at_least=False),
                ],
            ),
        ],
    )


if __name__ == "__main__":
    main()
