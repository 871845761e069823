"""Log-mel frames as a latent codec without learned weights, decoded by Griffin-Lim."""

import torch
from torch import Tensor

from neuralcodec.core import torchaudio_guard
from neuralcodec.core.audio import fit_length
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.networks import seeded
from neuralcodec.latent.mdct import hop_length_of


class Mel(LatentCodec):
    """Log-mel frames, decoded by the Griffin-Lim algorithm.

    The phase is discarded, so that even without a quantizer the decoded waveform differs from the
    audio. Decoding estimates the magnitudes from the mel bands by least squares and the phase by
    the fast Griffin-Lim algorithm (Perraudin et al. 2013) from a fixed random start, so it is
    deterministic.

    Args:
        frame_rate: Hz; must divide `sample_rate`.
        sample_rate: Hz.
        num_mels: D, mel bands from 0 to sample_rate / 2.
        iterations: number of Griffin-Lim iterations.

    Raises:
        ValueError: if `frame_rate` does not divide `sample_rate`, or a count is below 1.
    """

    name = "mel"
    has_codebooks = False

    def __init__(
        self,
        frame_rate: float = 50.0,
        sample_rate: int = 16000,
        num_mels: int = 80,
        iterations: int = 32,
    ) -> None:
        super().__init__()
        if num_mels < 1 or iterations < 1:
            raise ValueError(f"need num_mels, iterations >= 1, got {num_mels} and {iterations}")
        self._hop = hop_length_of(sample_rate, frame_rate)
        self.sample_rate, self.frame_rate, self.dim = sample_rate, float(frame_rate), num_mels
        self._floor = 1e-5
        window = max(2 * self._hop, 64 * sample_rate // 1000)  # samples; 64 ms resolve the pitch
        transforms = torchaudio_guard.load().transforms
        self._to_mel = transforms.MelSpectrogram(
            sample_rate, n_fft=window, hop_length=self._hop, n_mels=num_mels, power=1.0
        )
        self._bands_to_bins = transforms.InverseMelScale(
            window // 2 + 1, n_mels=num_mels, sample_rate=sample_rate
        )
        self._to_wav = transforms.GriffinLim(
            n_fft=window, hop_length=self._hop, n_iter=iterations, power=1.0
        )

    def _analyse(self, wav: Tensor) -> Tensor:
        frames = -(-wav.shape[-1] // self._hop)
        # The transform reflects the signal at both ends, which takes more than half a window.
        length = max(frames * self._hop, self._to_mel.n_fft // 2 + 1)
        mel: Tensor = self._to_mel(fit_length(wav[:, 0], length))
        return mel[..., : frames + 1].clamp(min=self._floor).log()

    def _synthesise(self, z: Tensor) -> Tensor:
        if z.is_meta:  # where torch has no least squares
            return z.new_empty(len(z), 1, (z.shape[2] - 1) * self._hop)
        frames = max(z.shape[2], self._to_mel.n_fft // (2 * self._hop) + 2)  # as at encoding
        magnitudes = fit_length(self._bands_to_bins(z.exp()), frames)
        clips = []
        for each in torch.split(magnitudes, 1):  # one at a time, so that the batch does not matter
            with seeded(z.device):
                clips.append(self._to_wav(each))
        return torch.stack(clips)[..., : (z.shape[2] - 1) * self._hop]
