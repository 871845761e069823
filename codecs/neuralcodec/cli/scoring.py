"""The command `neuralcodec metrics`."""

from pathlib import Path
from typing import Annotated

import typer

from neuralcodec.cli.table import table


def metrics(
    reference: Annotated[Path, typer.Argument(help="Original audio file.")],
    estimate: Annotated[Path, typer.Argument(help="Decoded audio file of the same length.")],
    kind: Annotated[str, typer.Option(help="Content: speech, music or sound.")] = "speech",
    metric: Annotated[
        list[str] | None, typer.Option(help="Name of a metric; may be repeated.")
    ] = None,
) -> None:
    """Score an audio file against its reference.

    Both are mixed down to one channel, and the estimate is resampled to the reference's rate.
    """
    from neuralcodec.core import audio
    from neuralcodec.metrics import DEFAULT, find, score

    wanted, rate = audio.read(reference)
    got, got_rate = audio.read(estimate)
    if got_rate != rate:
        typer.echo(f"{estimate} resampled from {got_rate} to {rate} Hz", err=True)
        got = audio.resample(got, got_rate, rate)
        rounding = -(-rate // got_rate)  # one sample, by which its length was rounded, resampled
        if abs(got.shape[-1] - wanted.shape[-1]) <= rounding:
            got = audio.fit_length(got, wanted.shape[-1])
    scores = score(
        audio.mix_down(wanted), audio.mix_down(got), rate, metrics=metric or DEFAULT, kind=kind
    )
    table(
        ["metric", "value", "unit", "better", "range", "note"],
        [
            [
                name,
                f"{value:.4f}",
                find(name).unit,
                "higher" if find(name).higher_is_better else "lower",
                f"{find(name).low:g} .. {find(name).high:g}",
                scores.reasons.get(name, ""),
            ]
            for name, value in scores.items()
        ],
    )
