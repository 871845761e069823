"""The commands `neuralcodec sweep | plot`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def _is_results(path: Path) -> bool:
    """Return whether a file begins as the table of a sweep does."""
    with path.open("rb") as file:
        return file.read(64).startswith(b"codec,num_codebooks,")


def _check_results(path: Path, inputs: Sequence[str | Path], force: bool) -> None:
    """Check that a sweep may write its table."""
    from neuralcodec.core.files import check_output

    if path.exists():
        check_output(path, inputs, force=force, ours=_is_results)


def sweep(
    file: Annotated[Path, typer.Argument(help="TOML file, such as experiments/default.toml.")],
    audio: Annotated[str | None, typer.Option(help="Folder or manifest to score.")] = None,
    fit_audio: Annotated[
        str | None, typer.Option(help="Folder or manifest to fit quantizers on.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Kind of clips of unknown kind: speech, music or sound.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of results; default results/NAME.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of processes; default one per core.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed rows again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a results.csv that no sweep wrote.")
    ] = False,
) -> None:
    """Run or continue a sweep and write results.csv and plots/."""
    from neuralcodec import sweep as sweeps
    from neuralcodec.core.files import expanded

    experiment = sweeps.read(file)
    plan = sweeps.make(experiment, audio=audio, fit_audio=fit_audio, kind=kind)
    out = expanded(out or Path("results") / experiment.name)
    points = len({key.point for key in plan.keys})
    clips = {job.clip.name: job.clip for job in plan.jobs}.values()
    typer.echo(f"{experiment.name}: {points} points on {len(clips)} clips, {len(plan.keys)} rows")
    unknown = sum(clip.kind == "unknown" for clip in clips)
    if unknown:
        typer.echo(
            f"{unknown} clips are of unknown kind, so metrics made for speech leave them out; "
            f"--kind speech, or a manifest, says what they are"
        )
    if dry_run:
        return
    _check_results(out / "results.csv", [file, *filter(None, [audio, fit_audio])], force)
    unable = sweeps.lacking(plan)
    for name, reason in {setup.codec: reason for setup, reason in unable.items()}.items():
        typer.echo(f"{name} can't run here: {reason}")
    bar = sys.stderr.isatty()
    try:
        outcome = sweeps.run(plan, out, workers=workers, retry=retry, progress=bar, unable=unable)
        made, kept = outcome.new, outcome.kept
        typer.echo(f"{made} rows made, {kept} kept from before: {out / 'results.csv'}")
        _draw(out)
    except KeyboardInterrupt:
        typer.echo("neuralcodec: stopped; finished rows are kept, run it again to go on", err=True)
        raise typer.Exit(130) from None
    for reason, count in outcome.failures.most_common():
        typer.echo(f"{count} failed: {reason}")
    if outcome.failures:
        total = outcome.failures.total()
        typer.echo(f"{total} of {len(plan.keys)} rows failed; --retry runs them again")
        raise typer.Exit(1)


def _draw(folder: Path) -> None:
    from neuralcodec.analysis.plots import save_all
    from neuralcodec.analysis.rows import metric_columns, read_rows
    from neuralcodec.core.files import expanded

    folder = expanded(folder)
    rows = read_rows(folder / "results.csv")
    metrics = metric_columns(rows)
    empty = [metric for metric in metrics if rows[metric].isna().all()]
    if metrics and len(empty) == len(metrics):
        typer.echo("no row has a score, so there is no plot")
        return
    if empty:
        typer.echo(f"not drawn, because no row has a value: {', '.join(empty)}")
    paths = save_all(rows, metrics, folder / "plots")
    typer.echo(f"{len(paths)} plots: {folder / 'plots'}")


def plot(
    folder: Annotated[Path, typer.Argument(help="Folder of a sweep, with results.csv.")],
) -> None:
    """Draw the plots of a sweep again from its results.csv."""
    _draw(folder)
