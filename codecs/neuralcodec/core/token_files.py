"""Tokens in safetensors files: arrays by name, and the rest as JSON; nothing pickled."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from neuralcodec.core.files import write_whole
from neuralcodec.core.token_checks import ClipShape

if TYPE_CHECKING:
    from neuralcodec.core.tokens import Tokens

_VERSION = 1
_KEY = "neuralcodec.tokens"


def write(path: Path, tokens: "Tokens") -> None:
    """See `Tokens.save`."""
    codes = tokens.codes
    whole = isinstance(codes, Tensor)
    arrays = {f"codes.{k}": stream for k, stream in enumerate(tokens.streams)}
    if isinstance(codes, Tensor):
        arrays = {"codes": codes}
    arrays |= {f"side.{name}": value for name, value in tokens.side.items()}
    facts = {
        "version": _VERSION,
        "frame_rates": tokens.frame_rates,
        "codebook_sizes": tokens.codebook_sizes,
        "sample_rate": tokens.sample_rate,
        "num_samples": tokens.num_samples,
        "side_bits": tokens.side_bits,
        "clips": tokens.clips and [asdict(clip) for clip in tokens.clips],
        "streams": 0 if whole else tokens.num_codebooks,
    }
    ready = {name: value.detach().cpu().contiguous() for name, value in arrays.items()}
    write_whole(path, save(ready, metadata={_KEY: json.dumps(facts)}))


def _clip(facts: dict[str, Any]) -> ClipShape:
    return ClipShape(
        facts["num_samples"],
        tuple(facts["frames"]),
        tuple(facts["frame_rates"]),
        facts["side_bits"],
        tuple((name, size) for name, size in facts["sides"]),
    )


def read(path: Path) -> dict[str, Any]:
    """Return the fields of the tokens in a file that `write` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file, or of a later version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of tokens at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_KEY])
            if facts["version"] > _VERSION:
                raise ValueError(f"of version {facts['version']}, this program reads {_VERSION}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        clips = facts["clips"] and tuple(map(_clip, facts["clips"]))
        streams = [f"codes.{k}" for k in range(facts["streams"])]
        return {
            "codes": tuple(arrays[name] for name in streams) if streams else arrays["codes"],
            "frame_rates": tuple(facts["frame_rates"]),
            "codebook_sizes": tuple(facts["codebook_sizes"]),
            "sample_rate": facts["sample_rate"],
            "num_samples": facts["num_samples"],
            "side": {
                name.removeprefix("side."): value
                for name, value in arrays.items()
                if name.startswith("side.")
            },
            "side_bits": facts["side_bits"],
            "clips": clips or None,
        }
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of tokens that Tokens.save wrote: {error}") from error
