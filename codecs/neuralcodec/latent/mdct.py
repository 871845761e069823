"""The modified discrete cosine transform as a latent codec without weights."""

import math

import torch
from torch import Tensor

from neuralcodec.core.audio import check_wav, fit_length
from neuralcodec.core.checks import check_latents


def hop_length_of(sample_rate: int, frame_rate: float) -> int:
    """Give the samples of a frame, which must be whole."""
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


class Mdct:
    """Modified discrete cosine transform with a sine window, as a `LatentCodec`.

    The time-domain aliasing of neighbouring frames cancels (Princen and Bradley 1986), and the
    transform is orthonormal: without a quantizer `decode_latents` gives the audio back, with one
    the squared error of the audio is that of the latents.

    Args:
        frame_rate: Hz; must divide `sample_rate`.
        sample_rate: Hz.

    Raises:
        ValueError: if `frame_rate` does not divide `sample_rate`.
    """

    name = "mdct"
    channels = 1
    is_causal = False  # a frame of 2 * hop samples reaches one hop ahead

    def __init__(self, frame_rate: float = 50.0, sample_rate: int = 16000) -> None:
        self.dim = hop_length_of(sample_rate, frame_rate)
        self.sample_rate, self.frame_rate = sample_rate, float(frame_rate)
        n = torch.arange(2 * self.dim, dtype=torch.float64)
        k = torch.arange(self.dim, dtype=torch.float64)
        window = torch.sin(math.pi / (2 * self.dim) * (n + 0.5))
        phase = math.pi / self.dim * torch.outer(k + 0.5, n + 0.5 + self.dim / 2)
        self._basis = (math.sqrt(2 / self.dim) * window * torch.cos(phase)).float()  # [D, 2 D]

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, 1, T]` into coefficients `[B, hop, ceil(T / hop) + 1]`."""
        check_wav(wav, channels=1)
        frames = -(-wav.shape[-1] // self.dim) + 1
        padded = torch.nn.functional.pad(wav[:, 0].float(), (self.dim, 0))
        padded = fit_length(padded, (frames + 1) * self.dim)
        blocks = padded.unfold(-1, 2 * self.dim, self.dim)  # [B, frames, 2 D]
        return (blocks @ self._basis.T).transpose(1, 2)

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn coefficients `[B, hop, frames]` into wav `[B, 1, length]`; overlap and add."""
        check_latents(z, self.dim)
        blocks = z.transpose(1, 2).float() @ self._basis  # [B, frames, 2 D]
        first, second = blocks[..., : self.dim], blocks[..., self.dim :]
        wav = (second[:, :-1] + first[:, 1:]).flatten(1)[:, None]
        return wav if length is None else fit_length(wav, length)
