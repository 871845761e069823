"""Measure the codebook usage of the tiny codecs on ten minutes of unseen speech.

    apt-get install asterisk-core-sounds-it-g722 asterisk-core-sounds-ru-g722
    python experiments/tiny_usage.py

The speech is of two voices that are in no training set, five minutes each, encoded greedily. An
entry counts as used if it occurs at least once; the entropy, at most 10 bits, measures how evenly
entries are used. The script writes `results/tiny/usage.md`.
"""

import argparse
from pathlib import Path

import torch
from reporting import markdown_table, write_text

from neuralcodec import load
from neuralcodec.core.registry import REGISTRY
from neuralcodec.data import clips
from neuralcodec.quantize import statistics
from neuralcodec.tiny.model import SAMPLE_RATE

SOUNDS = Path("/usr/share/asterisk/sounds")
VOICES = [SOUNDS / "it_IT_m_Carlo", SOUNDS / "ru_RU_f_IvrvoiceRU"]
OUT = Path(__file__).parents[1] / "results" / "tiny" / "usage.md"


def speech(folder: Path, seconds: float) -> torch.Tensor:
    """Concatenate the recordings of a folder in the order of names to `[seconds * SAMPLE_RATE]`.

    Raises:
        ValueError: if the folder holds less audio.
    """
    wanted = round(seconds * SAMPLE_RATE)
    parts, length = [], 0
    for clip in clips(folder):
        parts.append(clip.read(SAMPLE_RATE)[0])
        length += len(parts[-1])
        if length >= wanted:
            return torch.cat(parts)[:wanted]
    raise ValueError(f"{folder} must hold {seconds:g} s of speech, it holds {length / SAMPLE_RATE}")


def main() -> None:
    """Encode, count and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="*", type=Path, default=VOICES)
    parser.add_argument("--seconds", type=float, default=600.0)
    given = parser.parse_args()
    each = given.seconds / len(given.folders)
    wavs = [speech(folder, each) for folder in given.folders]
    rows = []
    for name in (name for name in REGISTRY if name.startswith("tiny_")):
        codec = load(name)
        codes = [torch.stack(codec.encode(wav).streams, dim=1) for wav in wavs]
        counts = statistics.histogram(codes, codec.codebook_sizes)
        frames = sum(part.shape[-1] for part in codes)
        used = statistics.usage(counts, codec.codebook_sizes) * 100
        rows.append([name, frames, "used, %", *used.tolist()])
        rows.append([name, frames, "entropy, bits", *statistics.entropy(counts).tolist()])
    columns = ["codec", "frames", "per codebook", *map(str, range(1, 9))]
    voices = ", ".join(folder.name for folder in given.folders)
    write_text(
        OUT,
        [
            "# Codebook usage on unseen speech",
            f"`python experiments/tiny_usage.py`: {given.seconds:g} s of speech by the voices "
            f"{voices}. Used: share of the entries that occur at least once. Entropy: of the "
            "distribution of the codes, at most 10 bits.",
            markdown_table(columns, rows),
        ],
    )
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
