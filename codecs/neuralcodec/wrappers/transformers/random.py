"""Mimi and X-Codec in the published configuration with random weights, for tests and timing.

Decoded audio is noise, but codes depend on the audio at every level.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralcodec.core.networks import fold_weight_norm, seeded
from neuralcodec.wrappers.transformers.models import MODELS
from neuralcodec.wrappers.transformers.stages import stages

_SECONDS = 2  # duration of the noise for whose latents codebooks are drawn
_RMS = 0.1  # level of the audio decoded from these latents


def _noise(samples: int) -> Tensor:
    """Return noise `[1, 1, samples]` in a hundred sections of different levels."""
    loudness = torch.rand(1, 1, 100).square().repeat_interleave(-(-samples // 100), dim=-1)
    return torch.randn(1, 1, samples) * loudness[..., :samples] / 2


def _draw_codebooks(books: Sequence[Tensor], residual: Tensor) -> None:
    """Draw codebooks for latents `[N, D]`, each level around the mean of the residual.

    Entries have 3 / sqrt(D) of the standard deviation of the residual: in D dimensions the best of
    a thousand random directions has a cosine of about 3 / sqrt(D) with a residual, and longer
    entries would overshoot.
    """
    for book in books:
        spread = residual.std(dim=0) * 3 / residual.shape[1] ** 0.5
        book.copy_(residual.mean(dim=0) + spread * torch.randn(book.shape))
        residual = residual - book[torch.cdist(residual, book).argmin(dim=1)]


def _fill_mimi(network: Any, z: Tensor) -> nn.Conv1d:
    """Draw Mimi's codebooks for latents `[1, D, N]`; return the last layer of its decoder."""
    for part in network.quantizer.children():  # semantic, acoustic
        books = [level.codebook.embed_sum for level in part.layers]  # every entry has a usage of 1
        _draw_codebooks(books, part.input_proj(z)[0].mT)
    last: nn.Conv1d = network.decoder.decoder_seanet.layers[-1].conv
    return last


def _fill_xcodec(network: Any, z: Tensor) -> nn.Conv1d:
    """Draw X-Codec's codebooks for latents `[1, D, N]`; return the last layer of its decoder."""
    _draw_codebooks([level.codebook.embed for level in network.quantizer.quantizers], z[0].mT)
    last: nn.Conv1d = network.acoustic_decoder.conv2
    return last


def _open_up(network: Any) -> None:
    """Initialise X-Codec's convolutions so that they preserve the power of a signal.

    The package initialises those of DAC with a standard deviation of 0.02, which suits training
    only: codes would not depend on the audio, nor decoded audio on the codes.
    """
    for part in (network.acoustic_encoder, network.acoustic_decoder):
        for module in part.modules():
            if isinstance(module, nn.ConvTranspose1d):  # kernels are two strides long
                nn.init.normal_(module.weight, std=(2 * module.in_channels) ** -0.5)
            elif isinstance(module, nn.Conv1d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)


@torch.no_grad()
def random_model(kind: str) -> Any:
    """Build the published model `kind`, "mimi" or "xcodec", with random weights from a fixed seed.

    torch's global random state is not changed.

    Returns:
        The model on the CPU, in eval mode, without weight norm.
    """
    with seeded():
        model = MODELS[kind]
        network: Any = model(model.config_class()).eval()
        fold_weight_norm(network)
        if kind == "xcodec":
            _open_up(network)
        at = stages(network)
        z = at.analyse(_noise(_SECONDS * at.sample_rate))
        last = (_fill_mimi if kind == "mimi" else _fill_xcodec)(network, z)
        wav = at.synthesise(z)
        for parameter in last.parameters():
            parameter.mul_(_RMS / wav.std())
    return network
