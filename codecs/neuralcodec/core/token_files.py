"""Tokens in a safetensors file: tensors and a header in JSON, nothing pickled.

For experiments: it holds any tokens, whole batches too, as fast as the disk goes. The small file of
one clip, packed and with the codec's name, is that of `neuralcodec.bitstream`.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from neuralcodec.core.clip_shape import ClipShape
from neuralcodec.core.files import write_whole
from neuralcodec.core.token_data import TokenData

_HEADER = "neuralcodec.tokens"
_VERSION = 1


def _plain(number: Any) -> Any:
    """Return the Python number that a NumPy number stands for."""
    return number.item()


def write_tokens(path: Path, tokens: TokenData) -> None:
    """Write tokens; see `Tokens.save`."""
    if any(array.is_meta for array in tokens.arrays):
        raise ValueError("tokens on the meta device have no values to save")
    names = ["codes"]
    if not isinstance(tokens.codes, Tensor):
        names = [f"codes.{k}" for k in range(tokens.num_codebooks)]
    tensors = dict(zip(names, tokens.arrays, strict=True))
    tensors |= {f"side.{name}": value for name, value in tokens.side.items()}
    header = {
        "version": _VERSION,
        "frame_rates": tokens.frame_rates,
        "codebook_sizes": tokens.codebook_sizes,
        "sample_rate": tokens.sample_rate,
        "num_samples": tokens.num_samples,
        "side_bits": tokens.side_bits,
        "clips": tokens.clips and [asdict(shape) for shape in tokens.clips],
    }
    # Tensors of a file share no memory; codebooks may be views of one tensor.
    whole = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    write_whole(path, save(whole, {_HEADER: json.dumps(header, default=_plain)}))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():  # safe_open does not name a folder
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def _clip(fields: dict[str, Any]) -> ClipShape:
    return ClipShape(
        fields["num_samples"],
        frames=tuple(fields["frames"]),
        frame_rates=tuple(fields["frame_rates"]),
        side_bits=fields["side_bits"],
        side_sizes=tuple((name, size) for name, size in fields["side_sizes"]),
    )


def _fields(header: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the fields of `Tokens`, named as its arguments."""
    if "codes" in tensors:
        codes: Tensor | tuple[Tensor, ...] = tensors["codes"]
    else:
        codes = tuple(tensors[f"codes.{k}"] for k in range(len(header["codebook_sizes"])))
    sides = [name for name in tensors if name.startswith("side.")]
    return header | {
        "codes": codes,
        "side": {name.removeprefix("side."): tensors[name] for name in sides},
        "clips": header["clips"] and tuple(map(_clip, header["clips"])),
    }


def read_tokens(path: Path) -> dict[str, Any]:
    """Return the fields of `Tokens` that a file holds; see `Tokens.load`."""
    tensors, metadata = _read(path)
    if _HEADER not in metadata:
        raise ValueError(f"{path} holds no tokens: Tokens.save did not write it")
    try:
        header = json.loads(metadata[_HEADER])
        version = header.pop("version")
        if version == _VERSION:
            return _fields(header, tensors)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has a damaged header: {error!r}") from error
    raise ValueError(
        f"{path} has version {version!r} of the format, this release of neuralcodec reads "
        f"version {_VERSION}"
    )
