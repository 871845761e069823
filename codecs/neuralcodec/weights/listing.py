"""The table of all codecs with their rates and whether they run on this machine."""

import importlib.util
from dataclasses import asdict, dataclass

import pandas as pd

from neuralcodec import weights
from neuralcodec.core.cards import few
from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.loading import load, missing_package, settings_of
from neuralcodec.core.registry import REGISTRY, Entry, Facts, entry_of, names


@dataclass(frozen=True)
class Listed:
    """One row of the table; rates are those at default settings.

    Attributes:
        codec: name of the codec.
        sample_rate: Hz; None if unknown, for example because a setting determines it.
        channels: number of audio channels; None likewise.
        frame_rates: Hz; "by clip" for variable bitrates.
        codebooks: numbers of codebooks; "any" for a latent codec, which takes "+rvq".
        entries: entries of the codebooks.
        kbps: nominal kbit/s at these numbers of codebooks.
        latents: whether it gives access to its latents; None if unknown.
        weights: "here", "not here", or "" if it needs none.
        runs: whether it runs here with default settings.
        reason: why it does not run here and how to fix it, or which settings it needs.
        extra: pip extra that installs the packages it needs; "" for none.
        settings: names of its settings, for a codec whose rates depend on them.
        summary: description in one line.
    """

    codec: str
    sample_rate: int | None
    channels: int | None
    frame_rates: str
    codebooks: str
    entries: str
    kbps: str
    latents: bool | None
    weights: str
    runs: bool
    reason: str
    extra: str
    settings: str
    summary: str


@dataclass(frozen=True)
class _Rates:
    sample_rate: int | None = None
    channels: int | None = None
    frame_rates: str = ""
    codebooks: str = ""
    entries: str = ""
    kbps: str = ""
    latents: bool | None = None


def _of_facts(facts: Facts) -> _Rates:
    frames = few(tuple(round(rate, 2) for rate in facts.frame_rates))
    latents = facts.dim is not None
    if not facts.codebook_sizes:
        return _Rates(facts.sample_rate, facts.channels, frames, "any", "any", "any", latents)
    depths = facts.depths or tuple(range(1, len(facts.codebook_sizes) + 1))
    kbps = tuple(round(rate, 3) for rate in facts.bitrates_kbps)
    return _Rates(
        facts.sample_rate,
        facts.channels,
        frames,
        few(depths),
        few(facts.codebook_sizes),
        few(kbps),
        latents,
    )


def _of_codec(codec: Codec) -> _Rates:
    if isinstance(codec, LatentCodec) and not codec.num_codebooks:
        rates = (codec.frame_rate,)
        facts = Facts(codec.sample_rate, codec.channels, rates, (), codec.is_causal, codec.dim)
        return _of_facts(facts)
    if not codec.frame_rates:
        entries = few(codec.codebook_sizes)
        return _Rates(codec.sample_rate, codec.channels, "by clip", "1", entries, "by clip", False)
    facts = Facts(
        codec.sample_rate,
        codec.channels,
        codec.frame_rates,
        codec.codebook_sizes,
        codec.is_causal,
        codec.dim if isinstance(codec, LatentCodec) else None,
        tuple(codec.depths),
    )
    return _of_facts(facts)


def _weights_of(entry: Entry) -> str:
    if not entry.checkpoints:
        return ""
    return "here" if all(weights.find(name) for name in entry.checkpoints) else "not here"


def _listed(name: str) -> Listed:
    entry = entry_of(name)
    rates = _of_facts(entry.facts) if entry.facts else _Rates()
    here, reason, settings = _weights_of(entry), "", ""
    try:
        if name in REGISTRY and entry.package and not importlib.util.find_spec(entry.package):
            raise missing_package(name, entry.package)
        if entry.facts is None:
            settings = ", ".join(settings_of(name))
            needed = settings_of(name, needed=True)
            if needed:
                reason = f"needs the settings {', '.join(needed)}"
            else:
                rates = _of_codec(load(name))
    except Exception as error:  # a codec of another package may raise anything
        reason = " ".join(str(error).split())
    if not reason and here == "not here":
        reason = f"neuralcodec weights fetch {name}"
    extra = entry.extra or ""
    return Listed(
        name,
        **asdict(rates),
        weights=here,
        runs=not reason,
        reason=reason,
        extra=extra,
        settings=settings,
        summary=entry.summary,
    )


def list_codecs() -> pd.DataFrame:
    """Return a table of all codecs, including those of other installed packages.

    Nothing is downloaded: a codec whose weights are not on this machine counts as not running.

    Returns:
        One row per codec, with the columns of `Listed`.

    >>> list_codecs().set_index("codec").loc["tiny_50hz", "kbps"]
    '0.5..4'
    """
    return pd.DataFrame([asdict(_listed(name)) for name in names()])
