"""Conversion of quantizers from other packages: the same codes for the same latents.

No such package is imported: a model is recognised by the names of its class and package. The codes
equal those of the model in evaluation mode, except for near ties: most packages expand |x - c|^2 to
|x|^2 - 2 x.c + |c|^2, which rounds differently in float32.

A frame rate is the sample rate divided by the hop length, for example 86.13 Hz for DAC at 44.1 kHz.
The `frame_rate` of the models in encodec and of most configs in transformers is rounded up to whole
hertz.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuralcodec.quantize.grouped import (
    GroupedResidualVectorQuantizer,
    SplitResidualVectorQuantizer,
)
from neuralcodec.quantize.residual import ResidualVectorQuantizer


def _expect(given: object, package: str, names: Sequence[str]) -> str:
    """Return which of the class `names` of `package` the given object is an instance of.

    Raises:
        ValueError: if it is an instance of none of them.
    """
    for cls in type(given).__mro__:
        if cls.__module__.partition(".")[0] == package and cls.__name__ in names:
            return cls.__name__
    raise ValueError(
        f"can convert {', '.join(names)} of {package}, "
        f"got {type(given).__module__}.{type(given).__qualname__}"
    )


def _padded(parts: Sequence[Tensor]) -> Tensor:
    """Stack tensors, zero-padded to the largest shape, which changes no distance and no cosine."""
    largest = [max(sizes) for sizes in zip(*(part.shape for part in parts), strict=True)]
    stack = parts[0].new_zeros(len(parts), *largest)
    for place, part in zip(stack, parts, strict=True):
        place[tuple(slice(size) for size in part.shape)] = part
    return stack


def _weight_and_bias(layer: Any) -> tuple[Tensor, Tensor]:
    """Return weight `[out, in]` and bias `[out]` of a linear layer or a convolution of width 1."""
    if hasattr(layer, "weight_g"):
        # torch.nn.utils.weight_norm updates `weight` only in the next forward pass.
        direction = functional.normalize(layer.weight_v.detach().float().flatten(1))
        weight = layer.weight_g.detach().float().flatten()[:, None] * direction
    else:
        weight = layer.weight.detach().float().flatten(1)
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().float()
    return weight, bias


def _check_books(books: Sequence[Tensor], metric: str) -> None:
    """Raise ValueError if a codebook is not finite, all zeros, or has an entry without a cosine."""
    for level, book in enumerate(books):
        if not torch.isfinite(book).all():
            raise ValueError(f"codebook {level} holds NaN or infinite values")
        if not book.any():
            raise ValueError(f"codebook {level} is all zeros: the model has no trained codebooks")
        if metric == "cosine" and not book.any(dim=1).all():
            raise ValueError(f"codebook {level} has an entry of length 0: it has no cosine")


def _quantizer(
    books: Sequence[Tensor],
    *,
    inward: Sequence[nn.Module] = (),
    outward: Sequence[nn.Module] = (),
    projection: Literal["level", "shared"] = "level",
    metric: Literal["euclidean", "cosine"] = "euclidean",
    frame_rate: float | None = None,
) -> ResidualVectorQuantizer:
    """Build a quantizer from one codebook `[V, D]` per level and optional linear projections."""
    books = [book.detach().float() for book in books]
    _check_books(books, metric)
    codebooks = _padded(books)
    into, out = ([_weight_and_bias(layer) for layer in layers] for layers in (inward, outward))
    rvq = ResidualVectorQuantizer(
        into[0][0].shape[1] if into else codebooks.shape[2],
        len(books),
        [len(book) for book in books],
        codebook_dim=codebooks.shape[2] if into else None,
        projection=projection,
        metric=metric,
        frame_rate=frame_rate,
    )
    with torch.no_grad():
        rvq.codebooks.copy_(codebooks)
        rvq.fitted.fill_(True)
        for project, layers in ((rvq.project_in, into), (rvq.project_out, out)):
            if project is not None:
                project.weight.copy_(_padded([weight for weight, _ in layers]))
                project.bias.copy_(_padded([bias for _, bias in layers]))
    return rvq.to(codebooks.device)


def from_encodec(model: nn.Module) -> ResidualVectorQuantizer:
    """Return the quantizer of an EnCodec model of the package `encodec`.

    Défossez et al. 2022 (arXiv:2210.13438): Euclidean distance, no projections.

    Args:
        model: an `EncodecModel`, or its `quantizer`.

    Returns:
        The quantizer in float32, on the model's device. Its `frame_rate` is None if only the
        `quantizer` was given.

    Raises:
        ValueError: if the model is of another class, an entry is not finite, or a codebook is all
            zeros, as it is before training.
    """
    source: Any = model
    frame_rate = None
    if _expect(model, "encodec", ("EncodecModel", "ResidualVectorQuantizer")) == "EncodecModel":
        frame_rate = float(source.sample_rate / source.encoder.hop_length)
        source = source.quantizer
    books = [level.codebook for level in source.vq.layers]
    return _quantizer(books, frame_rate=frame_rate)


def _from_dac_levels(levels: Sequence[Any], frame_rate: float | None) -> ResidualVectorQuantizer:
    return _quantizer(
        [level.codebook.weight for level in levels],
        inward=[level.in_proj for level in levels],
        outward=[level.out_proj for level in levels],
        metric="cosine",
        frame_rate=frame_rate,
    )


def from_dac(model: nn.Module) -> ResidualVectorQuantizer:
    """Return the quantizer of a DAC model of the package `dac` (descript-audio-codec).

    Kumar et al. 2023 (arXiv:2306.06546): each level projects the residual to a few dimensions,
    selects the entry of greatest cosine similarity, and projects the unnormalised entry back.
    Weight normalisation, by hook or by parametrization, is folded into the weights. Codebooks of
    different widths are zero-padded to the widest.

    Args:
        model: a `DAC`, or its `quantizer`.

    Returns:
        The quantizer in float32, on the model's device. Its `frame_rate` is None if only the
        `quantizer` was given.

    Raises:
        ValueError: if the model is of another class, an entry is not finite or has length 0, or a
            codebook is all zeros. Other untrained codebooks are not recognised: they look like
            trained ones.
    """
    source: Any = model
    frame_rate = None
    if _expect(model, "dac", ("DAC", "ResidualVectorQuantize")) == "DAC":
        frame_rate = float(source.sample_rate / source.hop_length)
        source = source.quantizer
    return _from_dac_levels(source.quantizers, frame_rate)


def _check_plain_residual(module: Any) -> None:
    """Raise ValueError unless a `ResidualVQ` selects the nearest entry of each level."""
    if module.implicit_neural_codebook:
        raise ValueError("implicit_neural_codebook: the entries depend on the levels before")
    if (module.eval_beam_size or 1) > 1:
        raise ValueError(
            f"eval_beam_size is {module.eval_beam_size}, which is no greedy search: set it to None "
            "to convert, and give beam_width to encode"
        )


def _check_plain_level(level: Any) -> None:
    """Raise ValueError unless a `VectorQuantize` selects the nearest entry of a fixed codebook."""
    book = level._codebook
    if level.heads > 1:
        raise ValueError(f"heads is {level.heads}: a vector has several codes of one codebook")
    if not isinstance(level.project_in, nn.Linear | nn.Identity):
        raise ValueError("layernorm_after_project_in: the way in is no linear map")
    if book.affine_param:
        raise ValueError("affine_param: the entries move with the statistics of each batch")
    if book.vq_bridge is not None:
        raise ValueError("vq_bridge: the entries pass through another network")
    if not book.initted:
        raise ValueError("kmeans_init: the codebook has to see its first batch before")
    lengths = book.embed.detach().float().norm(dim=-1)
    if book.use_cosine_sim and not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5):
        raise ValueError(
            "use_cosine_sim with entries whose length is not 1 "
            f"({float(lengths.min()):g}..{float(lengths.max()):g}): inner products rank them, "
            "not cosines"
        )


def _from_lucidrains(module: Any, levels: Sequence[Any]) -> ResidualVectorQuantizer:
    for level in levels:
        _check_plain_level(level)
    return _quantizer(
        [level._codebook.embed[0] for level in levels],
        inward=[module.project_in] if module.has_projections else [],
        outward=[module.project_out] if module.has_projections else [],
        projection="shared",
        metric="cosine" if levels[0].use_cosine_sim else "euclidean",
    )


def from_vector_quantize_pytorch(
    module: nn.Module,
) -> ResidualVectorQuantizer | GroupedResidualVectorQuantizer:
    """Convert a `VectorQuantize`, `ResidualVQ` or `GroupedResidualVQ`.

    From lucidrains/vector-quantize-pytorch, version 1.32. Its layout and training options have no
    effect here: latents are `[B, D, T]`, and the codes are those of `module.eval()`, without
    sampling or dropout.

    Args:
        module: one of the three, Euclidean or `use_cosine_sim`, with or without projections.

    Returns:
        The quantizer in float32, on the module's device: one level for a `VectorQuantize`, several
        groups for a `GroupedResidualVQ`. Its `frame_rate` is None.

    Raises:
        ValueError: if the module is of another class; if it has an option with which its codes are
            not the nearest entries of a codebook (`heads`, `layernorm_after_project_in`,
            `affine_param`, `vq_bridge`, `implicit_neural_codebook`, `eval_beam_size`); if its
            `kmeans_init` has not run yet; if entries compared by `use_cosine_sim` are not of length
            1; or if a codebook is not finite or all zeros.
    """
    source: Any = module
    names = ("VectorQuantize", "ResidualVQ", "GroupedResidualVQ")
    name = _expect(module, "vector_quantize_pytorch", names)
    if name == "VectorQuantize":
        return _from_lucidrains(source, [source])
    for residual in source.rvqs if name == "GroupedResidualVQ" else [source]:
        _check_plain_residual(residual)
    if name == "ResidualVQ":
        return _from_lucidrains(source, source.layers)
    return GroupedResidualVectorQuantizer(
        [_from_lucidrains(each, each.layers) for each in source.rvqs]
    )


def _from_mimi(part: Any, frame_rate: float) -> ResidualVectorQuantizer:
    # Not the codebook's `embed`: that property caches its first value, even if weights are loaded.
    books = [level.codebook for level in part.layers]
    return _quantizer(
        [b.embed_sum / b.cluster_usage.clamp(min=b.epsilon)[:, None] for b in books],
        inward=[] if part.input_proj is None else [part.input_proj],
        outward=[] if part.output_proj is None else [part.output_proj],
        projection="shared",
        frame_rate=frame_rate,
    )


def from_huggingface(
    model: nn.Module,
) -> ResidualVectorQuantizer | SplitResidualVectorQuantizer:
    """Return the quantizer of a codec of the package `transformers`.

    Args:
        model: an `EncodecModel`, `DacModel`, `MimiModel` or `XcodecModel`. Mimi's quantizer is
            split (Défossez et al. 2024, Moshi, arXiv:2410.00037): the semantic and the acoustic
            levels both encode the model's latents, each part with its own projections.

    Returns:
        The quantizer in float32, on the model's device, with the model's frame rate.

    Raises:
        ValueError: if the model is of another class, an entry is not finite, a codebook is all
            zeros, as it is if no weights were loaded, or an entry of a `DacModel` has length 0.
    """
    source: Any = model
    names = ("EncodecModel", "DacModel", "MimiModel", "XcodecModel")
    name = _expect(model, "transformers", names)
    quantizer, config = source.quantizer, source.config
    if name == "MimiModel":
        rate = float(config.frame_rate)
        parts = (
            quantizer.semantic_residual_vector_quantizer,
            quantizer.acoustic_residual_vector_quantizer,
        )
        return SplitResidualVectorQuantizer([_from_mimi(part, rate) for part in parts])
    if name == "XcodecModel":
        books = [level.codebook.embed for level in quantizer.quantizers]
        return _quantizer(books, frame_rate=config.sample_rate / config.hop_length)
    rate = config.sampling_rate / config.hop_length
    if name == "DacModel":
        return _from_dac_levels(quantizer.quantizers, rate)
    return _quantizer([level.codebook.embed for level in quantizer.layers], frame_rate=rate)
