"""The networks of the package `encodec`, with a checkpoint or random weights, and their streams.

The codecs fold weight norm into the weights, because the package computes that product in every
call.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuralcodec.core import streaming, torchaudio_guard
from neuralcodec.core.networks import fill, load_state, seeded
from neuralcodec.weights import locate

torchaudio_guard.load()

from encodec.model import EncodecModel  # noqa: E402  # it imports torchaudio
from encodec.modules.conv import SConv1d, SConvTranspose1d  # noqa: E402
from encodec.modules.lstm import SLSTM  # noqa: E402
from encodec.modules.seanet import SEANetResnetBlock  # noqa: E402

_MODELS = {
    "encodec_24khz": EncodecModel.encodec_model_24khz,
    "encodec_48khz": EncodecModel.encodec_model_48khz,
}


def _untrained(name: str) -> Any:
    with warnings.catch_warnings():
        # The package uses an implementation of weight norm that torch has since replaced.
        warnings.filterwarnings("ignore", "", FutureWarning, r"torch\.nn\.utils\.weight_norm")
        return _MODELS[name](pretrained=False)


def _noise(channels: int, samples: int) -> Tensor:
    """Return noise `[1, channels, samples]` in a hundred sections, with levels from -60 to 0 dB."""
    level_db = -60 * torch.rand(1, 1, 100).repeat_interleave(-(-samples // 100), dim=-1)
    return torch.randn(1, channels, samples) * 10 ** (level_db[..., :samples] / 20)


@torch.inference_mode()
def _draw_codebooks(model: Any, residual: Tensor) -> None:
    """Draw codebooks for latents `[1, D, N]`, each level around the mean of the residual.

    Entries are random mixtures of residuals, so that they lie in the few directions in which the
    latents of a random network vary. Their spread varies from zero to that of the residuals, so
    that each residual has some entries nearby.
    """
    count = residual.shape[-1]
    for level in model.quantizer.vq.layers:
        size = len(level.codebook)
        mean = residual.mean(dim=-1, keepdim=True)
        mixture = torch.randn(count, size) * torch.rand(size) / count**0.5
        level.codebook.copy_((mean + (residual - mean) @ mixture)[0].mT)
        residual = residual - level.decode(level.encode(residual))


def random_model(name: str) -> Any:
    """Build the package's model `name` with random weights and codebooks from a fixed seed.

    Its codes depend on the audio at every level, and each level reduces the residual; decoded audio
    is noise. torch's global random state is not changed.

    Args:
        name: "encodec_24khz" or "encodec_48khz".

    Returns:
        EncodecModel: on the CPU, with weight norm as in the package.
    """
    with seeded():
        model = _untrained(name)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.endswith("weight_g"):
                    # torch initialises convolutions with a third of the power that would preserve
                    # that of the signal; after a dozen layers only the biases would remain.
                    parameter.mul_(3**0.5)
        with torch.inference_mode():
            z = model.encoder(_noise(model.channels, 2 * model.sample_rate))
        _draw_codebooks(model, z)
    return model


def load_model(name: str, weights: str | Path | None) -> Any:
    """Build the package's model `name` with weights.

    Args:
        name: "encodec_24khz" or "encodec_48khz".
        weights: checkpoint of the package, or a folder with it; None: the published one; "random":
            `random_model`.

    Raises:
        WeightsMissing: if the weights cannot be found or downloaded.
        ValueError: if they are of another model.
    """
    if weights == "random":
        model = random_model(name)
    else:
        state = load_state(locate(name, weights))
        with torch.random.fork_rng(devices=[]):
            model = _untrained(name)
        fill(model, state, name)
    return model


def streamed(module: nn.Module) -> streaming.Layer:
    """Return the streaming layer of a causal module of the package, without weight norm."""
    if isinstance(module, nn.Sequential):
        return streaming.Chain([streamed(child) for child in module])
    if isinstance(module, SEANetResnetBlock):
        return streaming.Sum(streamed(module.shortcut), streamed(module.block))
    if isinstance(module, SConv1d):
        conv = module.conv.conv
        assert isinstance(conv, nn.Conv1d)
        assert module.causal
        return streaming.Conv(conv, module.pad_mode, whole=module)
    if isinstance(module, SConvTranspose1d):
        transposed = module.convtr.convtr
        assert isinstance(transposed, nn.ConvTranspose1d)
        assert module.causal
        assert module.trim_right_ratio == 1
        return streaming.TransposedConv(transposed)
    if isinstance(module, SLSTM):
        return streaming.Recurrent(module.lstm, skip=module.skip)
    assert isinstance(module, nn.ELU | nn.Identity)
    return streaming.Pointwise(module)
