"""The command `neuralcodec list`."""

from typing import TYPE_CHECKING, Annotated

import typer

from neuralcodec.cli.table import table

if TYPE_CHECKING:
    import pandas as pd

_SHORT = {
    "codec": "codec",
    "audio": "kHz",
    "frame_rates": "frames/s",
    "codebooks": "K",
    "entries": "V",
    "kbps": "kbit/s",
    "runs": "runs",
}

_LONGEST = 10
"""Characters of the longest list that is shown whole."""


def _cells(codecs: "pd.DataFrame", columns: list[str]) -> list[list[str]]:
    shown = codecs.assign(
        audio=[
            "" if rate != rate else f"{rate / 1000:g}" + (" x2" if channels == 2 else "")
            for rate, channels in zip(codecs["sample_rate"], codecs["channels"], strict=True)
        ],
        runs=["yes" if runs else "no" for runs in codecs["runs"]],
    )
    return [[_text(value) for value in row] for row in shown[columns].itertuples(index=False)]


def _text(value: object) -> str:
    if value is None or value != value:  # NaN
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shortened(text: str) -> str:
    """Return a long list of numbers as its first and its last one."""
    parts = text.split(" ")
    long = len(parts) > 2 and len(text) > _LONGEST
    return f"{parts[0]}..{parts[-1]}" if long else text


def list_codecs(
    long: Annotated[bool, typer.Option("--long", help="Show all columns.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write all columns as CSV.")] = False,
) -> None:
    """List all codecs with their rates at default settings and whether they run here."""
    from neuralcodec.weights.listing import list_codecs as listed

    codecs = listed()
    if csv:
        typer.echo(codecs.to_csv(index=False), nl=False)
        return
    if long:
        table(list(codecs.columns), _cells(codecs, list(codecs.columns)))
        return
    lines = [[_shortened(cell) for cell in line] for line in _cells(codecs, list(_SHORT))]
    table(list(_SHORT.values()), lines)
    typer.echo(
        "\nany: latents only; NAME+rvq fits a quantizer of any K and V on them.\n"
        "--long shows settings, weights, and why a codec does not run here."
    )
