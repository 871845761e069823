"""Benchmark the fitting of codebooks to speech latents, and beam search, against FAISS.

    python experiments/bench_fit.py --json fit.json    # about twenty minutes on two cores
    python experiments/bench_fit.py --quick --out /tmp/fit
    python experiments/bench_fit.py --redraw fit.json  # tables and figures from the record

The latents are those of Lyra v2, from recordings in two folders with a `manifest.csv` each; they
are computed once and cached. The script needs the packages of the extra `bench`.
"""

import argparse
import importlib.util
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import lyra_latents
import torch
from fit_report import write_beam, write_fit
from fitting import (
    FITS,
    OURS,
    FaissEncoder,
    Split,
    fit_ours,
    nmse,
    quantized,
    quantizer_of,
    split_speakers,
    truncated,
)
from reporting import write_json
from timing import machine, restart_without_thread_limits, seconds_a_call, time_pair
from torch import Tensor

from neuralcodec.data import clips

SHARED = Path("..", "shared")
LENGTHS = (2, 4, 8, 16, 30, 46)  # the last three are those of Lyra: 3.2, 6 and 9.2 kbit/s
BEAM_WIDTH = 16
RACED_WIDTHS = (5, 16)  # FAISS's default, and the width of our claims

_FIT_FRAMES = 95_000
_SCORE_FRAMES = 20_000
_RACE_FRAMES = 4_000
_NUM_CODEBOOKS, _CODEBOOK_SIZE = 8, 1024


def _timed(fit: Callable[[], Tensor]) -> tuple[float, Tensor]:
    kept: list[Tensor] = []
    return seconds_a_call(lambda: kept.append(fit())), kept[0]


def _faiss_nmse(codebooks: Tensor, z: Tensor, beam_width: int) -> float | None:
    if importlib.util.find_spec("faiss") is None:
        return None
    encoder = FaissEncoder.of(codebooks, beam_width)
    codes = encoder.codes(encoder.encode(z.numpy()))
    return nmse(z, quantized(quantizer_of(codebooks), codes))


def score(name: str, codebooks: Tensor, seconds: list[float], split: Split) -> dict[str, Any]:
    """Score codebooks on unseen speakers by both searches, with our encoder and with FAISS's."""
    rvq, z = quantizer_of(codebooks), split.score
    row: dict[str, Any] = {"fit": name, "seconds": median(seconds), "all_seconds": seconds}
    for label, width in (("greedy", 1), (f"beam{BEAM_WIDTH}", BEAM_WIDTH)):
        codes = rvq.encode(z.T[None], beam_width=width)
        row[f"nmse_{label}"] = nmse(z, quantized(rvq, codes))
        row[f"nmse_{label}_faiss_encoder"] = _faiss_nmse(codebooks, z, width)
    print(row, flush=True)
    return row


def fit_all(split: Split, depth: int, size: int) -> tuple[list[dict[str, Any]], Tensor]:
    """Fit with all installed methods, with ours before and after each of the others.

    Returns:
        One row per method, and our codebooks.
    """
    fit_ours(split.fit[: 4 * size], depth, size)  # compiles the kernels
    mine = partial(fit_ours, split.fit, depth, size)
    ours_seconds, rows = [], []
    seconds, codebooks = _timed(mine)
    ours_seconds.append(seconds)
    for name, (package, fit) in FITS.items():
        if importlib.util.find_spec(package) is None:
            print(f"{name}: not installed", flush=True)
            continue
        seconds, books = _timed(partial(fit, split.fit, depth, size))
        rows.append(score(name, books, [seconds], split))
        ours_seconds.append(_timed(mine)[0])
    return [score(OURS, codebooks, ours_seconds, split), *rows], codebooks


def beam_rows(codebooks: Tensor, z: Tensor) -> list[dict[str, Any]]:
    """Compare greedy codes, beam-search codes of each length, and truncated codes of full length.

    Args:
        codebooks: Lyra's, `[46, 16, 64]`.
        z: latents, `[N, 64]`.
    """
    rvq = quantizer_of(codebooks)
    greedy = truncated(rvq.encode(z.T[None]), LENGTHS)
    best = rvq.encode(z.T[None], beam_width=BEAM_WIDTH, prefix_lengths=LENGTHS)
    cut = truncated(best[-1], LENGTHS)
    rows = []
    for length, *codes in zip(LENGTHS, greedy, best, cut, strict=True):
        errors = [nmse(z, quantized(rvq, each)) for each in codes]
        rows.append(
            {
                "num_codebooks": length,
                "bitrate_kbps": length * 4 * 50 / 1000,
                "nmse_greedy": errors[0],
                "nmse_beam": errors[1],
                "below_greedy_percent": 100 * (1 - errors[1] / errors[0]),
                "nmse_cut": errors[2],
                "cut_below_greedy_percent": 100 * (1 - errors[2] / errors[0]),
            }
        )
    return rows


