"""The commands `neuralcodec weights list | fetch | verify`."""

from typing import TYPE_CHECKING, Annotated

import typer

from neuralcodec.cli.table import table

if TYPE_CHECKING:  # commands import what they need when they run, so that others start quickly
    from neuralcodec.weights import Checkpoint

app = typer.Typer(help="List, download and verify the weights of codecs.", no_args_is_help=True)

_Names = Annotated[list[str] | None, typer.Argument(help="Names of codecs or checkpoints.")]


def _expand(names: list[str]) -> list[str]:
    """Return the checkpoints of `names`, each once; a codec stands for all that it loads."""
    from neuralcodec import weights
    from neuralcodec.core.names import unknown
    from neuralcodec.core.registry import REGISTRY

    found: dict[str, None] = {}
    for name in names:
        if name in REGISTRY and not REGISTRY[name].checkpoints:
            raise ValueError(f"codec {name!r} loads no checkpoint")
        if name not in REGISTRY and name not in weights.CHECKPOINTS:
            raise unknown("codec or checkpoint", name, {*REGISTRY, *weights.CHECKPOINTS})
        found |= dict.fromkeys(REGISTRY[name].checkpoints if name in REGISTRY else (name,))
    return list(found)


def _known(entry: "Checkpoint") -> str:
    if entry.sha256 is None:
        return "of the first download"
    return "sha256" if entry.is_pinned else f"sha256, {len(entry.sha256)} digits"


@app.command("list")
def list_checkpoints() -> None:
    """List all checkpoints with licence, known checksum and whether they are on this machine."""
    from neuralcodec import weights

    lines = []
    for name, entry in weights.CHECKPOINTS.items():
        here = weights.find(name)
        state = f"here ({here})" if here else "not here"
        lines.append([name, entry.path, entry.licence, _known(entry), state])
    table(["checkpoint", "file", "licence", "checksum", "state"], lines)


def _get(name: str, *, force: bool) -> str:
    """Fetch a checkpoint if necessary and return a message about the result."""
    from neuralcodec import weights

    here = weights.find(name)
    if here is not None and here.is_relative_to(weights.cache()) and force:
        here = None
    if here is None:
        return f"{weights.fetch(name, again=force)}: downloaded"
    if force:
        raise ValueError(f"{here} comes before the cache; remove it there to download {name}")
    checked = weights.check(name, here)
    return f"{here}: here, {'checked' if checked else 'no checksum known'}"


@app.command()
def fetch(
    names: _Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Fetch all checkpoints.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Download again what is in the cache.")
    ] = False,
) -> None:
    """Download checkpoints that are not on this machine."""
    from neuralcodec import weights

    if bool(names) == everything:
        raise ValueError("name codecs or checkpoints, or give --all")
    failed = False
    for name in list(weights.CHECKPOINTS) if everything else _expand(names or []):
        try:
            typer.echo(f"{name} ({weights.CHECKPOINTS[name].licence}) {_get(name, force=force)}")
        except (OSError, ValueError) as error:
            typer.echo(f"neuralcodec: {error}", err=True)
            failed = True
        except KeyboardInterrupt:
            typer.echo("neuralcodec: stopped; run it again to go on", err=True)
            raise typer.Exit(130) from None
    raise typer.Exit(int(failed))


@app.command()
def verify(names: _Names = None) -> None:
    """Verify the checksums of files on this machine; exit status 1 if one is wrong or missing."""
    from neuralcodec import weights
    from neuralcodec.weights.registry import digest

    wanted = _expand(names or []) or [name for name in weights.CHECKPOINTS if weights.find(name)]
    failed = False
    for name in wanted:
        here = weights.find(name)
        try:
            if here is None:
                raise ValueError(f"{name} is not here: neuralcodec weights fetch {name}")
            known = weights.check(name, here)
            state = "right" if known else f"no checksum known, sha256 is {digest(here)}"
            typer.echo(f"{name} {here}: {state}")
        except (OSError, ValueError) as error:
            typer.echo(f"neuralcodec: {error}", err=True)
            failed = True
    if not wanted:
        typer.echo("no checkpoint is here")
    raise typer.Exit(int(failed))
