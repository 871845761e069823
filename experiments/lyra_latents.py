"""Latents of Lyra v2, a trained SoundStream: what its encoder makes of recordings.

Lyra v2 (google/lyra v1.3.2, Apache-2.0) turns 16 kHz speech into 50 latents of 64 numbers a second.
Its encoder is a TFLite file, run here by `ai-edge-litert`. It is a causal network that keeps its
past in variables, so every clip starts with them reset. Its weights are 8-bit numbers in part:
another runtime gives latents that differ a little.
"""

import csv
import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from neuralcodec import audio

SAMPLE_RATE = 16_000
HOP_LENGTH = 320
DIM = 64

_ENCODER = "soundstream_encoder.tflite"
_CODEBOOKS = "codebooks.npz"


@dataclass(frozen=True)
class Recording:
    """A file that a manifest names, and who speaks in it."""

    path: Path
    speaker: str


@dataclass(frozen=True)
class Latents:
    """Latents of several recordings, one after the other.

    Attributes:
        vectors: `[N, 64]` float32.
        speakers: of each recording.
        frames: of each recording; they add up to N.
    """

    vectors: Tensor
    speakers: tuple[str, ...]
    frames: tuple[int, ...]

    def of(self, speakers: Sequence[str]) -> Tensor:
        """Give the latents of some speakers, `[M, 64]`, in the order of the recordings."""
        parts = torch.split(self.vectors, list(self.frames))
        chosen = [part for part, name in zip(parts, self.speakers, strict=True) if name in speakers]
        return torch.cat(chosen) if chosen else self.vectors[:0]


def recordings(folder: Path) -> list[Recording]:
    """Read which recordings the `manifest.csv` of a folder names, and their speakers.

    Raises:
        FileNotFoundError: if there is no manifest.
    """
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return [Recording(folder / row["file"], row["speaker"]) for row in csv.DictReader(file)]


def codebooks(weights: Path) -> Tensor:
    """Read Lyra's own codebooks, `[46, 16, 64]` float32."""
    with np.load(weights / _CODEBOOKS, allow_pickle=False) as file:
        return torch.from_numpy(file["codebooks"].astype(np.float32))


def _wav(path: Path) -> np.ndarray:
    """Read a recording as 16 kHz mono, `[frames, 320]`, its end filled up with zeros."""
    wav, sample_rate = audio.read(path)
    wav = audio.resample(audio.mix_down(wav), sample_rate, SAMPLE_RATE)
    frames = -(-wav.shape[-1] // HOP_LENGTH)
    return audio.fit_length(wav, frames * HOP_LENGTH).reshape(frames, HOP_LENGTH).numpy()


def _encode(interpreter: Any, wav: np.ndarray) -> np.ndarray:
    interpreter.reset_all_variables()
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    latents = np.empty((len(wav), DIM), np.float32)
    for frame, latent in zip(wav, latents, strict=True):
        interpreter.set_tensor(source["index"], frame[None])
        interpreter.invoke()
        latent[:] = interpreter.get_tensor(target["index"]).reshape(DIM)
    return latents


def _key(files: Sequence[Recording], encoder: bytes) -> str:
    """Name a set of recordings and an encoder by their content; recordings by name and size."""
    digest = hashlib.sha256(encoder)
    for each in files:
        digest.update(f"{each.path.name} {each.path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def latents(files: Sequence[Recording], weights: Path, cache: Path) -> Latents:
    """Encode recordings, or read what was encoded before.

    Args:
        files: the recordings.
        weights: folder of Lyra's files.
        cache: folder where latents are kept, made if it does not exist.

    Raises:
        ModuleNotFoundError: if `ai-edge-litert` is missing: install the extra `bench`.
        OSError: if a recording or the encoder can't be read.
    """
    path = cache / f"lyra_latents_{_key(files, (weights / _ENCODER).read_bytes())}.npz"
    if not path.exists():
        runtime = importlib.import_module("ai_edge_litert.interpreter")
        interpreter = runtime.Interpreter(str(weights / _ENCODER), num_threads=1)
        interpreter.allocate_tensors()
        parts = [_encode(interpreter, _wav(each.path)) for each in tqdm(files, desc="Lyra latents")]
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished.npz")
        frames = np.array([len(part) for part in parts])
        np.savez(unfinished, vectors=np.concatenate(parts), frames=frames)
        unfinished.replace(path)
    with np.load(path, allow_pickle=False) as file:
        vectors, frames = torch.from_numpy(file["vectors"]), file["frames"].tolist()
    return Latents(vectors, tuple(each.speaker for each in files), tuple(frames))
