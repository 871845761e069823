"""Who imports whom: the rooms of the package in their order, drawn in docs/architecture.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import neuralcodec

ROOT = Path(neuralcodec.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"

ROOMS = (
    "quantize",
    "core",
    "weights",
    "data",
    "wrappers",
    "latent",
    "tiny",
    "bitstream",
    "metrics",
    "tiny.training",  # it scores what it trains
    "check",
    "sweep",
    "analysis",
    "cli",
    "__main__",
)
"""The rooms, lowest first; a room imports only from rooms before it."""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The room of a module; None for the package itself."""
    below = module.removeprefix("neuralcodec").removeprefix(".")
    rooms = [room for room in ROOMS if below == room or below.startswith(room + ".")]
    return max(rooms, key=len, default=None)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(node: ast.AST, *, lazy: bool) -> Iterator[str]:
    """Modules of ours that a module imports; with `lazy` also within functions."""
    for child in ast.iter_child_nodes(node):
        if is_for_types(child):
            continue
        if not lazy and isinstance(child, ast.FunctionDef):
            continue
        if isinstance(child, ast.Import):
            yield from (each.name for each in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            named = [f"{child.module}.{each.name}" for each in child.names]
            yield from named
            if not all(name in SOURCES for name in named):  # not its submodules alone
                yield child.module
        yield from imports(child, lazy=lazy)


SOURCES = {module_of(path): ast.parse(path.read_text("utf-8")) for path in ROOT.rglob("*.py")}


def targets(module: str, *, lazy: bool) -> set[str]:
    named = imports(SOURCES[module], lazy=lazy)
    return {name for name in named if name in SOURCES and name not in (module, "neuralcodec")}


def arrows() -> set[tuple[str, str]]:
    """Pairs of rooms of which the second imports from the first, by any import at all."""
    pairs = {
        (room_of(target), room_of(module))
        for module in SOURCES
        for target in targets(module, lazy=True)
    }
    return {(a, b) for a, b in pairs if a is not None and b is not None and a != b}


def test_every_module_is_in_a_room() -> None:
    assert {module for module in SOURCES if room_of(module) is None} == {"neuralcodec"}


def test_no_arrow_points_against_the_order() -> None:
    wrong = [
        f"{module} imports {target}"
        for module in SOURCES
        for target in targets(module, lazy=True)
        if (of := room_of(target)) and (to := room_of(module))
        if ROOMS.index(of) > ROOMS.index(to)
    ]
    assert wrong == []


def test_there_is_no_circle() -> None:
    graph = {module: targets(module, lazy=False) for module in SOURCES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in graph[module]:
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def drawing() -> str:
    """The arrows that are not implied by others, as a Mermaid graph."""
    pairs = arrows()

    def reaches(start: str, end: str) -> bool:
        middles = [b for a, b in pairs if a == start and b != end]
        return any((middle, end) in pairs or reaches(middle, end) for middle in middles)

    kept = [(a, b) for a, b in pairs if not reaches(a, b)]
    order = sorted(kept, key=lambda pair: (ROOMS.index(pair[0]), ROOMS.index(pair[1])))
    lines = [f"    {a.replace('.', '_')}[{a}] --> {b.replace('.', '_')}[{b}]" for a, b in order]
    return "\n".join(["```mermaid", "graph LR", *lines, "```"])


def test_the_page_shows_the_imports_as_they_are() -> None:
    if drawing() not in PAGE.read_text("utf-8"):
        pytest.fail(f"{PAGE.name} must show:\n{drawing()}")
