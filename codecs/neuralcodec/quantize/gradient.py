"""Gradient estimators for the quantizer, and the residual chain that applies them.

The nearest entry has no useful derivative with respect to the vector that it replaces, so an
estimator supplies one. The straight-through estimator (Bengio et al. 2013, arXiv:1308.3432; van den
Oord et al. 2017, arXiv:1711.00937) and the rotation trick (Fifty et al. 2024, arXiv:2410.06424)
leave the value unchanged; noise substitution (Vali and Bäckström 2022, IEEE Access 10) changes it.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from neuralcodec.quantize.projection import Projection

Gradient = Literal["straight_through", "rotation", "noise_substitution"]
Estimator = Callable[[Tensor, Tensor], Tensor]

_OPPOSITE = 1e-3  # |a + b| of unit vectors below which its direction is imprecise in float32
_TINY = 1e-12  # added to a squared length, so that its root has a finite gradient at zero
_SMALL = 1e-6  # a length below this fraction of the other one counts as zero


def straight_through(vectors: Tensor, quantized: Tensor) -> Tensor:
    """Return the values of `quantized` with the gradient of `vectors`, both `[..., D]`.

    The straight-through estimator: the value equals `quantized` exactly, and the incoming gradient
    is passed to `vectors` unchanged.
    """
    return quantized.detach() + (vectors - vectors.detach())


def rotation(vectors: Tensor, quantized: Tensor) -> Tensor:
    """Return the values of `quantized` with the gradient of a rotation and scaling of `vectors`.

    Fifty et al. 2024, section 4: quantized = s R vectors, where R rotates the direction of one
    vector to that of the other in their common plane, s is the ratio of their lengths, and both are
    treated as constants. An incoming gradient g is passed on as s R^T g, which preserves its angle
    to the vector. For two opposite vectors R is the reflection that maps one to the other. If one
    of the two is zero, or shorter than a millionth of the other, the estimator is straight-through.

    Args:
        vectors: `[..., D]`, float.
        quantized: `[..., D]`, of the same type.

    Returns:
        `[..., D]`, exactly the values of `quantized`.
    """
    with torch.no_grad():
        length = vectors.norm(dim=-1, keepdim=True)
        quantized_length = quantized.norm(dim=-1, keepdim=True)
        longer = torch.maximum(length, quantized_length)
        defined = torch.minimum(length, quantized_length) > _SMALL * longer
        start = functional.normalize(vectors, dim=-1)
        end = functional.normalize(quantized, dim=-1)
        middle = start + end
        reach = middle.norm(dim=-1, keepdim=True)
        middle = torch.where(reach > _OPPOSITE, middle / reach, 0.0)
        stretch = torch.where(defined, quantized_length / length, 1.0)
    # R = I - 2 m m^T + 2 end start^T is the product of two reflections; the matrix is not formed.
    along_middle = (vectors * middle).sum(dim=-1, keepdim=True)
    along_start = (vectors * start).sum(dim=-1, keepdim=True)
    turned = stretch * (vectors - 2 * along_middle * middle + 2 * along_start * end)
    return straight_through(torch.where(defined, turned, vectors), quantized)


def noise_substitution(vectors: Tensor, quantized: Tensor) -> Tensor:
    """Return the vectors plus noise of the length of their quantization error.

    Vali and Bäckström 2022, equation 4: vectors + |vectors - quantized| n / |n|, with n drawn from
    torch's global random number generator. The length of the error is differentiated with respect
    to the vectors only; in the paper the entries receive this gradient too, here they are trained
    by the codebook update alone. The gradient of |vectors - quantized| pulls latents towards their
    codewords. In directions to which the loss is insensitive it also contracts the latents, since
    their spread lengthens the error there without any benefit; the other estimators have no such
    term.

    Use it in training only. The decoder never sees the codewords themselves, so it has to be
    fine-tuned on them at the end, with the encoder and the codebooks frozen.

    Args:
        vectors: `[..., D]`, float.
        quantized: `[..., D]`, of the same type.

    Returns:
        `[..., D]`, as far from `vectors` as `quantized` is.
    """
    noise = functional.normalize(torch.randn_like(vectors), dim=-1)
    error = (vectors - quantized.detach()).square().sum(dim=-1, keepdim=True)
    return vectors + (error + _TINY).sqrt() * noise


ESTIMATORS: dict[Gradient, Estimator] = {
    "straight_through": straight_through,
    "rotation": rotation,
    "noise_substitution": noise_substitution,
}


def exact(gradient: Gradient) -> Gradient:
    """Return the estimator if it leaves values unchanged, otherwise "straight_through"."""
    return "straight_through" if gradient == "noise_substitution" else gradient


class Chain(NamedTuple):
    """The levels of a residual quantizer, in float32, connected for the gradient.

    Attributes:
        quantized: `[B, T, D]`, for each item the sum of the levels that it uses.
        inputs: per level, `[B, T, Dc]`: the vectors that were looked up.
        entries: per level, `[B, T, Dc]`: the entries that were selected.
    """

    quantized: Tensor
    inputs: list[Tensor]
    entries: list[Tensor]


def _chain(
    vectors: Tensor, codes: Tensor, codebooks: Tensor, used: Tensor, estimator: Estimator
) -> Chain:
    """Apply codes level by level, each to the residual of the levels before it.

    The entries are constants in the residuals. The estimator is therefore applied once, to the sum,
    and the commitment loss of a level pulls the vectors only towards the entry of that level.
    """
    total, wanted = torch.zeros_like(vectors), torch.zeros_like(vectors)
    inputs, entries = [], []
    for k in range(codes.shape[2]):
        entry = functional.embedding(codes[:, :, k], codebooks[k])
        inputs.append(vectors - total)
        entries.append(entry)
        total = total + entry.detach()
        wanted = wanted + used[:, k, None, None] * entry.detach()
    return Chain(estimator(vectors, wanted), inputs, entries)


def _projected_chain(
    vectors: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    used: Tensor,
    estimator: Estimator,
    project_in: Projection,
    project_out: Projection,
) -> Chain:
    """Apply codes level by level with projections around each level, as in DAC.

    The estimator is applied at each level, between the projections. The gradient flows through the
    projections and, through the residual of each level, to the levels before it.
    """
    residual, quantized = vectors, torch.zeros_like(vectors)
    inputs, entries = [], []
    for k in range(codes.shape[2]):
        inputs.append(project_in(residual, k))
        entries.append(functional.embedding(codes[:, :, k], codebooks[k]))
        found = project_out(estimator(inputs[k], entries[k]), k)
        residual = residual - found
        quantized = quantized + used[:, k, None, None] * found
    return Chain(quantized, inputs, entries)


def chain(
    vectors: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    used: Tensor,
    *,
    gradient: Gradient,
    project_in: Projection | None = None,
    project_out: Projection | None = None,
    by_level: bool = False,
) -> Chain:
    """Apply codes level by level, with gradients.

    Args:
        vectors: `[B, T, D]` float32.
        codes: `[B, T, K]` int64.
        codebooks: `[>=K, V, Dc]` float32.
        used: `[B, K]`, 1 where an item uses a level, else 0.
        gradient: name of the estimator.
        project_in: projection from D to Dc, for latents wider than the codebooks; or None.
        project_out: projection from Dc to D; or None.
        by_level: whether the projections are around each level, or around all levels together.

    Returns:
        Chain: the quantized vectors, and the inputs and entries of each level.
    """
    estimator = ESTIMATORS[gradient]
    if project_in is None or project_out is None:
        return _chain(vectors, codes, codebooks, used, estimator)
    if by_level:
        return _projected_chain(vectors, codes, codebooks, used, estimator, project_in, project_out)
    inner = _chain(project_in(vectors), codes, codebooks, used, estimator)
    return inner._replace(quantized=project_out(inner.quantized))


def level_loss(
    moved: list[Tensor], still: list[Tensor], used: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Return the mean squared distance of `moved` to `still`, over the levels that items use.

    Args:
        moved: per level `[B, T, D]`; receives the gradient.
        still: per level `[B, T, D]`; detached.
        used: `[B, K]`, 1 where an item uses a level, else 0.
        mask: `[B, T]` bool, the frames to average over; default all.

    Returns:
        A scalar; 0 if there is nothing to average.
    """
    pairs = list(zip(moved, still, strict=True))
    if mask is not None:
        pairs = [(torch.where(mask[:, :, None], a, b.detach()), b) for a, b in pairs]
    errors = [(a - b.detach()).square().flatten(1).sum(dim=1) for a, b in pairs]  # [B] each
    _, length, dim = moved[0].shape
    frames = used.new_full((len(used),), length) if mask is None else mask.sum(dim=1)
    numbers = dim * (frames[:, None] * used).sum()
    return (torch.stack(errors, dim=1) * used).sum() / numbers.clamp(min=1)
