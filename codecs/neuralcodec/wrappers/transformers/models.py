"""Loading of the codec models of the package `transformers`: EnCodec, DAC, Mimi and X-Codec.

Weights are read from safetensors only. Weights that a checkpoint lacks are an error; the package
would initialise them at random and only log that.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from neuralcodec.core import torchaudio_guard
from neuralcodec.core.digests import digest_of
from neuralcodec.core.names import unknown
from neuralcodec.core.networks import fold_weight_norm

torchaudio_guard.load()

from transformers import (  # noqa: E402  # it imports torchaudio
    DacModel,
    EncodecModel,
    MimiModel,
    PreTrainedModel,
    XcodecModel,
)
from transformers.utils import logging as their_logging  # noqa: E402  # likewise
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY  # noqa: E402  # likewise

MODELS: dict[str, Any] = {
    "encodec": EncodecModel,
    "dac": DacModel,
    "mimi": MimiModel,
    "xcodec": XcodecModel,
}
"""The package's classes by the `model_type` of config.json."""


def forget_hooks(network: Any) -> None:
    """Remove the hooks that the package leaves in a model after its first call.

    They are local functions, which cannot be pickled. The next call installs them again.
    """
    for module in network.modules():
        for key, hook in list(module._forward_hooks.items()):
            if "output_capturing_hook" in getattr(hook, "__qualname__", ""):
                del module._forward_hooks[key]
        if "_output_capturing_hooks_installed" in vars(module):
            module._output_capturing_hooks_installed = False


def register_again(network: Any) -> None:
    """Register a model that was unpickled with the package.

    Its models enter themselves into a table of the process when they are made, without which they
    return no hidden states in another process.
    """
    for module in network.modules():
        if isinstance(module, PreTrainedModel):
            _CAN_RECORD_REGISTRY[module] = module._can_record_outputs


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to use.

    Attributes:
        network: the model on the CPU, float32, in eval mode, weight norm folded into the weights.
        digest: digest of the weights before folding, whose rounding differs between machines.
    """

    network: Any
    digest: str


def finish(network: Any) -> Loaded:
    """Fold the weight norm of a model, set eval mode and return it with its digest."""
    digest = digest_of(network.state_dict())
    fold_weight_norm(network)
    return Loaded(network.eval(), digest)


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off the package's progress bars and logging in this context."""
    verbosity = their_logging.get_verbosity()
    hook = their_logging.set_tqdm_hook(
        lambda bar, args, options: bar(*args, **(options | {"disable": True}))
    )
    their_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        their_logging.set_verbosity(verbosity)
        their_logging.set_tqdm_hook(hook)


def _kind(folder: Path, kinds: tuple[str, ...]) -> str:
    """Return the `model_type` of the model in a folder.

    Raises:
        ValueError: if there is no configuration, or the type is not one of `kinds`.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no model: there is no config.json")
    try:
        kind = json.loads(path.read_bytes())["model_type"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no configuration of a model: {error!r}") from error
    if kind not in kinds:
        raise unknown(f"{folder}: model_type", str(kind), kinds)
    return str(kind)


def load(folder: Path, kinds: tuple[str, ...] = tuple(MODELS)) -> Loaded:
    """Load a model on the CPU, float32, in eval mode, weight norm folded into the weights.

    Args:
        folder: folder with config.json and the weights as safetensors, in one file or several.
        kinds: `model_type`s that are accepted.

    Raises:
        ValueError: if there is no such model in the folder, its weights are not safetensors, or
            a tensor is missing or has another shape than the configuration states.
    """
    model = MODELS[_kind(folder, kinds)]
    try:
        with _quiet():
            network, found = model.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # reported below instead
                output_loading_info=True,
            )
    except (OSError, SafetensorError, StrictDataclassError) as error:
        raise ValueError(f"{folder} can't be loaded: {error}") from error
    misfits = sorted(found["missing_keys"]) + sorted(key for key, *_ in found["mismatched_keys"])
    if misfits:
        raise ValueError(
            f"in {folder} {len(misfits)} tensors are missing or of another shape than config.json "
            f"asks for, such as {misfits[0]}"
        )
    return finish(network)
