"""From a name to a codec: find its class, check its settings, build it."""

import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch

from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.names import unknown
from neuralcodec.core.registry import REGISTRY, RVQ_SUFFIX, LatentName, entry_of, plugin_of

_REQUANTIZED = "neuralcodec.latent.requantized"
"""Module whose `load` builds `NAME+rvq`. It is above this one, so it is named, not imported."""


def missing_package(name: str, package: str) -> ImportError:
    """Return the error for a codec whose package is not installed; it says how to install it."""
    extra = REGISTRY[name].extra
    return ImportError(f"codec {name!r} needs {package!r}: pip install 'neuralcodec[{extra}]'")


def find(name: str) -> type[Codec]:
    """Import and return the class of the codec `name`, without building it.

    Raises:
        ValueError: if there is no such codec; the nearest name is given.
        ImportError: if a package that it needs is missing, with how to install it; or if a codec
            of another distribution can't be imported, with the name of that.
    """
    if name not in REGISTRY:
        return plugin_of(name).load(Codec, "codec", "neuralcodec.Codec")  # type: ignore[no-any-return]  # a module's contents
    entry = REGISTRY[name]
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if entry.extra is None or (error.name or "").startswith("neuralcodec"):
            raise
        raise missing_package(name, error.name or entry.module) from error
    return getattr(module, entry.attribute)  # type: ignore[no-any-return]  # a module's contents


def _requantized_load() -> Callable[..., LatentCodec]:
    return importlib.import_module(_REQUANTIZED).load  # type: ignore[no-any-return]  # likewise


def parameters_of(name: str) -> list[inspect.Parameter]:
    """Return the settings of the codec `name`, with or without "+rvq", as parameters.

    Raises:
        ValueError, ImportError: as `find`.
    """
    plain = name.removesuffix(RVQ_SUFFIX)
    fixed = entry_of(plain).fixed
    makers: list[Callable[..., Any]] = [find(plain)]
    if name != plain:
        makers.append(_requantized_load())
    found = [each for make in makers for each in inspect.signature(make).parameters.values()]
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    hidden = {*fixed, "name", "device"}
    return [each for each in found if each.name not in hidden and each.kind not in variadic]


def settings_of(name: str, *, needed: bool = False) -> list[str]:
    """Return the names of the settings of a codec, or of those without a default.

    `device`, which every codec takes, is not among them.

    Raises:
        ValueError, ImportError: as `find`.
    """
    parameters = parameters_of(name)
    return [each.name for each in parameters if not needed or each.default is each.empty]


def check_settings(name: str, settings: Iterable[str]) -> None:
    """Raise ValueError, naming the nearest, if the codec `name` lacks one of the settings."""
    given, allowed = set(settings), [*settings_of(name), "device"]
    for setting in sorted(given):
        if setting not in allowed:
            raise unknown(f"setting of codec {name!r}:", setting, allowed)


def _check_complete(name: str, settings: Iterable[str]) -> None:
    missing = sorted(set(settings_of(name, needed=True)) - set(settings))
    if missing:
        raise ValueError(f"codec {name!r} needs the setting {', '.join(missing)}")


@overload
def load(name: LatentName, *, device: str | torch.device = ..., **settings: Any) -> LatentCodec: ...


@overload
def load(name: str, *, device: str | torch.device = ..., **settings: Any) -> Codec: ...


def load(name: str, *, device: str | torch.device = "cpu", **settings: Any) -> Codec:
    """Build the codec `name`.

    Args:
        name: one that `neuralcodec.list_codecs()` lists, or `module:Class`; for a latent codec also
            with "+rvq" after it, which fits our quantizer on its latents (see
            `neuralcodec.latent.requantized.load`).
        device: where it computes; classical codecs and Lyra run on the CPU only.
        **settings: those of the codec, such as `bitrate_kbps` of "opus" or `frame_rate` of "mdct".

    Returns:
        The codec, a `LatentCodec` where its latents can be reached.

    Raises:
        ValueError: if there is no such codec or setting, or a value is out of its range, or the
            codec does not run on the device, or torch can't use that here.
        ImportError: if a package that it needs is missing, with how to install it; or if a codec
            of another distribution fails, with the name of that.
        WeightsMissing: if its weights are nowhere to be found, with what to do.

    >>> load("mdct", frame_rate=50).dim
    320
    """
    if name.endswith(RVQ_SUFFIX):
        plain = name.removesuffix(RVQ_SUFFIX)
        entry_of(plain)
        return _requantized_load()(plain, device=device, **settings)
    check_settings(name, settings)
    _check_complete(name, settings)
    make: Any = find(name)
    try:
        codec: Codec = make(**entry_of(name).fixed, **settings)
    except Exception as error:
        whose = "" if name in REGISTRY else plugin_of(name).whose
        if not whose:
            raise
        kind = ValueError if isinstance(error, ValueError) else RuntimeError
        raise kind(f"codec {name!r}{whose}: {error}") from error
    return codec.to(device)
