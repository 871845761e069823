"""Linear projections around the codebooks, so that the lookup takes place in fewer dimensions.

The factorized codes of Yu et al. 2021, ViT-VQGAN (arXiv:2110.04627), as used in DAC.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuralcodec.quantize.precision import full_precision


class Projection(nn.Module):
    """Linear maps with bias: one per level, or one for all levels.

    Args:
        levels: L, number of maps.
        in_dim: number of input features.
        out_dim: number of output features.

    Attributes:
        weight: `[L, out_dim, in_dim]`, initialised uniformly in +-`in_dim ** -0.5` as in
            `nn.Linear`.
        bias: `[L, out_dim]`, initialised likewise.
    """

    def __init__(self, levels: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(levels, out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(levels, out_dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights, such as after `to_empty`."""
        bound = self.weight.shape[2] ** -0.5
        self.weight.uniform_(-bound, bound)
        self.bias.uniform_(-bound, bound)

    def forward(self, vectors: Tensor, level: int = 0) -> Tensor:
        """Map `[..., in_dim]` to `[..., out_dim]` with the map of one level, always in float32."""
        with full_precision(vectors):
            weight, bias = self.weight[level].float(), self.bias[level].float()
            return functional.linear(vectors.float(), weight, bias)

    def extra_repr(self) -> str:
        """Return the sizes, for `print`."""
        levels, out_dim, in_dim = self.weight.shape
        return f"levels={levels}, in_dim={in_dim}, out_dim={out_dim}"


def decode_tables(codebooks: Tensor, project_out: Projection | None) -> Tensor:
    """Return the contribution of each code to the latents.

    The bias of a projection that all levels share is part of the first level's table, since every
    code has a first level.

    Args:
        codebooks: `[K, V, Dc]`, float.
        project_out: projection from Dc to D with K maps or one shared map; None if Dc is D.

    Returns:
        `[K, V, D]` float32.
    """
    books = codebooks.float()
    if project_out is None:
        return books
    weight, bias = project_out.weight.float(), project_out.bias.float()  # of L levels: K or 1
    with full_precision(books):
        tables = books @ weight.mT
    return tables + functional.pad(bias, (0, 0, 0, len(books) - len(bias)))[:, None]
