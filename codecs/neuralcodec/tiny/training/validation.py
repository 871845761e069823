"""Scores of a model on held-out speakers, during and after training."""

from collections.abc import Sequence

import torch

from neuralcodec.data import Clip
from neuralcodec.metrics import score
from neuralcodec.tiny.codec import Tiny
from neuralcodec.tiny.model import SAMPLE_RATE, TinyModel

METRICS = ("pesq_wb", "stoi", "log_mel_distance", "si_sdr")


def choose(clips: Sequence[Clip], count: int) -> list[Clip]:
    """Return `count` clips of speech to score, from each speaker in turn, in a fixed order.

    Clips of unknown kind count as speech.
    """
    spoken = sorted(
        (clip for clip in clips if clip.kind in ("speech", "unknown")), key=lambda clip: clip.name
    )
    turns: dict[str, int] = {}
    order = []
    for clip in spoken:
        speaker = clip.speaker or clip.name
        turns[speaker] = turns.get(speaker, 0) + 1
        order.append((turns[speaker], clip.name, clip))
    return [clip for *_, clip in sorted(order, key=lambda entry: entry[:2])[:count]]


def depths(num_codebooks: int) -> list[int]:
    """Return the numbers of codebooks to score: powers of two, and all."""
    powers = [2**n for n in range(num_codebooks.bit_length()) if 2**n < num_codebooks]
    return [*powers, num_codebooks]


def validate(
    model: TinyModel, clips: Sequence[Clip], *, seconds: float, quantized: bool
) -> list[dict[str, float]]:
    """Return the mean scores of a model on clips.

    Args:
        model: in evaluation mode.
        clips: clips of speech.
        seconds: maximum duration that is used of each clip.
        quantized: whether the model has codebooks; otherwise only unquantized latents are scored.

    Returns:
        One row per number of codebooks, where 0 stands for unquantized latents. It has the means of
        METRICS over the clips for which the metric is defined, NaN if there are none, and the
        number of clips.
    """
    codec = Tiny.of(model)
    wavs = [clip.read(SAMPLE_RATE)[None, :, : round(seconds * SAMPLE_RATE)] for clip in clips]
    rows = []
    for depth in [0, *(depths(codec.num_codebooks) if quantized else [])]:
        scores = []
        for wav in wavs:
            if depth:
                estimate = codec.decode(codec.encode(wav, depth))
            else:
                with torch.no_grad():
                    estimate = codec.decode_latents(codec.encode_latents(wav), wav.shape[-1])
            scores.append(score(wav[0], estimate[0].cpu(), SAMPLE_RATE, [*METRICS], kind="speech"))
        row: dict[str, float] = {"num_codebooks": depth, "clips": len(wavs)}
        for name in METRICS:
            values = torch.tensor([each[name] for each in scores], dtype=torch.float64)
            row[name] = float(values.nanmean())
        rows.append(row)
    return rows
