"""Long audio through a codec in chunks: bounded memory, the same tokens and audio.

A codec with streams takes one chunk after the other. A codec whose contexts are known sees each
chunk with as many frames before and after it as a frame depends on, and what it makes of those is
dropped. The first chunk begins and the last one ends where the clip does, so that what a codec does
at its ends is done there and nowhere else. Any other codec is given the whole clip; its memory
grows with it unless it works in segments itself, as EnCodec at 48 kHz does.

The result is the same except for rounding: sums taken in another order may flip a code that was
nearly a tie.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralcodec.core.audio import fit_length
from neuralcodec.core.codec import Codec
from neuralcodec.core.inputs import as_batch
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.tokens import Tokens


@dataclass(frozen=True)
class _Chunk:
    """Frames `first`..`last` of a clip, seen among `start`..`end`; None is the clip's end.

    A codec may give some frames beyond the audio; with None they belong to the last chunk.
    """

    start: int
    first: int
    last: int | None
    end: int | None

    def seen(self, unit: int) -> slice:
        """Return what the codec sees of the clip, where a frame has `unit` elements."""
        return slice(self.start * unit, self.end and self.end * unit)

    def kept(self, unit: int) -> slice:
        """Return what is kept of what was seen."""
        last = self.last and (self.last - self.start) * unit
        return slice((self.first - self.start) * unit, last)


def _chunks(frames: int, size: int, context: int) -> Iterator[_Chunk]:
    for first in range(0, frames, size):
        last, end = first + size, first + size + context
        yield _Chunk(
            start=max(first - context, 0),
            first=first,
            last=last if last < frames else None,
            end=end if end < frames else None,
        )


class _Joined:
    """Pieces put together along the last axis, each at once in its place in a single tensor.

    Left lying apart till the end they would fill the holes that a codec leaves where it frees its
    large tensors, and these would have to be taken anew for every chunk (seen with glibc).
    """

    def __init__(self, expected: int) -> None:
        self.length = 0
        self._expected = expected
        self._whole: Tensor | None = None

    def add(self, piece: Tensor) -> None:
        end = self.length + piece.shape[-1]
        if self._whole is None:
            self._whole = piece.new_empty(*piece.shape[:-1], max(end, self._expected))
        missing = end - self._whole.shape[-1]
        if missing > 0:
            self._whole = torch.nn.functional.pad(self._whole, (0, missing))
        self._whole[..., self.length : end] = piece
        self.length = end

    def get(self) -> Tensor:
        assert self._whole is not None
        return self._whole[..., : self.length]


@dataclass(frozen=True)
class _Sight:
    """What a codec of known contexts sees: samples per frame, and frames to both sides."""

    hop: int
    encode: int
    decode: int


def _sight(codec: Codec) -> _Sight:
    hop, before, after = codec.hop_length, codec.encode_context, codec.decode_context
    assert hop is not None
    assert before is not None
    assert after is not None
    return _Sight(hop, before, after)


def _per_chunk(seconds: float, rate: float) -> int:
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds of a chunk must be positive and finite, got {seconds}")
    return max(1, round(seconds * rate))


def _frames(length: int, unit: int) -> int:
    return -(-length // unit)


def _per_frame(codec: Codec, frame_rate: float, sample_rate: int) -> int:
    """Return the number of codes that a codebook of `frame_rate` Hz has per `hop_length`."""
    hop = _sight(codec).hop
    count = frame_rate * hop / sample_rate
    if round(count) < 1 or not math.isclose(count, round(count), rel_tol=1e-6):
        raise ValueError(
            f"frames of {hop} samples at {sample_rate} Hz hold {count:g} codes of a "
            f"codebook at {frame_rate:g} Hz: chunks need a whole number"
        )
    return round(count)


def _units(codec: Codec, tokens: Tokens) -> list[int]:
    """Return the number of codes that each of `tokens.arrays` has per frame of the codec."""
    if tokens.side:
        raise ValueError(
            f"tokens with {', '.join(sorted(tokens.side))} beside the codes can't be chunked: "
            f"which part of it belongs to which chunk is not known"
        )
    rates = tokens.frame_rates[: len(tokens.arrays)]
    return [_per_frame(codec, rate, tokens.sample_rate) for rate in rates]


def _checked(wav: _Joined, num_samples: int) -> Tensor:
    if wav.length < num_samples:
        raise ValueError(f"the codes decode to {wav.length} samples, {num_samples} were encoded")
    return wav.get()[..., :num_samples]


def _encode_stream(codec: Codec, wav: Tensor, size: int, num_codebooks: int | None) -> Tokens:
    stream = codec.stream(num_codebooks)
    codes = _Joined(math.ceil(wav.shape[-1] / codec.sample_rate * codec.frame_rates[0]))
    for start in range(0, wav.shape[-1], size):
        piece = wav[..., start : start + size]
        codes.add(stream.push(piece))
    codes.add(stream.finish())
    return codec.tokens(codes.get(), wav.shape[-1])


def _decode_stream(codec: Codec, tokens: Tokens, size: int) -> Tensor:
    codec.check_tokens(tokens)  # a stream is given bare codes: it can't tell
    codes = tokens.codes if isinstance(tokens.codes, Tensor) else torch.stack(tokens.codes, dim=1)
    padded = math.ceil(codes.shape[-1] / tokens.frame_rates[0] * codec.sample_rate)
    stream, wav = codec.decode_stream(), _Joined(padded)
    for start in range(0, codes.shape[-1], size):
        wav.add(stream.push(codes[..., start : start + size]))
    wav.add(stream.finish())
    return _checked(wav, tokens.num_samples)


def _encode_chunks(codec: Codec, wav: Tensor, size: int, num_codebooks: int | None) -> Tokens:
    hop = _sight(codec).hop
    frames = _frames(wav.shape[-1], hop)
    joined: list[_Joined] = []
    for chunk in _chunks(frames, size, _sight(codec).encode):
        tokens = codec.encode(wav[..., chunk.seen(hop)], num_codebooks)
        units = _units(codec, tokens)
        joined = joined or [_Joined(frames * unit) for unit in units]
        for whole, array, unit in zip(joined, tokens.arrays, units, strict=True):
            whole.add(array[..., chunk.kept(unit)])
    return tokens.with_codes([whole.get() for whole in joined], wav.shape[-1])


def _decode_chunks(codec: Codec, tokens: Tokens, size: int) -> Tensor:
    arrays, units = tokens.arrays, _units(codec, tokens)
    hop, wav = _sight(codec).hop, _Joined(tokens.num_samples)
    frames = min(map(_frames, (array.shape[-1] for array in arrays), units))
    if frames * hop < tokens.num_samples:
        raise ValueError(
            f"the codes decode to {frames * hop} samples, {tokens.num_samples} were encoded"
        )
    for chunk in _chunks(min(frames, _frames(tokens.num_samples, hop)), size, _sight(codec).decode):
        seen = [array[..., chunk.seen(unit)] for array, unit in zip(arrays, units, strict=True)]
        length = len(range(tokens.num_samples)[chunk.seen(hop)])
        piece = codec.decode(tokens.with_codes(seen, length))
        wav.add(piece[..., chunk.kept(hop)])
    return _checked(wav, tokens.num_samples)


def encode(
    codec: Codec, wav: Tensor, *, seconds: float = 10.0, num_codebooks: int | None = None
) -> Tokens:
    """Encode long audio as `codec.encode` does, in memory that does not grow with its length.

    Args:
        codec: if it has neither streams nor known contexts, it is given the whole clip.
        wav: `[B, C, T]`, `[C, T]` or `[T]`, float in [-1, 1].
        seconds: per chunk, without its contexts; a shorter clip is coded whole.
        num_codebooks: levels to use, 1..K; default all.

    Raises:
        ValueError: if `seconds` is not positive and finite, the codec refuses its input, its tokens
            have a `side`, or its frame rates don't fit its `hop_length`.
    """
    wav = as_batch(wav, codec.channels)
    size = _per_chunk(seconds, codec.sample_rate)
    if wav.shape[-1] <= size:
        return codec.encode(wav, num_codebooks)
    if codec.is_streaming:
        return _encode_stream(codec, wav, size, num_codebooks)
    if codec.is_chunkable:
        frames = _per_chunk(seconds, codec.sample_rate / _sight(codec).hop)
        return _encode_chunks(codec, wav, frames, num_codebooks)
    return codec.encode(wav, num_codebooks)


def decode(codec: Codec, tokens: Tokens, *, seconds: float = 10.0) -> Tensor:
    """Decode many tokens as `codec.decode` does, in memory that doesn't grow with their number.

    Args:
        codec: if it has neither streams nor known contexts, it is given all tokens at once.
        tokens: of any prefix of the codec's codebooks.
        seconds: per chunk, without its contexts; a shorter clip is coded whole.

    Returns:
        wav `[B, C, num_samples]`.

    Raises:
        ValueError: if `seconds` is not positive and finite, the tokens are not the codec's, have a
            `side` or are too few for their `num_samples`, or frame rates don't fit `hop_length`.
    """
    size = _per_chunk(seconds, codec.sample_rate)
    if tokens.num_samples <= size:
        return codec.decode(tokens)
    if tokens.clips is not None:
        clips = [decode(codec, clip, seconds=seconds) for clip in tokens]
        return torch.cat([fit_length(clip, tokens.num_samples) for clip in clips])
    if codec.is_streaming:
        return _decode_stream(codec, tokens, _per_chunk(seconds, codec.frame_rates[0]))
    if codec.is_chunkable:
        frames = _per_chunk(seconds, codec.sample_rate / _sight(codec).hop)
        return _decode_chunks(codec, tokens, frames)
    return codec.decode(tokens)


def encode_latents(codec: LatentCodec, wav: Tensor, *, seconds: float = 10.0) -> Tensor:
    """Return the latents `[B, D, frames]` of long audio, as `codec.encode_latents` does.

    Args:
        codec: if its contexts are not known, it is given the whole clip; streams are of codes only.
        wav: `[B, C, T]`, `[C, T]` or `[T]`, float in [-1, 1].
        seconds: as for `encode`.

    Raises:
        ValueError: as for `encode`.
    """
    wav = as_batch(wav, codec.channels)
    size = _per_chunk(seconds, codec.sample_rate)
    if not codec.is_chunkable or wav.shape[-1] <= size:
        return codec.encode_latents(wav)
    hop = _sight(codec).hop
    unit = _per_frame(codec, codec.frame_rate, codec.sample_rate)
    size = _per_chunk(seconds, codec.sample_rate / hop)
    frames = _frames(wav.shape[-1], hop)
    z = _Joined(frames * unit)
    for chunk in _chunks(frames, size, _sight(codec).encode):
        z.add(codec.encode_latents(wav[..., chunk.seen(hop)])[..., chunk.kept(unit)])
    return z.get()


def decode_latents(codec: LatentCodec, z: Tensor, length: int, *, seconds: float = 10.0) -> Tensor:
    """Turn many latents into wav `[B, C, length]`, as `codec.decode_latents` does.

    Args:
        codec: if its contexts are not known, it is given all latents at once.
        z: `[B, D, frames]`.
        length: of the audio, samples.
        seconds: as for `encode`.

    Raises:
        ValueError: as for `decode`.
    """
    size = _per_chunk(seconds, codec.sample_rate)
    if not codec.is_chunkable or length <= size:
        return codec.decode_latents(z, length)
    hop, wav = _sight(codec).hop, _Joined(length)
    unit = _per_frame(codec, codec.frame_rate, codec.sample_rate)
    size = _per_chunk(seconds, codec.sample_rate / hop)
    frames = min(_frames(length, hop), _frames(z.shape[-1], unit))
    for chunk in _chunks(frames, size, _sight(codec).decode):
        samples = len(range(length)[chunk.seen(hop)])
        piece = codec.decode_latents(z[..., chunk.seen(unit)], samples)
        wav.add(piece[..., chunk.kept(hop)])
    return _checked(wav, length)
