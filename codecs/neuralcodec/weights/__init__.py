"""The files that codecs load: which they are, where they are, and how they are downloaded."""

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
