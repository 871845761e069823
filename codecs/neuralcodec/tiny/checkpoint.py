"""Files of a tiny codec: a compact model for distribution, and the state of a training run.

Both are safetensors files, with everything that is not a tensor as JSON in the metadata.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from neuralcodec.core.files import write_whole
from neuralcodec.quantize import ResidualVectorQuantizer
from neuralcodec.tiny.model import TinyConfig, TinyModel

_NETWORKS = ("encoder.", "decoder.")
_STACKED = ("encoder.end", "encoder.direct", "decoder.begin")
_CODEBOOKS = "codebooks"
_SCALE = ".scale_of_rows"  # suffix of the name of an 8-bit matrix


def _open(path: Path, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the metadata of a file and, unless `tensors` is False, all its tensors.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a safetensors file with the expected metadata.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            names = file.keys() if tensors else ()
            found = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no checkpoint of a tiny codec: {error}") from error
    return found, facts


def _write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(kept, {"facts": json.dumps(facts)}))


def _packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert matrices to 8 bits with one scale per row, and other tensors to half precision.

    Raises:
        ValueError: if a value does not fit in half precision.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            scale = (tensor.abs().amax(dim=1) / 127).clamp(min=1e-7).half()
            packed[name + _SCALE] = scale
            tensor = tensor / scale.float()[:, None]
            packed[name] = tensor.round().clamp(-127, 127).to(torch.int8)
        else:
            packed[name] = tensor.half()
    for name, tensor in packed.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds values that half precision can't: not written")
    return packed


def _unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Invert `_packed`, up to rounding; all tensors become float32."""
    return {
        name: tensor.float() * tensors[name + _SCALE].float()[:, None]
        if tensor.dtype == torch.int8
        else tensor.float()
        for name, tensor in tensors.items()
        if not name.endswith(_SCALE)
    }


def save_model(
    path: Path,
    config: TinyConfig,
    weights: Mapping[str, Tensor],
    codebooks: Tensor,
    facts: Mapping[str, Any],
) -> None:
    """Write a model: matrices in 8 bits with one scale per row, other tensors in half precision.

    Args:
        path: file to write.
        config: sizes of the network.
        weights: weights of encoder and decoder by name, as in `TinyModel.state_dict`; others are
            ignored.
        codebooks: `[K, V, D]`.
        facts: further metadata about the training, JSON-serialisable.

    Raises:
        ValueError: if a value does not fit in half precision.
        OSError: if the file cannot be written.
    """
    kept = {name: tensor for name, tensor in weights.items() if name.startswith(_NETWORKS)}
    packed = _packed({**kept, _CODEBOOKS: codebooks})
    _write(path, packed, {**facts, "config": asdict(config)})


def load_model(path: str | Path) -> tuple[TinyModel, dict[str, Any]]:
    """Read a model that `save_model` wrote; return it in evaluation mode, with its metadata.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a file, or its weights do not match its configuration.
    """
    tensors, facts = _open(Path(path))
    try:
        config = TinyConfig(**facts["config"])
        kept = _unpacked(tensors)
        codebooks = kept.pop(_CODEBOOKS)
        model = TinyModel(config)
        model.rvq = ResidualVectorQuantizer.from_codebooks(codebooks, frame_rate=config.frame_rate)
        missing = model.load_state_dict(kept, strict=False)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is no model of a tiny codec: {error}") from error
    lacking = [name for name in missing.missing_keys if name.startswith(_NETWORKS)]
    if lacking or missing.unexpected_keys or codebooks.shape[2] != config.dim:
        raise ValueError(
            f"{path} is no model of its configuration: without {lacking}, "
            f"with {missing.unexpected_keys}"
        )
    return model.eval(), facts


def _stacked(name: str, weight: Tensor, count: int) -> Tensor:
    """Return a weight to or from latents for `count` concatenated latents; others unchanged."""
    if not name.startswith(_STACKED):
        return weight
    if weight.ndim == 1:
        return weight.repeat(count)
    stacked: Tensor = torch.block_diag(*[weight] * count)  # type: ignore[no-untyped-call]
    return stacked


def begin_with(model: TinyModel, path: str | Path) -> list[str]:
    """Initialise a model with the weights of another one whose name and shape match.

    If the model stacks a multiple of the other's frames per latent, and its latents have as many
    times the channels, the layers next to the latents become block-diagonal: a latent is then
    initially the concatenation of latents of the other model. Codebooks are copied if their shapes
    match.

    Returns:
        Names of the weights that were not initialised.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a model, or none of its weights match.
    """
    other, _ = load_model(path)
    count = max(model.config.stack // other.config.stack, 1)
    theirs = {
        name: _stacked(name, weight, count)
        for name, weight in other.state_dict().items()
        if name.startswith(_NETWORKS)
    }
    ours = {k: v for k, v in model.state_dict().items() if k.startswith(_NETWORKS)}
    fitting = {k: v for k, v in theirs.items() if k in ours and ours[k].shape == v.shape}
    if not fitting:
        raise ValueError(f"no weight of {path} fits the model that is to begin with it")
    model.load_state_dict(fitting, strict=False)
    if other.rvq.codebooks.shape == model.rvq.codebooks.shape:
        with torch.no_grad():
            model.rvq.codebooks.copy_(other.rvq.codebooks)
    return sorted(set(ours) - set(fitting))


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state tensors of an optimiser, named by parameter number and key."""
    return {
        f"{index}.{key}": torch.as_tensor(value)
        for index, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
    }


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the state tensors that `_flatten` returned into an optimiser."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


Part = torch.nn.Module | torch.optim.Optimizer | dict[str, Tensor]


def facts_of(path: Path) -> dict[str, Any]:
    """Return the metadata of a file without reading its tensors.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a file of this module.
    """
    return _open(path, tensors=False)[1]


def save_state(path: Path, parts: Mapping[str, Part], facts: Mapping[str, Any]) -> None:
    """Write the state of a training run atomically.

    Args:
        path: file to write.
        parts: modules, optimisers or dicts of tensors, by a name without dots.
        facts: further metadata, JSON-serialisable.

    Raises:
        OSError: if the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        if isinstance(part, torch.optim.Optimizer):
            inner = _flatten(part)
        else:
            inner = part.state_dict() if isinstance(part, torch.nn.Module) else part
        tensors |= {f"{name}.{key}": tensor.clone() for key, tensor in inner.items()}
    _write(path, tensors, facts)


def load_state(path: Path, parts: Mapping[str, Part]) -> dict[str, Any]:
    """Restore parts to the state that `save_state` wrote, in place; return the metadata.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it contains other parts.
    """
    tensors, facts = _open(path)
    names: Iterable[str] = {name.partition(".")[0] for name in tensors}
    for name, part in parts.items():
        inner = {
            key.removeprefix(f"{name}."): tensor
            for key, tensor in tensors.items()
            if key.startswith(f"{name}.")
        }
        try:
            if isinstance(part, torch.optim.Optimizer):
                _restore(part, inner)
            elif isinstance(part, torch.nn.Module):
                part.load_state_dict(inner)
            else:
                for key, tensor in part.items():
                    tensor.copy_(inner[key])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{path} is of another training (it has {', '.join(sorted(names))}): {error}"
            ) from error
    return facts
