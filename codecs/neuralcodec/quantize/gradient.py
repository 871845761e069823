"""Gradients through a quantizer: what the encoder is told, and how levels hang together.

The nearest entry has no useful derivative in the vector it replaces. An estimator puts one in its
place. Straight-through (Bengio et al. 2013, arXiv:1308.3432; van den Oord et al. 2017,
arXiv:1711.00937) and the rotation trick (Fifty et al. 2024, arXiv:2410.06424) leave the value
alone; noise substitution (Vali and Bäckström 2022, IEEE Access 10) changes it too.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from neuralcodec.quantize.projection import Projection

Gradient = Literal["straight_through", "rotation", "noise_substitution"]
Estimator = Callable[[Tensor, Tensor], Tensor]

_OPPOSITE = 1e-3  # |a + b| of unit vectors below which float32 doesn't give its direction well
_TINY = 1e-12  # of a squared length, so that its root has a finite gradient at zero
_SMALL = 1e-6  # a length below this part of the other's counts as zero


def straight_through(vectors: Tensor, quantized: Tensor) -> Tensor:
    """Give the values of `quantized` with the gradient of `vectors`, both `[..., D]`.

    The value is exactly `quantized`; the gradient that reaches `vectors` is what arrives, exactly.
    """
    return quantized.detach() + (vectors - vectors.detach())


def rotation(vectors: Tensor, quantized: Tensor) -> Tensor:
    """Give the values of `quantized` as if `vectors` had been turned and stretched onto it.

    Fifty et al. 2024, section 4: quantized = s R vectors, where R turns the one direction to the
    other in their plane, s is the ratio of lengths, and both count as constants. So a gradient g
    arrives as s R^T g: its angle to the vector is its angle to the entry. For two opposite vectors
    R is the reflection that maps one to the other. Where one of the two is zero, or shorter than a
    millionth of the other, the gradient goes straight through.

    Args:
        vectors: `[..., D]`, float.
        quantized: `[..., D]`, same type.

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
    # R = I - 2 m m^T + 2 end start^T, two reflections; never formed as a matrix.
    along_middle = (vectors * middle).sum(dim=-1, keepdim=True)
    along_start = (vectors * start).sum(dim=-1, keepdim=True)
    turned = stretch * (vectors - 2 * along_middle * middle + 2 * along_start * end)
    return straight_through(torch.where(defined, turned, vectors), quantized)


def noise_substitution(vectors: Tensor, quantized: Tensor) -> Tensor:
    """Give the vectors with noise in the place of their quantization error, as long as it is.

    Vali and Bäckström 2022, equation 4: vectors + |vectors - quantized| n / |n|, with n drawn from
    torch's global random numbers. The length of the error has a gradient, here for the vectors
    alone; in the paper entries learn from it too, ours learn as they do with any estimator. So what
    the noise spoils moves vectors towards their entries; and in directions that matter little to
    what follows they are drawn together, for there they make the error long and gain nothing. The
    other estimators don't teach that. It is for training alone: what follows never sees the entries
    themselves, and has to learn them in the end, with the codebooks and all before them kept as
    they are.

    Args:
        vectors: `[..., D]`, float.
        quantized: `[..., D]`, same type.

    Returns:
        `[..., D]`, at the distance of `quantized` from `vectors`.
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
    """Give the estimator itself if it leaves values alone, else straight-through in its place."""
    return "straight_through" if gradient == "noise_substitution" else gradient


class Chain(NamedTuple):
    """The levels of a residual quantizer, in float32, with their gradients.

    Attributes:
        quantized: `[B, T, D]`; each item the sum of the levels it uses.
        inputs: of each level, `[B, T, Dc]`: what was looked up.
        entries: of each level, `[B, T, Dc]`: what was found.
    """

    quantized: Tensor
    inputs: list[Tensor]
    entries: list[Tensor]


def _chain(
    vectors: Tensor, codes: Tensor, codebooks: Tensor, used: Tensor, estimator: Estimator
) -> Chain:
    """Follow codes, each on what the entries before it left over.

    Entries count as constants in what is left over, so the estimator is asked once, for the sum,
    and a level's loss moves the vectors only towards its own entry.
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
    """Follow codes with a projection around each level, as DAC has them.

    The estimator is asked at each level, between the projections; the gradient runs through them,
    and through what each level left over to the ones before it.
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
    """Follow codes level by level, with gradients.

    Args:
        vectors: `[B, T, D]` float32.
        codes: `[B, T, K]` int64.
        codebooks: `[>=K, V, Dc]` float32.
        used: `[B, K]`, 1 where an item uses a level, else 0.
        gradient: name of the estimator.
        project_in: D to Dc, for latents wider than the codebooks.
        project_out: Dc to D.
        by_level: whether the projections are around each level, or around all of them.
    """
    estimator = ESTIMATORS[gradient]
    if project_in is None or project_out is None:
        return _chain(vectors, codes, codebooks, used, estimator)
    if by_level:
        return _projected_chain(vectors, codes, codebooks, used, estimator, project_in, project_out)
    inner = _chain(project_in(vectors), codes, codebooks, used, estimator)
    return inner._replace(quantized=project_out(inner.quantized))


def level_loss(moved: list[Tensor], still: list[Tensor], used: Tensor) -> Tensor:
    """Mean squared distance of `moved` to `still`, over the levels that items use.

    Args:
        moved: of each level `[B, T, D]`; gets the gradient.
        still: of each level `[B, T, D]`; gets none.
        used: `[B, K]`, 1 where an item uses a level, else 0.

    Returns:
        A scalar; 0 if there is nothing to average.
    """
    pairs = zip(moved, still, strict=True)
    errors = [(a - b.detach()).square().flatten(1).sum(dim=1) for a, b in pairs]  # [B] each
    numbers = moved[0][:1].numel() * used.sum()
    return (torch.stack(errors, dim=1) * used).sum() / numbers.clamp(min=1)
