"""What the README shows runs."""

import re
import tomllib
from pathlib import Path

import pytest

from neuralcodec.sweep import Experiment

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", _blocks("python"))
def test_python_blocks_run(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {})


def test_sweep_block_is_a_good_sweep() -> None:
    (block,) = _blocks("toml")
    experiment = Experiment.model_validate(tomllib.loads(block))
    assert set(experiment.grid) == {"mdct", "opus"}


def documents() -> list[Path]:
    root = README.parent
    return [README, *sorted(root.glob("docs/*.md")), *sorted(root.glob("results/**/*.md"))]


@pytest.mark.parametrize(
    "document", documents(), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text(encoding="utf-8"))
    assert len(targets) >= (4 if document == README else 0)
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_the_two_commands_are_there() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in ("sweep", "test"):
        assert f"make {target}" in TEXT
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