def race(name: str, codebooks: Tensor, z: Tensor, width: int, *, tables: bool) -> dict[str, Any]:
    """Time our beam search against FAISS's with the same codebooks, vectors and beam width."""
    rvq, theirs = quantizer_of(codebooks), FaissEncoder.of(codebooks, width, tables=tables)
    latents, array = z.T[None].contiguous(), z.numpy()
    pair = time_pair(
        partial(rvq.encode, latents, beam_width=width), partial(theirs.encode, array), rounds=5
    )
    codes = rvq.encode(latents, beam_width=width), theirs.codes(theirs.encode(array))
    row = {
        "codebooks": name,
        "dim": codebooks.shape[2],
        "codebook_size": codebooks.shape[1],
        "num_codebooks": codebooks.shape[0],
        "vectors": len(z),
        "beam_width": width,
        "faiss": "tables" if tables else "default",
        "ours_vectors_a_second": len(z) / median(pair.ours),
        "faiss_vectors_a_second": len(z) / median(pair.theirs),
        "ratio": pair.ratio,
        "lowest_ratio": min(pair.ratios),
        "highest_ratio": max(pair.ratios),
        "ours_nmse": nmse(z, quantized(rvq, codes[0])),
        "faiss_nmse": nmse(z, quantized(rvq, codes[1])),
        "all_ours_seconds": pair.ours,
        "all_faiss_seconds": pair.theirs,
    }
    print({key: value for key, value in row.items() if "all" not in key}, flush=True)
    return row


def races(lyra: Tensor, fitted: Tensor, z: Tensor) -> list[dict[str, Any]]:
    """Time both beam searches for both sets of codebooks, with and without FAISS's tables."""
    if importlib.util.find_spec("faiss") is None:
        print("faiss: not installed", flush=True)
        return []
    return [
        race(name, books, z, width, tables=tables)
        for name, books in (("Lyra's own", lyra), ("fitted by ours", fitted))
        for width in RACED_WIDTHS
        for tables in (False, True)
    ]


@torch.no_grad()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compute the latents, fit, encode, and return the record of all measurements."""
    weights, cache = arguments.weights, arguments.cache
    train = clips(arguments.train)
    heard = [clip for clip in clips(arguments.eval) if "(en" in clip.speaker]
    depth, size = _NUM_CODEBOOKS, _CODEBOOK_SIZE
    fit_frames, score_frames, race_frames = _FIT_FRAMES, _SCORE_FRAMES, _RACE_FRAMES
    if arguments.quick:
        train = [clip for clip in train if clip.speaker.startswith("pico_")][::20]
        depth, size = 2, 64
        fit_frames, score_frames, race_frames = 4_000, 500, 200
    latents = lyra_latents.latents(train, weights, cache)
    english = lyra_latents.latents(heard, weights, cache)
    split = split_speakers(latents, fit_frames, score_frames, arguments.seed)
    lyra = lyra_latents.codebooks(weights)
    fits, fitted = fit_all(split, depth, size)
    return {
        "machine": machine(),
        "seed": arguments.seed,
        "num_codebooks": depth,
        "codebook_size": size,
        "fit_frames": len(split.fit),
        "fit_speakers": split.fit_speakers,
        "score_frames": len(split.score),
        "score_speakers": split.score_speakers,
        "beam_width": BEAM_WIDTH,
        "fits": fits,
        "english_clips": len(heard),
        "english_frames": len(english.vectors),
        "beam": beam_rows(lyra, english.vectors),
        "races": races(lyra, fitted, split.score[:race_frames].contiguous()),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fit and beam-search codebooks against FAISS.")
    root = Path(__file__).parents[1]
    parser.add_argument("--train", type=Path, default=root / SHARED / "audio" / "train")
    parser.add_argument("--eval", type=Path, default=root / SHARED / "audio" / "eval")
    parser.add_argument("--weights", type=Path, default=root / SHARED / "models" / "lyra")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "neuralcodec")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of speakers")
    parser.add_argument("--quick", action="store_true", help="small codebooks, few latents")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--out", type=Path, default=root / "results" / "lookup")
    parser.add_argument("--redraw", type=Path, help="measure nothing, read what --json wrote")
    return parser.parse_args()


def main() -> None:
    """Measure, or read an earlier record, and write the tables and figures."""
    restart_without_thread_limits()
    arguments = _arguments()
    if arguments.redraw:
        record = json.loads(arguments.redraw.read_text(encoding="utf-8"))
    else:
        record = measure(arguments)
        write_json(arguments.json, record)
    write_fit(record, arguments.out)
    write_beam(record, arguments.out)


if __name__ == "__main__":
    main()
