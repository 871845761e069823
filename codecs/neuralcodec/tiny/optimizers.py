"""What makes steps of gradients: AdamW, and for the matrices of the blocks Muon if asked for."""

import torch
from torch import nn
from torch.optim import Optimizer

from neuralcodec.tiny.recipe import Schedule

_BETAS = (0.9, 0.98)
_MOMENTUM = 0.95
_ENDS = ("begin", "end", "direct")  # layers from and to spectra and latents


def _is_inner(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether a parameter is a matrix from hidden channels to hidden channels."""
    return parameter.ndim == 2 and name.split(".")[-2] not in _ENDS


def optimizers(model: nn.Module, schedule: Schedule) -> dict[str, Optimizer]:
    """Make the optimizers of all parameters of a model, by name.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) brings all directions of
    a matrix's momentum to one length. Its steps are scaled to the size of AdamW's (Liu et al. 2025,
    arXiv:2502.16982, section 2.2), so that one learning rate serves both.
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
        "muon": torch.optim.Muon(
            inner,
            lr=schedule.learning_rate,
            weight_decay=schedule.weight_decay,
            momentum=_MOMENTUM,
            adjust_lr_fn="match_rms_adamw",
        ),
    }
