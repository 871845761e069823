"""Tables on the terminal."""

import typer


def table(header: list[str], lines: list[list[str]]) -> None:
    """Print a header and lines in columns, each as wide as its widest cell."""
    cells = [header, *lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    for line in cells:
        typer.echo("  ".join(map(str.ljust, line, widths)).rstrip())
