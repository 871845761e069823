"""Linear maps around the codebooks: the lookup happens in fewer dimensions than the latents have.

Factorized codes of Yu et al. 2021, ViT-VQGAN (arXiv:2110.04627), as DAC uses them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuralcodec.quantize.precision import full_precision


class Projection(nn.Module):
    """A linear map for each level, or one for all levels.

    Args:
        levels: L, how many maps.
        in_dim: width of what comes in.
        out_dim: width of what goes out.

    Attributes:
        weight: `[L, out_dim, in_dim]`; starts uniform within `in_dim ** -0.5`, as `nn.Linear`.
        bias: `[L, out_dim]`; starts the same.
    """

    def __init__(self, levels: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        bound = in_dim**-0.5
        self.weight = nn.Parameter(torch.empty(levels, out_dim, in_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(levels, out_dim).uniform_(-bound, bound))

    def forward(self, vectors: Tensor, level: int = 0) -> Tensor:
        """Map `[..., in_dim]` to `[..., out_dim]` with the map of one level, always in float32."""
        with full_precision(vectors):
            weight, bias = self.weight[level].float(), self.bias[level].float()
            return functional.linear(vectors.float(), weight, bias)

    def extra_repr(self) -> str:
        """Give the sizes, for `print`."""
        levels, out_dim, in_dim = self.weight.shape
        return f"levels={levels}, in_dim={in_dim}, out_dim={out_dim}"


def decode_tables(codebooks: Tensor, project_out: Projection | None) -> Tensor:
    """Give what each code adds to the latents: `[K, V, D]` float32 for codebooks `[K, V, Dc]`.

    The bias of a projection that all levels share is in the first level's table, which every code
    draws from.
    """
    books = codebooks.float()
    if project_out is None:
        return books
    weight, bias = project_out.weight.float(), project_out.bias.float()  # of L levels: K or 1
    with full_precision(books):
        tables = books @ weight.mT
    return tables + functional.pad(bias, (0, 0, 0, len(books) - len(bias)))[:, None]
