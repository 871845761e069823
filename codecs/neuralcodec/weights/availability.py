"""Whether a codec can run on this machine."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from neuralcodec import weights
from neuralcodec.core.loading import missing_package
from neuralcodec.core.registry import RVQ_SUFFIX, entry_of


def why_unavailable(name: str, settings: Mapping[str, Any]) -> str | None:
    """Return why the codec cannot run here and how to fix it, or None.

    Weights that it needs, and that no setting `weights` stands for, are downloaded if they are not
    on this machine. Nothing is imported.
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
