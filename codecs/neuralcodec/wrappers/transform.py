"""Transforms as latent codecs without weights: MDCT and log-mel frames.

Nothing in them is learned, so whatever quality our quantizer reaches in their latents is the
quantizer's own. Both have a frame rate that can be set.
"""

import math

import torch
from torch import Tensor

from neuralcodec import torchaudio_guard
from neuralcodec.audio import check_wav, fit_length
from neuralcodec.wrappers.checks import check_latents
from neuralcodec.wrappers.network import seeded


def _hop_length(sample_rate: int, frame_rate: float) -> int:
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
        self.dim = _hop_length(sample_rate, frame_rate)
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


class Mel:
    """Log-mel frames, made audible by Griffin-Lim, as a `LatentCodec`.

    The phase is lost: even without a quantizer `decode_latents` only sounds like the audio.
    Magnitudes by least squares from the mel bands, phase by the fast Griffin-Lim algorithm
    (Perraudin et al. 2013) from a fixed random start, so decoding is deterministic.

    Args:
        frame_rate: Hz; must divide `sample_rate`.
        sample_rate: Hz.
        num_mels: D, mel bands from 0 to sample_rate / 2.
        iterations: of Griffin-Lim.

    Raises:
        ValueError: if `frame_rate` does not divide `sample_rate`, or a count is below 1.
    """

    name = "mel"
    channels = 1
    is_causal = False  # frames are centred

    def __init__(
        self,
        frame_rate: float = 50.0,
        sample_rate: int = 16000,
        num_mels: int = 80,
        iterations: int = 32,
    ) -> None:
        if num_mels < 1 or iterations < 1:
            raise ValueError(f"need num_mels, iterations >= 1, got {num_mels} and {iterations}")
        self._hop = _hop_length(sample_rate, frame_rate)
        self.sample_rate, self.frame_rate, self.dim = sample_rate, float(frame_rate), num_mels
        self._floor = 1e-5
        window = max(2 * self._hop, 64 * sample_rate // 1000)  # samples; 64 ms resolves the pitch
        transforms = torchaudio_guard.load().transforms
        self._analyse = transforms.MelSpectrogram(
            sample_rate, n_fft=window, hop_length=self._hop, n_mels=num_mels, power=1.0
        )
        self._bands_to_bins = transforms.InverseMelScale(
            window // 2 + 1, n_mels=num_mels, sample_rate=sample_rate
        )
        self._synthesise = transforms.GriffinLim(
            n_fft=window, hop_length=self._hop, n_iter=iterations, power=1.0
        )

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, 1, T]` into natural logs of mel magnitudes, `[B, D, ceil(T / hop) + 1]`."""
        check_wav(wav, channels=1)
        frames = -(-wav.shape[-1] // self._hop)
        # Reflection, which the transform uses at both ends, needs more than half a window.
        length = max(frames * self._hop, self._analyse.n_fft // 2 + 1)
        mel: Tensor = self._analyse(fit_length(wav[:, 0].float(), length))
        return mel[..., : frames + 1].clamp(min=self._floor).log()

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn log-mel frames `[B, D, frames]` into wav `[B, 1, length]`."""
        check_latents(z, self.dim)
        frames = max(z.shape[2], self._analyse.n_fft // (2 * self._hop) + 2)  # as at encoding
        magnitudes = fit_length(self._bands_to_bins(z.float().exp()), frames)
        clips = []
        for each in torch.split(magnitudes, 1):  # alone, so that it is the same in any batch
            with seeded():
                clips.append(self._synthesise(each))
        wav = torch.stack(clips)
        return fit_length(wav, (z.shape[2] - 1) * self._hop if length is None else length)
