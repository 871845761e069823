"""The optimisers of a model: AdamW and, optionally, Muon for the inner matrices."""

import torch
from torch import nn
from torch.optim import Optimizer

from neuralcodec.tiny.training.muon import Muon
from neuralcodec.tiny.training.recipe import Schedule

_BETAS = (0.9, 0.98)
_ENDS = ("begin", "end", "direct")  # layers next to spectra and latents


def _is_inner(name: str, parameter: nn.Parameter) -> bool:
    """Return whether a parameter is a matrix from hidden channels to hidden channels."""
    return parameter.ndim == 2 and name.split(".")[-2] not in _ENDS


def optimizers(model: nn.Module, schedule: Schedule) -> dict[str, Optimizer]:
    """Return the optimisers of all parameters of a model, by name.

    Muon is used for the matrices from hidden channels to hidden channels, where all directions of a
    gradient are useful. The layers at the ends of the networks and all vectors are left to AdamW.

    Args:
        model: encoder, quantizer and decoder.
        schedule: choice of the optimiser, learning rate and weight decay.

    Returns:
        "optimizer", the AdamW, and "muon" if the schedule asks for it.
    """
    muon = schedule.optimizer == "muon"
    named = list(model.named_parameters())
    inner = [p for name, p in named if muon and _is_inner(name, p)]
    taken = {id(p) for p in inner}
    matrices = [p for _, p in named if p.ndim > 1 and id(p) not in taken]
    others = [p for _, p in named if p.ndim <= 1]
    adamw = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": schedule.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=schedule.learning_rate,
        betas=_BETAS,
        fused=True,
    )
    if not inner:
        return {"optimizer": adamw}
    return {
        "optimizer": adamw,
        "muon": Muon(inner, schedule.learning_rate, schedule.weight_decay),
    }
