"""`neuralcodec list`."""

import importlib.util

import typer

from neuralcodec import weights
from neuralcodec.cli.table import table
from neuralcodec.core import loading
from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.registry import REGISTRY, RVQ_SUFFIX, Entry, Facts

_HEADER = "codec|audio|frames/s|codebooks|entries|kbit/s|weights|needs|runs here|settings|what"


def _few(values: tuple[float, ...]) -> str:
    """Write few numbers out, of many the first and the last."""
    numbers = [f"{value:g}" for value in dict.fromkeys(values)]
    return " ".join(numbers) if len(numbers) <= 6 else f"{numbers[0]}..{numbers[-1]}"


def _rates(facts: Facts) -> list[str]:
    audio = f"{facts.sample_rate / 1000:g} kHz" + (" stereo" if facts.channels == 2 else "")
    frames = _few(tuple(round(rate, 2) for rate in facts.frame_rates))
    if not facts.codebook_sizes:
        return [audio, frames, "any", "any", "any"]
    depths = facts.depths or tuple(range(1, len(facts.codebook_sizes) + 1))
    kbps = tuple(round(rate, 3) for rate in facts.bitrates_kbps)
    return [audio, frames, _few(depths), _few(facts.codebook_sizes), _few(kbps)]


def _built_rates(codec: Codec) -> list[str]:
    """Read off a codec what depends on its settings."""
    if isinstance(codec, LatentCodec) and not codec.num_codebooks:
        rates = (codec.frame_rate,)
        return _rates(Facts(codec.sample_rate, codec.channels, rates, (), codec.is_causal))
    if not codec.frame_rates:
        entries = _few(codec.codebook_sizes)
        return [f"{codec.sample_rate / 1000:g} kHz", "by clip", "1", entries, "by clip"]
    return _rates(
        Facts(
            codec.sample_rate,
            codec.channels,
            codec.frame_rates,
            codec.codebook_sizes,
            codec.is_causal,
            depths=tuple(codec.depths),
        )
    )


def _weights(entry: Entry) -> str:
    if not entry.checkpoints:
        return "-"
    return "here" if all(weights.find(name) for name in entry.checkpoints) else "not here"


def _line(name: str, entry: Entry) -> list[str]:
    """Say of a codec its rates, at default settings, and whether it runs here or why not."""
    weights, needs = _weights(entry), entry.extra or "-"
    runs, settings = "yes", ""
    rates = _rates(entry.facts) if entry.facts else [""] * 5
    try:
        if entry.package and importlib.util.find_spec(entry.package) is None:
            raise loading.missing_package(name, entry.package)
        if not entry.facts:
            settings = ", ".join(loading.settings_of(name))
            needed = loading.settings_of(name, needed=True)
            rates = [""] * 5 if needed else _built_rates(loading.load(name))
            runs = f"yes, needs {', '.join(needed)}" if needed else "yes"
    except (ImportError, OSError, ValueError) as error:
        runs = f"no: {error}"
    if runs == "yes" and weights == "not here":
        runs = f"no: neuralcodec weights fetch {name}"
    return [name, *rates, weights, needs, runs, settings, entry.summary]


def list_codecs() -> None:
    """Show every codec, its rates at default settings, and whether it can run here."""
    entries = REGISTRY.items()
    table(_HEADER.split("|"), [_line(name, entry) for name, entry in entries])
    typer.echo(
        "\n'any': a latent codec; our quantizer in its latents takes any K and V, by its name in a "
        f"sweep, or with {RVQ_SUFFIX} behind the name in Python"
    )
