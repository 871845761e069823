"""`neuralcodec check`."""

import json
from typing import Annotated, Any

import typer

from neuralcodec.cli.table import table


def _value(text: str) -> Any:
    """Read a number, true or false; whatever else stays a word."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _settings(pairs: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(f"--set takes key=value, got {pair!r}")
        if key in found:
            raise ValueError(f"--set {key} is there twice")
        found[key] = _value(value)
    return found


def check(
    codec: Annotated[str, typer.Argument(help="Name, as `neuralcodec list` gives it.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the codec; may be given again.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="File or folder; 'random' for the network alone.")
    ] = None,
) -> None:
    """Try whether a codec keeps what its kind promises; exit status 1 if not."""
    from neuralcodec import check as checks
    from neuralcodec.codec import load

    given = _settings(settings or [])
    if weights is not None:
        given["weights"] = weights
    results = checks.run(load(codec, **given), trained=given.get("weights") != "random")
    table(
        ["line", "result", "measured", "asked for", "what, or why not"],
        [[r.name, r.status, r.measured, r.bound, r.explanation] for r in results],
    )
    failed = sum(result.status == "fail" for result in results)
    passed = sum(result.status == "pass" for result in results)
    typer.echo(f"{codec}: {passed} pass, {failed} fail, {len(results) - passed - failed} n.a.")
    if failed:
        raise typer.Exit(1)
