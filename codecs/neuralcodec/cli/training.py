"""The command `neuralcodec train`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def train(
    file: Annotated[
        Path, typer.Argument(help="TOML file, such as experiments/train/tiny_50hz.toml.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of state, tables and model; default training/NAME."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Stop after this step; default the last one.", min=1)
    ] = None,
) -> None:
    """Train a tiny codec, or continue a training that was stopped.

    Processes that torchrun starts share each batch, for example
    `torchrun --nproc-per-node 2 -m neuralcodec train FILE`.
    """
    from neuralcodec.core.files import expanded
    from neuralcodec.tiny.training import recipe as recipes
    from neuralcodec.tiny.training import train as training
    from neuralcodec.tiny.training.trainer import Diverged

    recipe = recipes.read(file)
    out = expanded(out or Path("training") / recipe.name)
    try:
        model = training.train(recipe, out, steps=steps, progress=sys.stderr.isatty())
    except KeyboardInterrupt:
        typer.echo("neuralcodec: stopped; go on with the same command", err=True)
        raise typer.Exit(130) from None
    except Diverged as error:
        typer.echo(f"neuralcodec: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"model: {model}")
    typer.echo(f"curves: {out / training.LOG}, {out / training.SCORES}")
