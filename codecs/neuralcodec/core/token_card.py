"""Tokens in one line of text, and as a small HTML table for notebooks."""

from collections.abc import Sequence
from itertools import groupby

from neuralcodec.core.cards import table
from neuralcodec.core.token_data import TokenData

_RUNS = 4  # groups of like codebooks that one line shows


def _range(values: Sequence[float]) -> str:
    """Format seconds: 1.50, or 1.20-3.50 if they differ."""
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low}-{high}"


def _codebooks(tokens: TokenData) -> str:
    """Describe the codebooks: runs of one size and frame rate."""
    each = zip(tokens.codebook_sizes, tokens.frame_rates, strict=True)
    runs = [(len(list(run)), size, rate) for (size, rate), run in groupby(each)]
    shown = [f"{count} x {size} at {round(rate, 2):g} Hz" for count, size, rate in runs[:_RUNS]]
    rest = sum(count for count, _, _ in runs[_RUNS:])
    return " + ".join(shown + [f"{rest} more"] * bool(rest))


def _clips(tokens: TokenData) -> str:
    return f"{tokens.batch_size} clip{'s' * (tokens.batch_size != 1)}"


def _seconds(tokens: TokenData) -> str:
    lengths = tokens.lengths or (tokens.num_samples,)
    return f"{_range([length / tokens.sample_rate for length in lengths])} s"


def _rates(tokens: TokenData) -> str:
    return f"{round(tokens.tokens_per_second, 2):g} tokens/s, {tokens.bitrate_kbps:.4g} kbit/s"


def one_line(tokens: TokenData) -> str:
    """Return `Tokens(2 clips, 8 x 1024 at 75 Hz, 1.50 s, 600 tokens/s, 6 kbit/s)` or the like.

    Sides are named, and the device unless it is the CPU.
    """
    parts = [_clips(tokens), _codebooks(tokens), _seconds(tokens), _rates(tokens)]
    if tokens.side:
        parts.append(f"side {' '.join(sorted(tokens.side))}")
    if tokens.device.type != "cpu":
        parts.append(f"on {tokens.device}")
    return f"Tokens({', '.join(parts)})"


def html_table(tokens: TokenData) -> str:
    """Return a table of two columns without scripts, styles or links."""
    shapes = " + ".join(str([*array.shape]) for array in tokens.arrays[:_RUNS])
    more = ", ..." if len(tokens.arrays) > _RUNS else ""
    rows = {
        "clips": str(tokens.batch_size),
        "audio": f"{_seconds(tokens)} at {tokens.sample_rate} Hz",
        "codebooks": _codebooks(tokens),
        "rate": _rates(tokens),
        "codes": f"{shapes}{more}, {tokens.device}",
    }
    if tokens.side:
        sides = (f"{name} {[*value.shape]}" for name, value in sorted(tokens.side.items()))
        rows["side"] = f"{', '.join(sides)}: {tokens.side_bits:g} bits per clip"
    return table("Tokens", rows)
