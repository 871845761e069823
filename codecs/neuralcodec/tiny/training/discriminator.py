"""Multi-resolution spectral discriminator for adversarial training.

A small variant of the multi-scale STFT discriminator of EnCodec (Défossez et al. 2022,
arXiv:2210.13438, section 3.4): two-dimensional convolutions over time and frequency of complex
spectra, hinge loss and feature matching.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

_SIZES = (256, 512, 1024)  # window lengths in samples


class _OneResolution(nn.Module):
    window: Tensor

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        plan = [(2, (1, 1)), (channels, (1, 2)), (channels, (1, 2)), (channels, (2, 2))]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(width, channels, (3, 5), stride, padding=(1, 2)))
            for width, stride in plan
        )
        self.end = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        spectra = torch.stft(
            wav, self.size, self.size // 4, window=self.window, normalized=True, return_complex=True
        )
        x = torch.stack([spectra.real, spectra.imag], dim=1).mT  # [B, 2, frames, bins]
        features = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.end(x), features


class Discriminator(nn.Module):
    """Distinguish recordings from decoded audio.

    Args:
        channels: number of channels of each layer.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.resolutions = nn.ModuleList(_OneResolution(size, channels) for size in _SIZES)

    def forward(self, wav: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """Return per resolution a map of scores of `wav [B, T]` and the features of all layers.

        Scores are high for audio that is classified as a recording.
        """
        return [resolution(wav) for resolution in self.resolutions]


Judgement = Sequence[tuple[Tensor, list[Tensor]]]


def discriminator_loss(real: Judgement, made: Judgement) -> Tensor:
    """Return the hinge loss of the discriminator, at least 0."""
    terms = [
        functional.relu(1 - right).mean() + functional.relu(1 + wrong).mean()
        for (right, _), (wrong, _) in zip(real, made, strict=True)
    ]
    return torch.stack(terms).mean()


def adversarial_loss(made: Judgement) -> Tensor:
    """Return the hinge loss of the decoder, low if its audio is classified as a recording."""
    return torch.stack([functional.relu(1 - score).mean() for score, _ in made]).mean()


def feature_loss(real: Judgement, made: Judgement) -> Tensor:
    """Return the mean absolute difference of features, relative to those of recordings."""
    terms = [
        (ours - theirs.detach()).abs().mean() / theirs.detach().abs().mean().clamp(min=1e-6)
        for (_, features), (_, others) in zip(real, made, strict=True)
        for theirs, ours in zip(features, others, strict=True)
    ]
    return torch.stack(terms).mean()
