"""How a quantizer shows itself: one line in a terminal, small tables in a notebook."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from torch import Tensor

from neuralcodec.quantize import statistics

if TYPE_CHECKING:
    from neuralcodec.quantize.trainable import TrainableCodebooks

_RUNS = 4  # groups of like codebooks, or of like parts, that one line shows


def _runs(values: Iterable[str], single: str = "1 x ") -> str:
    """Join values with their counts: "1 x 1024 + 7 x 512", and "n more" after four runs."""
    runs = [(len(list(same)), value) for value, same in groupby(values)]
    shown = [f"{n} x {value}" if n > 1 else f"{single}{value}" for n, value in runs[:_RUNS]]
    rest = sum(n for n, _ in runs[_RUNS:])
    return " + ".join(shown + [f"{rest} more"] * bool(rest))


def _different(values: Iterable[str]) -> str:
    """Join the different ones of some values, in their order."""
    return "/".join(dict.fromkeys(values))


def _codebooks(parts: "Sequence[TrainableCodebooks]") -> str:
    each = [_runs(map(str, part.codebook_sizes)) for part in parts]
    return each[0] if len(each) == 1 else _runs((f"({sizes})" for sizes in each), single="")


def _projection(part: "TrainableCodebooks") -> str:
    if part.project_in is None:
        return "no projection"
    shown = f"codebook_dim={part.codebook_dim}"
    if part.num_codebooks == 1:  # a level's projections and shared ones are the same
        return shown
    return f"{shown} {'per level' if len(part.project_in.weight) > 1 else 'shared'}"


def _rate(parts: "Sequence[TrainableCodebooks]") -> str:
    """Format the bitrate at log2(V) per code; bits per frame if a frame rate is unknown."""
    bits = [sum(map(math.log2, part.codebook_sizes)) for part in parts]
    rates = [part.frame_rate for part in parts if part.frame_rate is not None]
    if len(rates) < len(parts):
        return f"{sum(bits):.4g} bits/frame"
    kbps = sum(b * rate for b, rate in zip(bits, rates, strict=True)) / 1000
    return f"{kbps:.4g} kbit/s"


def _is_empty(part: "TrainableCodebooks") -> bool:
    return not part.codebooks.is_meta and not part.started


def facts(dim: int, parts: "Sequence[TrainableCodebooks]") -> dict[str, str]:
    """Return what is worth knowing of a quantizer, by what it is called.

    Args:
        dim: D, of the latents that it takes.
        parts: the quantizers that it consists of, one or more; itself if it has no parts.
    """
    found = {"dim": str(dim), "codebooks": _codebooks(parts)}
    if any(part.project_in is not None for part in parts):
        found["projection"] = _different(map(_projection, parts))
    found["metric"] = _different(part.metric for part in parts)
    rates = [part.frame_rate for part in parts if part.frame_rate is not None]
    if rates:
        found["frame rate"] = f"{_different(f'{rate:.6g}' for rate in rates)} Hz"
    found["rate"] = _rate(parts)
    learned = {"ema": "ema", "gradient": "gradient codebooks"}
    found["learning"] = _different(
        learned[part.learning.codebooks] if part.learns else "frozen" for part in parts
    )
    found["device"] = _different(str(part.codebooks.device) for part in parts)
    if any(map(_is_empty, parts)):
        found["state"] = "no codebooks yet"
    return found


def line(name: str, found: dict[str, str]) -> str:
    """Return the line that `repr` shows.

    >>> line("ResidualVectorQuantizer", {"dim": "64", "codebooks": "8 x 1024", "device": "cpu"})
    'ResidualVectorQuantizer(dim=64, 8 x 1024, cpu)'
    """
    shown = [f"dim={value}" if key == "dim" else value for key, value in found.items()]
    return f"{name}({', '.join(shown)})"


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def html_card(
    name: str, found: dict[str, str], sizes: Sequence[int], used: Tensor, bits: Tensor
) -> str:
    """Return HTML tables without scripts, styles or links, as Jupyter shows them.

    Args:
        name: of the quantizer's class.
        found: its `facts`.
        sizes: entries of each of K codebooks.
        used: `[K]`, `statistics.usage` of each codebook.
        bits: `[K]`, `statistics.entropy` of each codebook. Both are shown if codes of at least
            one codebook were counted.
    """
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in found.items()
    )
    tables = f"<table><caption>{escape(name)}</caption>{rows}</table>"
    if not used.is_meta and not used.isnan().all():
        head, *levels = statistics.cells(sizes, used, bits)
        tables += f"<table>{_row(head, 'th')}{''.join(map(_row, levels))}</table>"
    return f"<div>{tables}</div>"
