"""Which files the codecs load: names, URLs, checksums and licences, from `checkpoints.toml`."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pooch

from neuralcodec.weights.checksums import FULL

_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Checkpoint:
    """A published file.

    Attributes:
        path: where it lies in a folder of weights, such as "lyra/lyragan.tflite".
        url: where it is published, at a pinned revision.
        licence: of the weights.
        sha256: of its content in hex digits, or the leading ones that are known; None if none is.
    """

    path: str
    url: str
    licence: str
    sha256: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether the whole checksum is known."""
        return self.sha256 is not None and len(self.sha256) == FULL


def _read() -> dict[str, Checkpoint]:
    table = Path(__file__).with_name("checkpoints.toml").read_text(encoding="utf-8")
    return {name: Checkpoint(**row) for name, row in tomllib.loads(table).items()}


CHECKPOINTS: dict[str, Checkpoint] = _read()
"""Every published file by name."""


def hub_url() -> str:
    """Return the address of the Hugging Face hub: HF_ENDPOINT, or huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")


def published(folder: Path) -> pooch.Pooch:
    """Return pooch's registry of all checkpoints, which downloads them into `folder`.

    Files come from the URL in NEURALCODEC_MIRROR, to which `Checkpoint.path` is added, or from
    where they are published. pooch has no partial checksums, so those are left out.
    """
    mirror = os.environ.get("NEURALCODEC_MIRROR")
    entries = CHECKPOINTS.values()
    return pooch.create(
        folder,
        base_url=mirror or hub_url(),
        registry={entry.path: entry.sha256 if entry.is_pinned else None for entry in entries},
        urls={} if mirror else {e.path: e.url.replace(_HUB, hub_url(), 1) for e in entries},
    )
