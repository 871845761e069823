"""The reference of the sweep file, docs/sweep.md, is complete and names nothing else."""

import re
import tomllib
from pathlib import Path

import typer

from neuralcodec.__main__ import app
from neuralcodec.core.audio import KINDS
from neuralcodec.latent import requantized
from neuralcodec.metrics import METRICS
from neuralcodec.sweep import Experiment
from neuralcodec.sweep.config import Axes, Base
from neuralcodec.sweep.work import COLUMNS, LAST_COLUMNS

TEXT = (Path(__file__).parents[1] / "docs" / "sweep.md").read_text(encoding="utf-8")


def named(first_column: str) -> set[str]:
    """Return the names in backticks in the first column of the tables with this header."""
    tables = re.findall(rf"^\| {re.escape(first_column)} \|.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert tables
    cells = [line.split("|")[1] for table in tables for line in table.splitlines()]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_key_of_the_file_is_described() -> None:
    axes = {*Axes.model_fields, *requantized.RETIMING, requantized.BEAM} - {"settings"}
    assert named("key") == {*Experiment.model_fields, *Base.model_fields, *axes}


def test_every_option_is_described() -> None:
    command = typer.main.get_command(app).commands["sweep"]  # type: ignore[attr-defined]  # a group
    options = {name for each in command.params for name in each.opts if name.startswith("--")}
    assert named("option") == options - {"--help"}


def test_every_column_is_described() -> None:
    assert named("column of `results.csv`") == {*COLUMNS, *LAST_COLUMNS, "label"}


def test_every_kind_and_metric_is_named() -> None:
    rows = {line.split("|")[1].strip(): line for line in TEXT.splitlines() if line.startswith("|")}
    for key, names in (("`kinds`", KINDS), ("`metrics`", METRICS)):
        assert [name for name in names if f"`{name}`" not in rows[key]] == []


def test_the_example_is_a_good_sweep() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert len(Experiment.model_validate(tomllib.loads(block)).grid["tiny_50hz+rvq"]) == 2
