"""Mimi and X-Codec as published, but with random weights: for tests, timing and trying things out.

What they decode sounds like nothing, but their codes vary with the audio at every level.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralcodec.core.networks import fold_weight_norm, seeded
from neuralcodec.wrappers.transformers.models import MODELS
from neuralcodec.wrappers.transformers.stages import stages

_SECONDS = 2  # of noise that codebooks are drawn for
_RMS = 0.1  # of what that noise is decoded to


def _noise(samples: int) -> Tensor:
    """Draw noise `[1, 1, samples]` whose loudness changes a hundred times."""
    loudness = torch.rand(1, 1, 100).square().repeat_interleave(-(-samples // 100), dim=-1)
    return torch.randn(1, 1, samples) * loudness[..., :samples] / 2


def _draw_codebooks(books: Sequence[Tensor], residual: Tensor) -> None:
    """Draw entries around latents `[N, D]`, level by level around what is left of them.

    They are spread by 3 / sqrt(D) of what the latents are: in D dimensions the best of a thousand
    random entries leans towards a latent by 3 parts in sqrt(D), and a longer one would overshoot.
    """
    for book in books:
        spread = residual.std(dim=0) * 3 / residual.shape[1] ** 0.5
        book.copy_(residual.mean(dim=0) + spread * torch.randn(book.shape))
        residual = residual - book[torch.cdist(residual, book).argmin(dim=1)]


def _fill_mimi(network: Any, z: Tensor) -> nn.Conv1d:
    """Draw Mimi's codebooks for latents `[1, D, N]`; give the last layer of its decoder."""
    for part in network.quantizer.children():  # semantic, acoustic
        books = [level.codebook.embed_sum for level in part.layers]  # each counts as used once
        _draw_codebooks(books, part.input_proj(z)[0].mT)
    last: nn.Conv1d = network.decoder.decoder_seanet.layers[-1].conv
    return last


def _fill_xcodec(network: Any, z: Tensor) -> nn.Conv1d:
    """Draw X-Codec's codebooks for latents `[1, D, N]`; give the last layer of its decoder."""
    _draw_codebooks([level.codebook.embed for level in network.quantizer.quantizers], z[0].mT)
    last: nn.Conv1d = network.acoustic_decoder.conv2
    return last


def _open_up(network: Any) -> None:
    """Let X-Codec's convolutions keep the power of a signal.

    The package starts those of DAC at a standard deviation of 0.02, fit for training only: nothing
    of the audio would reach the codes through them, and nothing of the codes the audio.
    """
    for part in (network.acoustic_encoder, network.acoustic_decoder):
        for module in part.modules():
            if isinstance(module, nn.ConvTranspose1d):  # by kernels of two strides
                nn.init.normal_(module.weight, std=(2 * module.in_channels) ** -0.5)
            elif isinstance(module, nn.Conv1d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)


@torch.no_grad()
def random_model(kind: str) -> Any:
    """Build the published model `kind`, "mimi" or "xcodec", with random weights, always the same.

    torch's global random state is left alone.

    Returns:
        On the CPU, in eval mode, without weight norm.
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
