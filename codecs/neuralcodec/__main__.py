"""The command line: `neuralcodec list | sweep | plot | metrics`. Thin; the work is elsewhere."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from neuralcodec import codec as codecs

app = typer.Typer(
    help="What does a token buy? A research toolkit for neural audio codecs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _table(header: list[str], lines: list[list[str]]) -> None:
    """Print columns, each as wide as its widest cell."""
    cells = [header, *lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    for line in cells:
        typer.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def _facts(name: str) -> list[str]:
    """Give a codec's rates at default settings, whether it runs here or why not, its settings."""
    try:
        codec: Any = codecs.load(name)
        settings = ", ".join(codecs.settings_of(name))
    except (ImportError, OSError, ValueError) as error:
        return ["", "", "", "", f"no: {error}", ""]
    audio = f"{codec.sample_rate / 1000:g} kHz"
    if not isinstance(codec, codecs.Codec):
        return [audio, f"{codec.frame_rate:g}", "any", "any", "yes", settings]
    frames = " ".join(f"{rate:g}" for rate in sorted(set(codec.frame_rates))) or "by clip"
    sizes = " ".join(str(size) for size in sorted(set(codec.codebook_sizes)))
    return [audio, frames, f"1-{codec.num_codebooks}", sizes, "yes", settings]


@app.command(name="list")
def list_codecs() -> None:
    """Show every codec, its rates at default settings, and whether it can run here."""
    header = "codec|audio|frames/s|codebooks|entries|runs here|settings|needs|what".split("|")
    entries = sorted(codecs.REGISTRY.items())
    _table(
        header,
        [[name, *_facts(name), entry.extra or "-", entry.summary] for name, entry in entries],
    )
    typer.echo(
        "\n'any': a latent codec; our quantizer in its latents takes any K and V, by its name in a "
        f"sweep, or with {codecs.RVQ_SUFFIX} behind the name in Python"
    )


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="TOML file, such as experiments/default.toml.")],
    audio: Annotated[str | None, typer.Option(help="Folder or manifest to score.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Kind of clips that don't tell: speech, music, sound.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of results; results/NAME.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one a core.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed rows again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run.")] = False,
) -> None:
    """Run a sweep, or continue it; write results.csv and plots/."""
    from neuralcodec import sweep as sweeps

    experiment = sweeps.read(file)
    plan = sweeps.make(experiment, audio=audio, kind=kind)
    out = out or Path("results") / experiment.name
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
    bar = sys.stderr.isatty()
    try:
        outcome = sweeps.run(plan, out, workers=workers, retry=retry, progress=bar)
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
    import pandas as pd

    from neuralcodec.metrics import METRICS
    from neuralcodec.plot import save_all

    path = folder / "results.csv"
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}; run a sweep first")
    rows = pd.read_csv(path)
    metrics = [column for column in rows if column in METRICS]
    if metrics and not rows[metrics].notna().any(axis=None):
        typer.echo("no row has a score, so there is no plot")
        return
    paths = save_all(rows, metrics, folder / "plots")
    typer.echo(f"{len(paths)} plots: {folder / 'plots'}")


@app.command()
def plot(
    folder: Annotated[Path, typer.Argument(help="A sweep's folder, with results.csv.")],
) -> None:
    """Draw a sweep's plots again, from its results.csv alone."""
    _draw(folder)


@app.command()
def metrics(
    reference: Annotated[Path, typer.Argument(help="Audio file.")],
    estimate: Annotated[Path, typer.Argument(help="Audio file of the same length.")],
    kind: Annotated[str, typer.Option(help="What they hold: speech, music, sound.")] = "speech",
    metric: Annotated[list[str] | None, typer.Option(help="Name; may be given again.")] = None,
) -> None:
    """Score an audio file against its reference; both are mixed down, the rates made equal."""
    from neuralcodec import audio
    from neuralcodec.metrics import DEFAULT, METRICS, score

    wanted, rate = audio.read(reference)
    got, got_rate = audio.read(estimate)
    if got_rate != rate:
        typer.echo(f"{estimate} resampled from {got_rate} to {rate} Hz", err=True)
        got = audio.resample(got, got_rate, rate)
        rounding = -(-rate // got_rate)  # what one sample, by which its length was rounded, became
        if abs(got.shape[-1] - wanted.shape[-1]) <= rounding:
            got = audio.fit_length(got, wanted.shape[-1])
    scores = score(
        audio.mix_down(wanted), audio.mix_down(got), rate, metrics=metric or DEFAULT, kind=kind
    )
    _table(
        ["metric", "value", "unit", "better", "range", "note"],
        [
            [
                name,
                f"{value:.4f}",
                METRICS[name].unit,
                "higher" if METRICS[name].higher_is_better else "lower",
                f"{METRICS[name].low:g} .. {METRICS[name].high:g}",
                scores.reasons.get(name, ""),
            ]
            for name, value in scores.items()
        ],
    )


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit status 1."""
    try:
        app()
    except (ValueError, ImportError, OSError) as error:
        typer.echo(f"neuralcodec: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
