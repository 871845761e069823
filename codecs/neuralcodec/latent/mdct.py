"""The modified discrete cosine transform as a latent codec without weights."""

import math

import torch
from torch import Tensor

from neuralcodec.core.audio import fit_length
from neuralcodec.core.latents import LatentCodec


def hop_length_of(sample_rate: int, frame_rate: float) -> int:
    """Return the samples per frame, or raise ValueError if that is no whole number."""
    if sample_rate < 1 or not 0 < frame_rate <= sample_rate:
        raise ValueError(
            f"need sample_rate >= 1 and 0 < frame_rate <= sample_rate, "
            f"got {sample_rate} and {frame_rate} Hz"
        )
    hop = round(sample_rate / frame_rate)
    if not math.isclose(hop * frame_rate, sample_rate, rel_tol=1e-9):
        raise ValueError(
            f"frame_rate {frame_rate:g} Hz does not divide the sample rate {sample_rate} Hz; "
            f"near it do {sample_rate / (hop + 1):g}, {sample_rate / hop:g} Hz"
        )
    return hop


class Mdct(LatentCodec):
    """Modified discrete cosine transform with a sine window.

    The time-domain aliasing of neighbouring frames cancels (Princen and Bradley 1986), and the
    transform is orthonormal: without a quantizer `decode_latents` reconstructs the audio, with one
    the squared error of the audio is at most that of the latents. T samples have
    ceil(T / hop) + 1 frames. A frame of 2 * hop samples extends one hop beyond its own, so the
    codec is not causal.

    Args:
        frame_rate: Hz; must divide `sample_rate`.
        sample_rate: Hz.

    Raises:
        ValueError: if `frame_rate` does not divide `sample_rate`.
    """

    name = "mdct"
    has_codebooks = False
    basis: Tensor  # [D, 2 D]

    def __init__(self, frame_rate: float = 50.0, sample_rate: int = 16000) -> None:
        super().__init__()
        self.dim = hop_length_of(sample_rate, frame_rate)
        self.sample_rate, self.frame_rate = sample_rate, float(frame_rate)
        n = torch.arange(2 * self.dim, dtype=torch.float64)
        k = torch.arange(self.dim, dtype=torch.float64)
        window = torch.sin(math.pi / (2 * self.dim) * (n + 0.5))
        phase = math.pi / self.dim * torch.outer(k + 0.5, n + 0.5 + self.dim / 2)
        basis = (math.sqrt(2 / self.dim) * window * torch.cos(phase)).float()
        self.register_buffer("basis", basis, persistent=False)

    def _analyse(self, wav: Tensor) -> Tensor:
        frames = -(-wav.shape[-1] // self.dim) + 1
        padded = torch.nn.functional.pad(wav[:, 0], (self.dim, 0))
        padded = fit_length(padded, (frames + 1) * self.dim)
        blocks = padded.unfold(-1, 2 * self.dim, self.dim)  # [B, frames, 2 D]
        return (blocks @ self.basis.T).transpose(1, 2)

    def _synthesise(self, z: Tensor) -> Tensor:
        blocks = z.transpose(1, 2) @ self.basis  # [B, frames, 2 D]
        first, second = blocks[..., : self.dim], blocks[..., self.dim :]
        return (second[:, :-1] + first[:, 1:]).flatten(1)[:, None]
