"""The checkpoints of the codecs: their registry, their places on disk and their download."""

from neuralcodec.weights.places import (
    WeightsMissing,
    cache,
    check,
    fetch,
    find,
    hub_folder,
    locate,
)
from neuralcodec.weights.registry import CHECKPOINTS, Checkpoint

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "WeightsMissing",
    "cache",
    "check",
    "fetch",
    "find",
    "hub_folder",
    "locate",
]
