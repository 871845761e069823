"""What a codec is, and how it is found by name.

A neural codec is analysis, quantizer, synthesis. A `Codec` turns audio into tokens and back; a
`LatentCodec` gives access on both sides of the quantizer, so that another one can take its place.
"""

import importlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from neuralcodec.names import unknown
from neuralcodec.tokens import Tokens


@runtime_checkable
class Codec(Protocol):
    """Audio to tokens and back.

    Attributes:
        name: as in the registry.
        sample_rate: Hz that `encode` takes and `decode` gives.
        channels: of the audio.
        num_codebooks: K, the largest that `encode` takes.
        frame_rates: Hz, one a codebook; empty where it depends on the clip (variable bitrate).
        codebook_sizes: entries, one a codebook.
        is_causal: whether a token depends on no later audio than its own frame.
    """

    name: str
    sample_rate: int
    channels: int
    num_codebooks: int
    frame_rates: tuple[float, ...]
    codebook_sizes: tuple[int, ...]
    is_causal: bool

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        """Encode `wav [B, C, T]` with the first `num_codebooks` codebooks; default all."""
        ...

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode to wav `[B, C, T]` of the length that was encoded."""
        ...


@runtime_checkable
class LatentCodec(Protocol):
    """Audio to latents and back, with no quantizer between.

    Attributes:
        name: as in the registry.
        sample_rate: Hz that `encode_latents` takes and `decode_latents` gives.
        channels: of the audio.
        dim: D, width of a latent.
        frame_rate: latents a second, Hz.
        is_causal: whether a latent depends on no later audio than its own frame.
    """

    name: str
    sample_rate: int
    channels: int
    dim: int
    frame_rate: float
    is_causal: bool

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, C, T]` into latents `z [B, D, frames]`."""
        ...

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn `z [B, D, frames]` into wav `[B, C, length]`; by default all that z covers."""
        ...


@dataclass(frozen=True)
class Entry:
    """Where a codec lives: module, class, the extra that installs what it needs, one line on it."""

    module: str
    attribute: str
    extra: str | None
    summary: str


_CLASSICAL = "neuralcodec.wrappers.classical"
_TRANSFORM = "neuralcodec.wrappers.transform"

REGISTRY: dict[str, Entry] = {
    "pcm": Entry("neuralcodec.wrappers.pcm", "Pcm", None, "uniform samples of 1-16 bits"),
    "opus": Entry(_CLASSICAL, "Opus", None, "Opus (RFC 6716), variable bitrate"),
    "mp3": Entry(_CLASSICAL, "Mp3", None, "MPEG layer III (LAME)"),
    "aac": Entry(_CLASSICAL, "Aac", None, "AAC-LC (FFmpeg)"),
    "mdct": Entry(_TRANSFORM, "Mdct", None, "sine-window MDCT, exact without a quantizer"),
    "mel": Entry(_TRANSFORM, "Mel", None, "log-mel frames, Griffin-Lim"),
}
"""Every codec by name."""

RVQ_SUFFIX = "+rvq"
"""Behind the name of a latent codec: with our residual vector quantizer in its latents."""


def find(name: str) -> type[Any]:
    """Import and return the class of the codec `name`, without building it.

    Raises:
        ValueError: if there is no such codec; the nearest name is given.
        ImportError: if a package that it needs is missing; the cure is given.
    """
    if name not in REGISTRY:
        raise unknown("codec", name, REGISTRY)
    entry = REGISTRY[name]
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if entry.extra is None or (error.name or "").startswith("neuralcodec"):
            raise
        raise ImportError(
            f"codec {name!r} needs {error.name!r}: pip install 'neuralcodec[{entry.extra}]'"
        ) from error
    return getattr(module, entry.attribute)  # type: ignore[no-any-return]  # a module's contents


def settings_of(name: str) -> list[str]:
    """List the settings that the codec `name` takes; errors as of `find`."""
    return list(inspect.signature(find(name)).parameters)


def check_settings(name: str, settings: Iterable[str]) -> None:
    """Raise ValueError, naming the nearest, if the codec `name` lacks one of the settings."""
    allowed = settings_of(name)
    for setting in settings:
        if setting not in allowed:
            raise unknown(f"setting of codec {name!r}:", setting, allowed)


def load(name: str, **settings: Any) -> Any:
    """Build the codec `name`.

    Args:
        name: a key of `REGISTRY`; or that of a latent codec with "+rvq" behind it, which fits our
            quantizer on its latents (see `neuralcodec.wrappers.requantized.load`).
        **settings: those of the codec, such as `bitrate_kbps` of "opus" or `frame_rate` of "mdct".

    Returns:
        A `Codec`, a `LatentCodec`, or an object that is both.

    Raises:
        ValueError: if there is no such codec or setting, or a value is out of its range.
        ImportError: if a package that it needs is missing; the cure is given.

    >>> load("mdct", frame_rate=50).dim
    320
    """
    if name.endswith(RVQ_SUFFIX):
        from neuralcodec.wrappers import requantized

        return requantized.load(name.removesuffix(RVQ_SUFFIX), **settings)
    check_settings(name, settings)
    return find(name)(**settings)
