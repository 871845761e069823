"""`neuralcodec check`."""

from typing import Annotated

import typer

from neuralcodec.cli.settings import build, codec_names, parse
from neuralcodec.cli.table import table


def check(
    codec: Annotated[
        str, typer.Argument(help="Name, as in `neuralcodec list`.", autocompletion=codec_names)
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Setting KEY=VALUE; may be repeated.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="File or folder, or 'random' for random weights.")
    ] = None,
) -> None:
    """Check that a codec keeps the contracts of its class; exit status 1 if it does not."""
    from neuralcodec import check as checks

    given = parse(settings)
    if weights is not None:
        given["weights"] = weights
    results = checks.run(build(codec, given), trained=given.get("weights") != "random")
    table(
        ["line", "result", "measured", "required", "explanation"],
        [[r.name, r.status, r.measured, r.bound, r.explanation] for r in results],
    )
    failed = sum(result.status == "fail" for result in results)
    passed = sum(result.status == "pass" for result in results)
    typer.echo(f"{codec}: {passed} pass, {failed} fail, {len(results) - passed - failed} n.a.")
    if failed:
        raise typer.Exit(1)
