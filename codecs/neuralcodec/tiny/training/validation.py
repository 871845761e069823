"""Scores of a model on speakers that it never heard, while it trains and when it is done."""

from collections.abc import Sequence

import torch

from neuralcodec.data import Clip
from neuralcodec.metrics import score
from neuralcodec.tiny.codec import Tiny
from neuralcodec.tiny.model import SAMPLE_RATE, TinyModel

METRICS = ("pesq_wb", "stoi", "log_mel_distance", "si_sdr")


def choose(clips: Sequence[Clip], count: int) -> list[Clip]:
    """Take clips of speech to score, one of each speaker in turn, in an order that never changes.

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
    """List the numbers of codebooks that are scored: powers of two, and all."""
    powers = [2**n for n in range(num_codebooks.bit_length()) if 2**n < num_codebooks]
    return [*powers, num_codebooks]


def validate(
    model: TinyModel, clips: Sequence[Clip], *, seconds: float, quantized: bool
) -> list[dict[str, float]]:
    """Score a model.

    Args:
        model: in evaluation mode.
        clips: of speech.
        seconds: of each at most.
        quantized: whether it has codebooks yet; without, its latents are decoded as they are.

    Returns:
        A row for each number of codebooks, 0 for latents as they are: means of METRICS over the
        clips that have the score, and how many clips there are.
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
                estimate = codec.decode_latents(codec.encode_latents(wav), wav.shape[-1])
            scores.append(score(wav[0], estimate[0].cpu(), SAMPLE_RATE, [*METRICS], kind="speech"))
        row: dict[str, float] = {"num_codebooks": depth, "clips": len(wavs)}
        for name in METRICS:
            values = torch.tensor([each[name] for each in scores], dtype=torch.float64)
            row[name] = float(values.nanmean())
        rows.append(row)
    return rows
