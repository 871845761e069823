"""What a codec is, and how it is found by name.

A neural codec is analysis, quantizer, synthesis. A `Codec` turns audio into tokens and back; a
`LatentCodec` gives access on both sides of the quantizer, so that another one can take its place.
"""

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from neuralcodec.core.names import unknown
from neuralcodec.core.registry import REGISTRY
from neuralcodec.core.tokens import Tokens


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


@runtime_checkable
class Chunkable(Protocol):
    """A codec of limited sight, so that long audio can go through it in overlapping chunks.

    Attributes:
        hop_length: samples of a frame; chunks start at multiples of it.
        encode_context: frames before and after a frame that its codes depend on.
        decode_context: frames before and after a frame that its audio depends on.
    """

    hop_length: int
    encode_context: int
    decode_context: int


class EncodeStream(Protocol):
    """Audio in, as it comes; codes out, as soon as they are certain. Joined they are `encode`'s."""

    def push(self, wav: Tensor) -> Tensor:
        """Take the next `wav [B, C, T]`, any T; give the codes `[B, K, frames]` it completes."""
        ...

    def finish(self) -> Tensor:
        """End the audio; give the codes `[B, K, frames]` that are left."""
        ...


class DecodeStream(Protocol):
    """Codes in, as they come; audio out. Joined, and cut to the length, it is `decode`'s."""

    def push(self, codes: Tensor) -> Tensor:
        """Take the next `codes [B, K, frames]`; give the wav `[B, C, T]` that they complete."""
        ...

    def finish(self) -> Tensor:
        """End the codes; give the wav `[B, C, T]` that is left."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """A causal codec that can work on audio as it comes."""

    def stream(self, num_codebooks: int | None = None) -> EncodeStream:
        """Begin to encode with the first `num_codebooks` codebooks; default all."""
        ...

    def decode_stream(self) -> DecodeStream:
        """Begin to decode codes of any one number of codebooks."""
        ...


RVQ_SUFFIX = "+rvq"
"""Behind the name of a latent codec: with our residual vector quantizer in its latents."""


def missing_package(name: str, package: str) -> ImportError:
    """Make the error for a codec whose package is not installed; it gives the cure."""
    extra = REGISTRY[name].extra
    return ImportError(f"codec {name!r} needs {package!r}: pip install 'neuralcodec[{extra}]'")


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
        raise missing_package(name, error.name or entry.module) from error
    return getattr(module, entry.attribute)  # type: ignore[no-any-return]  # a module's contents


def _fixed(name: str) -> Mapping[str, Any]:
    return REGISTRY[name].fixed


def settings_of(name: str, *, needed: bool = False) -> list[str]:
    """List the settings that the codec `name` takes, or those it needs; errors as of `find`."""
    parameters = inspect.signature(find(name)).parameters.values()
    return [
        each.name
        for each in parameters
        if each.name not in _fixed(name) and not (needed and each.default is not each.empty)
    ]


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
            quantizer on its latents (see `neuralcodec.latent.requantized.load`).
        **settings: those of the codec, such as `bitrate_kbps` of "opus" or `frame_rate` of "mdct".

    Returns:
        A `Codec`, a `LatentCodec`, or an object that is both.

    Raises:
        ValueError: if there is no such codec or setting, or a value is out of its range.
        ImportError: if a package that it needs is missing; the cure is given.
        WeightsMissing: if its weights are nowhere to be found; the cure is given.

    >>> load("mdct", frame_rate=50).dim
    320
    """
    if name.endswith(RVQ_SUFFIX):
        from neuralcodec.latent import requantized

        return requantized.load(name.removesuffix(RVQ_SUFFIX), **settings)
    check_settings(name, settings)
    return find(name)(**_fixed(name), **settings)
