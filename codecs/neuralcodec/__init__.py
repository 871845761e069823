"""What does a token buy? A research toolkit for neural audio codecs.

Submodules are imported when they are first used: `import neuralcodec.quantize` stays light.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "load": "neuralcodec.core.loading",
    "Codec": "neuralcodec.core.codec",
    "LatentCodec": "neuralcodec.core.latents",
    "Tokens": "neuralcodec.core.tokens",
}
_ROOMS = frozenset(
    {
        "analysis",
        "bitstream",
        "check",
        "core",
        "data",
        "latent",
        "metrics",
        "quantize",
        "sweep",
        "tiny",
        "weights",
        "wrappers",
    }
)

__all__ = ["Codec", "LatentCodec", "Tokens", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
