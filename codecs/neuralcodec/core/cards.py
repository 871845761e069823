"""How a codec shows itself: one line in a terminal, a small table in a notebook."""

import html
from typing import TYPE_CHECKING

from neuralcodec.core.rates import nominal_rates

if TYPE_CHECKING:
    from neuralcodec.core.codec import Codec


def few(values: tuple[float, ...] | tuple[int, ...]) -> str:
    """Return few different numbers all written out, of many the first and the last.

    >>> few((50.0, 50.0)), few(tuple(range(1, 33)))
    ('50', '1..32')
    """
    numbers = [f"{value:.6g}" for value in dict.fromkeys(values)]
    return " ".join(numbers) if len(numbers) <= 6 else f"{numbers[0]}..{numbers[-1]}"


def codec_facts(codec: "Codec") -> dict[str, str]:
    """Return what is worth knowing of a codec, by what it is called."""
    facts = {"audio": f"{codec.sample_rate / 1000:g} kHz"}
    if codec.channels > 1:
        facts["audio"] += f", {codec.channels} channels"
    if codec.num_codebooks:
        facts["codebooks"] = f"{codec.num_codebooks} x {few(codec.codebook_sizes)}"
    else:
        facts["codebooks"] = "none, latents only"
    if codec.frame_rates:
        facts["frames"] = f"{few(codec.frame_rates)} Hz"
        tokens, kbps = nominal_rates(codec.frame_rates, codec.codebook_sizes)
        facts["rate"] = f"{tokens:g} tokens/s, {kbps:g} kbit/s at most"
    elif codec.num_codebooks:
        facts["rate"] = "depends on the clip"
    facts["causal"] = "yes" if codec.is_causal else "no"
    facts["streams"] = "yes" if codec.is_streaming else "no"
    facts["device"] = str(codec.device)
    return facts


def codec_line(codec: "Codec") -> str:
    """Return the one line that `repr` shows."""
    facts = codec_facts(codec)
    shown = [
        facts[name] for name in ("audio", "codebooks", "frames", "rate", "device") if name in facts
    ]
    shown += [name for name in ("causal", "streams") if facts[name] == "yes"]
    return f"{type(codec).__name__}({codec.name!r}: {', '.join(shown)})"


def table(caption: str, facts: dict[str, str]) -> str:
    """Return facts as an HTML table of two columns without scripts, styles or links."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table><caption>{html.escape(caption)}</caption>{rows}</table>"


def card(codec: "Codec") -> str:
    """Return an HTML table of `codec_facts`, as Jupyter shows it."""
    return table(codec.name, codec_facts(codec))
