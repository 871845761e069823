"""Checks that batches, chunks, streams, later audio and the depth do not change the codes."""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from neuralcodec.check.compare import Comparison, codes_apart, is_finite
from neuralcodec.check.line import Finding, NotApplicable
from neuralcodec.check.subject import Subject, arrays
from neuralcodec.core import chunks
from neuralcodec.core.tokens import Tokens

_BATCH = 3
_CHUNK = 8  # frames, unless the contexts are longer


def determinism(subject: Subject) -> Finding:
    """The same input gives the same output."""
    seen = Comparison()
    seen.coded(arrays(subject.encode(subject.wav)), arrays(subject.coded))
    seen.audio(subject.decode(subject.coded, subject.length), subject.decoded)
    return seen.finding("encoded and decoded twice", exact=True)


def batch(subject: Subject) -> Finding:
    """A clip gives the same codes and audio in a batch and alone."""
    if not subject.frame_rates:
        raise NotApplicable("a variable bitrate: clips of a batch would differ in length")
    length = subject.length // 2
    wavs = [subject.speech(length, part) / (part + 1) for part in range(_BATCH)]
    together = subject.encode(torch.cat(wavs))
    back = subject.decode(together, length)
    seen = Comparison()
    for index, wav in enumerate(wavs):
        alone = together[index] if isinstance(together, Tokens) else together[index : index + 1]
        seen.coded(arrays(alone), arrays(subject.encode(wav)))
        seen.audio(back[index : index + 1], subject.decode(alone, length))
    return seen.finding(f"{_BATCH} clips at once and one by one")


def lengths(subject: Subject) -> Finding:
    """Clips of different lengths in one batch give the same codes and audio as each alone."""
    if not subject.has_codes:
        raise NotApplicable("latents, no tokens")
    half = subject.length // 2
    wavs = [subject.speech(size, part)[0] for part, size in enumerate((half, half // 2 + 1, half))]
    together = subject.codec.encode(wavs)
    back = subject.codec.decode(together)
    seen = Comparison()
    for index, wav in enumerate(wavs):
        alone = subject.codec.encode(wav)
        seen.coded(together[index].streams, alone.streams)
        own = back[index : index + 1, :, : wav.shape[-1]]
        seen.audio(own, subject.codec.decode(alone))
    return seen.finding(f"{len(wavs)} clips of two lengths at once and one by one")


def chunk(subject: Subject) -> Finding:
    """Long audio coded in chunks gives the same codes and audio as coded whole."""
    codec = subject.codec
    streams = subject.has_codes and codec.is_streaming
    if not subject.is_limited and not streams:
        raise NotApplicable("it is given long audio whole: it has no contexts and no streams")
    # A stream may have a context too: the frames for which it waits.
    context = max(codec.encode_context or 0, codec.decode_context or 0)
    size = max(_CHUNK, context)
    # Long enough that both contexts of at least one chunk lie within the clip.
    length = (2 * context + 2 * size + 1) * subject.hop - subject.hop // 3
    wav, seconds = subject.speech(length), size * subject.hop / subject.sample_rate
    seen = Comparison()
    if subject.has_codes:
        tokens = codec.encode(wav)
        seen.coded(chunks.encode(codec, wav, seconds=seconds).streams, tokens.streams)
        seen.audio(chunks.decode(codec, tokens, seconds=seconds), codec.decode(tokens))
    if subject.latent is not None and subject.is_limited:
        # A context that is slightly too small changes latents, but not always codes.
        latents = subject.latent
        with torch.no_grad():
            z = latents.encode_latents(wav)
            seen.coded([chunks.encode_latents(latents, wav, seconds=seconds)], [z])
            if not subject.has_codes:
                back = chunks.decode_latents(latents, z, length, seconds=seconds)
                seen.audio(back, latents.decode_latents(z, length))
    how = "streams" if streams else f"contexts of {context} frames"
    return seen.finding(f"chunks of {size} frames by {how}, and the whole")


def _pieces(x: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    start, turn = 0, cycle(sizes)
    while start < x.shape[-1]:
        size = next(turn)
        yield x[..., start : start + size]
        start += size


def _streamed(stream: Any, x: Tensor, sizes: list[int]) -> Tensor:
    parts = [stream.push(piece) for piece in _pieces(x, sizes)]
    return torch.cat([*parts, stream.finish()], dim=-1).cpu()


def stream(subject: Subject) -> Finding:
    """Streamed audio gives the same codes and audio as the whole clip."""
    codec = subject.codec
    if not (codec.is_streaming and subject.has_codes):
        why = "though causal it offers no streams" if subject.codec.is_causal else "it isn't causal"
        raise NotApplicable(f"no streams: {why}")
    tokens = subject.coded
    assert isinstance(tokens, Tokens)
    hop = subject.hop
    sizes = [1, hop, max(hop - 1, 1), 3 * hop + 7, hop + 1, 2 * hop]
    seen = Comparison()
    codes = _streamed(codec.stream(), subject.wav, sizes)
    seen.coded(codes.unbind(1), tokens.streams)
    wav = _streamed(codec.decode_stream(), torch.stack(tokens.streams, dim=1), [1, 3, 2, 7])
    seen.audio(wav[..., : subject.length], subject.decoded)
    return seen.finding("pieces of changing length, and the whole")


def causality(subject: Subject) -> Finding:
    """Later audio changes no earlier frame of a codec that is declared causal."""
    if not subject.codec.is_causal:
        raise NotApplicable("it doesn't say that it is causal")
    subject.needs_frames()
    frames = -(-subject.length // subject.hop) * 3 // 4  # the first frames may depend on a few more
    wav = subject.wav.clone()
    wav[..., frames * subject.hop :] = -wav[..., frames * subject.hop :].flip(-1)
    changed = subject.encode(wav)
    units = [frames * subject.per_hop(rate) for rate in subject.frame_rates]
    seen = Comparison()
    seen.coded(
        [array[..., :unit] for array, unit in zip(arrays(changed), units, strict=True)],
        [array[..., :unit] for array, unit in zip(arrays(subject.coded), units, strict=True)],
    )
    return seen.finding(f"{frames} frames, with other audio from there on", exact=True)


def prefix(subject: Subject) -> Finding:
    """The codes of k codebooks are the first k of K, and they decode to the full length."""
    if not subject.has_codes:
        raise NotApplicable("latents, no codebooks")
    if len(subject.depths) < 2:
        raise NotApplicable("one codebook, of which there is no prefix")
    depths = sorted({subject.depths[0], subject.depths[len(subject.depths) // 2]})
    apart = total = 0
    explanation = ""
    tokens = subject.coded
    assert isinstance(tokens, Tokens)
    for depth in depths:
        first = tokens.prefix(depth)
        fewer = subject.encode(subject.wav, depth)
        if len(arrays(fewer)) != depth:
            message = f"{len(arrays(fewer))} codebooks where {depth} were asked for"
            return Finding(False, message, "as many as asked for")
        count = codes_apart(arrays(fewer), arrays(first))
        apart, total = apart + count[0], total + count[1]
        wav = subject.decode(first, subject.length)
        if wav.shape != subject.wav.shape or not is_finite(wav):
            explanation = f"; {depth} codebooks decode to {list(wav.shape)}, or not to numbers"
    holds = apart == 0 and not explanation
    return Finding(
        holds,
        f"{apart} of {total} codes differ{explanation}",
        "none, and the prefix decodes",
        f"{' and '.join(map(str, depths))} codebooks, and the first of {subject.num_codebooks}",
    )
