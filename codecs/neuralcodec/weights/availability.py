"""Check whether a codec can run on this machine: its package and its weights."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from neuralcodec import weights
from neuralcodec.core.loading import missing_package
from neuralcodec.core.registry import RVQ_SUFFIX, entry_of


def why_unavailable(name: str, settings: Mapping[str, Any]) -> str | None:
    """Return why the codec cannot run here and how to fix it, or None.

    Weights that are not on this machine are downloaded, unless a setting `weights` replaces them.
    Nothing is imported.

    Args:
        name: name of the codec, with or without "+rvq".
        settings: settings with which it would be loaded.

    Returns:
        One line, or None if the codec can run.
    """
    name = name.removesuffix(RVQ_SUFFIX)
    entry = entry_of(name)
    if entry.package is not None and importlib.util.find_spec(entry.package) is None:
        return str(missing_package(name, entry.package))
    if "weights" in settings:
        return None
    try:
        for checkpoint in entry.checkpoints:
            weights.locate(checkpoint)
    except (OSError, ValueError) as error:
        return str(error)
    return None
