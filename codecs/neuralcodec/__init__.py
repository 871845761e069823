"""What does a token buy? A research toolkit for neural audio codecs.

    import neuralcodec

    codec = neuralcodec.load("tiny_50hz")
    clip = neuralcodec.clips("starter:test")[-1]
    tokens = codec.encode(clip.read(codec.sample_rate))

Names are imported when they are first used: `import neuralcodec.quantize` loads torch and numba,
and nothing else of the package.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralcodec.core.codec import Codec
    from neuralcodec.core.latents import LatentCodec
    from neuralcodec.core.loading import load
    from neuralcodec.core.tokens import Tokens
    from neuralcodec.data import clips
    from neuralcodec.metrics import score
    from neuralcodec.weights.listing import list_codecs

__version__ = "0.1.0"

__all__ = ["Codec", "LatentCodec", "Tokens", "clips", "list_codecs", "load", "score"]

_HOMES = {
    "Codec": "neuralcodec.core.codec",
    "LatentCodec": "neuralcodec.core.latents",
    "Tokens": "neuralcodec.core.tokens",
    "clips": "neuralcodec.data",
    "list_codecs": "neuralcodec.weights.listing",
    "load": "neuralcodec.core.loading",
    "score": "neuralcodec.metrics",
}
_ROOMS = frozenset(
    "analysis bitstream check core data latent metrics quantize sweep tiny weights wrappers".split()
)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
