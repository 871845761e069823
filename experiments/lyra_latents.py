"""Latents of recordings, computed with the encoder of Lyra v2, a trained SoundStream."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from neuralcodec import weights as checkpoints
from neuralcodec.core import loading as codecs
from neuralcodec.data import Clip


@dataclass(frozen=True)
class Latents:
    """Concatenated latents of several recordings.

    Attributes:
        vectors: `[N, 64]` float32.
        speakers: speaker of each recording.
        frames: number of frames of each recording, with sum N.
    """

    vectors: Tensor
    speakers: tuple[str, ...]
    frames: tuple[int, ...]

    def of(self, speakers: Sequence[str]) -> Tensor:
        """Return the latents of some speakers, `[M, 64]`, in the order of the recordings."""
        parts = torch.split(self.vectors, list(self.frames))
        chosen = [part for part, name in zip(parts, self.speakers, strict=True) if name in speakers]
        return torch.cat(chosen) if chosen else self.vectors[:0]


def codebooks(weights: Path) -> Tensor:
    """Return Lyra's own codebooks, `[46, 16, 64]` float32."""
    books: Tensor = codecs.load("lyra_v2", weights=weights).rvq.codebooks
    return books


def _key(clips: Sequence[Clip], encoder: Path) -> str:
    """Return a digest of the encoder's content and of the names and sizes of recordings."""
    digest = hashlib.sha256(encoder.read_bytes())
    for clip in clips:
        digest.update(f"{clip.path.name} {clip.path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def latents(clips: Sequence[Clip], weights: Path, cache: Path) -> Latents:
    """Return the latents of recordings, from the cache if they were encoded before.

    Args:
        clips: the recordings.
        weights: folder of Lyra's files.
        cache: folder in which latents are cached, created if it does not exist.

    Raises:
        ImportError: if `ai-edge-litert` is missing; the message says how to install it.
        OSError: if a recording or the encoder cannot be read.
    """
    key = _key(clips, checkpoints.locate("lyra_encoder", weights))
    path = cache / f"lyra_v2_latents_{key}.npz"
    if not path.exists():
        lyra = codecs.load("lyra_v2", weights=weights)
        parts = [
            lyra.encode_latents(clip.read(lyra.sample_rate)[None])[0].T.numpy()
            for clip in tqdm(clips, desc="Lyra latents")
        ]
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished.npz")
        frames = np.array([len(part) for part in parts])
        np.savez(unfinished, vectors=np.concatenate(parts), frames=frames)
        unfinished.replace(path)
    with np.load(path, allow_pickle=False) as file:
        vectors, frames = torch.from_numpy(file["vectors"]), file["frames"].tolist()
    return Latents(vectors, tuple(clip.speaker for clip in clips), tuple(frames))
