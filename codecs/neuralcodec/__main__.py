"""The command line of neuralcodec; the commands are in `neuralcodec.cli`."""

import sys
from typing import Annotated

import typer

from neuralcodec.cli import check, coding, listing, scoring, sweeps, training, weights

app = typer.Typer(
    help="What does a token buy? A research toolkit for neural audio codecs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(listing.list_codecs)
app.command()(sweeps.sweep)
app.command()(sweeps.plot)
app.command()(scoring.metrics)
app.command()(check.check)
app.command()(training.train)
app.command()(coding.encode)
app.command()(coding.decode)
app.command()(coding.info)
app.add_typer(weights.app, name="weights")


def _show_version(wanted: bool) -> None:
    if wanted:
        from neuralcodec import __version__

        typer.echo(f"neuralcodec {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


def _reason(error: Exception) -> str:
    """Return what an error says; of one that Python raises for a file, without its number."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def main() -> None:
    """Run the command line; an error that the user can fix is one line, with exit status 1."""
    try:
        app()
    except (ValueError, ImportError, OSError) as error:
        typer.echo(f"neuralcodec: {_reason(error)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
