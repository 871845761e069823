"""What does a token buy? A research toolkit for neural audio codecs.

Submodules are imported when they are first used: `import neuralcodec.quantize` stays light.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "load": "neuralcodec.codec",
    "Codec": "neuralcodec.codec",
    "LatentCodec": "neuralcodec.codec",
    "Tokens": "neuralcodec.tokens",
}
_SUBMODULES = frozenset(
    {
        "audio",
        "bitstream",
        "check",
        "chunks",
        "codec",
        "data",
        "metrics",
        "plot",
        "quantize",
        "sweep",
        "tokens",
        "weights",
    }
)

__all__ = ["Codec", "LatentCodec", "Tokens", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
