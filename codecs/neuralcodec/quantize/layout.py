"""What a quantizer's numbers mean, as a tensor that is stored beside them.

The sizes of the levels and the metric are arguments of the constructor and leave no trace in the
shapes of the tensors. Codebooks of another layout would load without an error and give wrong codes,
and so would tensors that were allocated, as `to_empty` does, and never filled.
"""

from collections.abc import Sequence
from typing import get_args

from torch import Tensor

from neuralcodec.quantize.lookup import Metric

_METRICS = get_args(Metric)


def layout_of(sizes: Sequence[int], metric: Metric) -> list[int]:
    """Return the layout of K levels of these sizes, K + 1 numbers.

    >>> layout_of([64, 32], "cosine")
    [64, 32, 1]
    """
    return [*sizes, _METRICS.index(metric)]


def described(layout: Sequence[int]) -> str:
    """Return a layout in words.

    >>> described([64, 64, 32, 1])
    'codebook_size (64, 64, 32) and metric cosine'
    >>> described([0, 0, 0, 0])
    'no values'
    """
    *sizes, metric = layout
    if min(sizes, default=0) < 1 or metric not in range(len(_METRICS)):
        return "no values"
    return f"codebook_size {tuple(sizes)} and metric {_METRICS[metric]}"


def check_layout(found: Tensor, expected: Sequence[int]) -> None:
    """Raise RuntimeError, naming both, if the layout beside some codebooks is not as expected."""
    given = found.tolist()
    if given != expected:
        raise RuntimeError(
            f"the quantizer has {described(expected)}, its tensors have {described(given)}: "
            "load the state dict of such a quantizer or, after to_empty, call reset_parameters"
        )
