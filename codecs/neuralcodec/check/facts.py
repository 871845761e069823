"""Checks of the rates and sizes that a codec states, and of its side effects on the process."""

import math
import random
from typing import Any

import numpy as np
import torch

from neuralcodec.check.compare import is_finite
from neuralcodec.check.line import Finding, NotApplicable
from neuralcodec.check.subject import Subject, arrays
from neuralcodec.core.rates import nominal_rates
from neuralcodec.core.tokens import Tokens

_PADDING = 2  # frames by which the codes of a clip may exceed its length
_PACKET = 0.1  # seconds by which they may exceed it where short frames are grouped in packets
_SHORT = 0.005  # seconds; frames shorter than this count as short


def _stated(subject: Subject) -> dict[str, tuple[Any, Any]]:
    """Return pairs of what the codec and the registry state, by name."""
    facts, codec = subject.facts, subject.codec
    if facts is None:
        return {}
    pairs: dict[str, tuple[Any, Any]] = {
        "sample_rate": (codec.sample_rate, facts.sample_rate),
        "channels": (codec.channels, facts.channels),
        "is_causal": (codec.is_causal, facts.is_causal),
        "frame_rates": (subject.frame_rates, facts.frame_rates),
    }
    if subject.has_codes:
        pairs["codebook_sizes"] = (codec.codebook_sizes, facts.codebook_sizes)
    if subject.has_latents:
        pairs["dim"] = (subject.latents.dim, facts.dim)
    return pairs


def rates(subject: Subject) -> Finding:
    """The number of tokens of a clip is that which the stated rates give."""
    wrong = [
        f"{name} is {own}, the registry says {known}"
        for name, (own, known) in _stated(subject).items()
        if own != known
    ]
    source = "by the codec and the registry" if subject.facts else "by the codec alone"
    coded = subject.coded
    seconds = subject.length / subject.sample_rate
    counts = [array.shape[-1] for array in arrays(coded)]
    for index, (rate, count) in enumerate(zip(subject.frame_rates, counts, strict=False)):
        packed = subject.hop < _SHORT * subject.sample_rate
        span = _PACKET if packed else _PADDING * subject.hop / subject.sample_rate
        padding = max(_PADDING, rate * span)
        if not 0 <= count - math.floor(rate * seconds) <= padding:
            wrong.append(f"codebook {index}: {count} frames in {seconds:.3f} s at {rate:g} Hz")
    if not isinstance(coded, Tokens):
        measured = f"{counts[0]} latents in {seconds:.3f} s"
        return Finding(not wrong, "; ".join(wrong) or measured, "as stated", source)
    codec = subject.codec
    own = (coded.sample_rate, coded.num_samples, coded.codebook_sizes)
    if own != (codec.sample_rate, subject.length, codec.codebook_sizes):
        wrong.append(f"tokens say {own} of sample rate, length and codebook sizes")
    if subject.frame_rates and coded.frame_rates != subject.frame_rates:
        wrong.append(f"tokens say frame rates {coded.frame_rates}, the codec {subject.frame_rates}")
    per_second, kbps = nominal_rates(coded.frame_rates, codec.codebook_sizes)
    return Finding(
        not wrong,
        "; ".join(wrong) or f"{per_second:g} tokens/s, {kbps:g} kbit/s, {sum(counts)} counted",
        "as stated",
        source,
    )


def latents(subject: Subject) -> Finding:
    """Latents have the stated width, are finite and decode to the requested length."""
    if not subject.has_latents:
        raise NotApplicable("it gives no latents")
    codec, length = subject.latents, subject.length // 2
    with torch.no_grad():
        z = codec.encode_latents(subject.wav[..., :length])
        wav = codec.decode_latents(z, length)
    seconds = length / subject.sample_rate
    expected = math.ceil(seconds * codec.frame_rate - 1e-6)
    right = (
        z.ndim == 3
        and z.shape[:2] == (1, codec.dim)
        and expected <= z.shape[2] <= expected + _PADDING
        and wav.shape == (1, subject.channels, length)
        and is_finite(z, wav)
    )
    return Finding(
        right,
        f"z {list(z.shape)} of {length} samples, wav {list(wav.shape)}",
        f"[1, {codec.dim}, {expected}..{expected + _PADDING}], [1, {subject.channels}, {length}]",
        "both finite",
    )


def _process() -> dict[str, Any]:
    """Return the global state of this process that a codec must not change."""
    return {
        "the random state of torch": torch.random.get_rng_state().tolist(),
        "the random state of numpy": repr(np.random.get_state()),  # noqa: NPY002  # the global one
        "the random state of Python": random.getstate(),
        "torch's threads": torch.get_num_threads(),
        "torch's default type": torch.get_default_dtype(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "numpy's error handling": np.geterr(),
    }


def side_effects(subject: Subject) -> Finding:
    """Encoding and decoding change neither global state nor input; autograd takes the results."""
    before, wav = _process(), subject.wav.clone()
    coded = subject.encode(wav)
    given = [array.clone() for array in arrays(coded)]
    back = subject.decode(coded, subject.length)
    wrong = [name for name, value in _process().items() if value != before[name]]
    if not torch.equal(wav, subject.wav):
        wrong.append("the audio given")
    if not all(map(torch.equal, given, arrays(coded))):
        wrong.append("the codes given")
    if any(tensor.is_inference() for tensor in (*arrays(coded), back)):
        wrong.append("results that autograd refuses (inference tensors)")
    return Finding(
        not wrong,
        f"changed: {', '.join(wrong)}" if wrong else "nothing changed",
        "nothing",
        "random states, threads, settings of torch and numpy, and the input",
    )
