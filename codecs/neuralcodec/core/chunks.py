"""Long audio through a codec in chunks: memory stays flat, tokens and audio stay the same.

A codec with streams (`Streaming`) takes audio as it comes, so it takes a chunk after the other. A
codec of limited sight (`Chunkable`) sees each chunk with as many frames before and after it as a
frame depends on, and what it makes of those is dropped. The first chunk begins and the last one
ends where the clip does, so that what a codec does at its ends is done there and nowhere else. Any
other codec is given the whole clip; its memory grows with it unless it works in segments itself, as
EnCodec at 48 kHz does.

What comes out is the same but for rounding: sums taken in another order may flip a code that was
nearly a tie.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from neuralcodec.core.audio import check_wav
from neuralcodec.core.checks import check_tokens
from neuralcodec.core.codec import Chunkable, Codec, LatentCodec, Streaming
from neuralcodec.core.tokens import Tokens


class _ChunkableCodec(Codec, Chunkable, Protocol):
    pass


class _StreamingCodec(Codec, Streaming, Protocol):
    pass


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
        """Find in the clip what the codec sees, where a frame has `unit` elements."""
        return slice(self.start * unit, self.end and self.end * unit)

    def kept(self, unit: int) -> slice:
        """Find in what was seen what is kept."""
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


def _per_chunk(seconds: float, rate: float) -> int:
    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds of a chunk must be positive and finite, got {seconds}")
    return max(1, round(seconds * rate))


def _frames(length: int, unit: int) -> int:
    return -(-length // unit)


def _per_frame(codec: Chunkable, frame_rate: float, sample_rate: int) -> int:
    """Count what a codebook of `frame_rate` Hz gives in `hop_length` samples."""
    count = frame_rate * codec.hop_length / sample_rate
    if round(count) < 1 or not math.isclose(count, round(count), rel_tol=1e-6):
        raise ValueError(
            f"frames of {codec.hop_length} samples at {sample_rate} Hz hold {count:g} codes of a "
            f"codebook at {frame_rate:g} Hz: chunks need a whole number"
        )
    return round(count)


def _arrays(tokens: Tokens) -> tuple[Tensor, ...]:
    """Give the codes as arrays whose last axis is time: one, or one a codebook."""
    return (tokens.codes,) if isinstance(tokens.codes, Tensor) else tokens.codes


def _units(codec: Chunkable, tokens: Tokens) -> list[int]:
    """Count the codes that each of `_arrays` has in a frame of the codec."""
    if tokens.side:
        raise ValueError(
            f"tokens with {', '.join(sorted(tokens.side))} beside the codes can't be chunked: "
            f"nobody knows which part of it is a chunk's"
        )
    rates = tokens.frame_rates[: len(_arrays(tokens))]
    return [_per_frame(codec, rate, tokens.sample_rate) for rate in rates]


def _with_codes(tokens: Tokens, arrays: Sequence[Tensor], num_samples: int) -> Tokens:
    codes = arrays[0] if isinstance(tokens.codes, Tensor) else tuple(arrays)
    return replace(tokens, codes=codes, num_samples=num_samples)


def _checked(wav: _Joined, num_samples: int) -> Tensor:
    if wav.length < num_samples:
        raise ValueError(f"the codes decode to {wav.length} samples, {num_samples} were encoded")
    return wav.get()[..., :num_samples]


def _encode_stream(
    codec: _StreamingCodec, wav: Tensor, size: int, num_codebooks: int | None
) -> Tokens:
    stream = codec.stream(num_codebooks)
    codes = _Joined(math.ceil(wav.shape[-1] / codec.sample_rate * codec.frame_rates[0]))
    for start in range(0, wav.shape[-1], size):
        piece = wav[..., start : start + size]
        check_wav(piece, channels=codec.channels)
        codes.add(stream.push(piece))
    codes.add(stream.finish())
    depth = codes.get().shape[1]
    return Tokens(
        codes.get(),
        frame_rates=codec.frame_rates[:depth],
        codebook_sizes=codec.codebook_sizes[:depth],
        sample_rate=codec.sample_rate,
        num_samples=wav.shape[-1],
    )


def _decode_stream(codec: _StreamingCodec, tokens: Tokens, size: int) -> Tensor:
    check_tokens(codec, tokens)  # a stream is given bare codes: it can't tell
    codes = tokens.codes if isinstance(tokens.codes, Tensor) else torch.stack(tokens.codes, dim=1)
    padded = math.ceil(codes.shape[-1] / tokens.frame_rates[0] * codec.sample_rate)
    stream, wav = codec.decode_stream(), _Joined(padded)
    for start in range(0, codes.shape[-1], size):
        wav.add(stream.push(codes[..., start : start + size]))
    wav.add(stream.finish())
    return _checked(wav, tokens.num_samples)


def _encode_chunks(
    codec: _ChunkableCodec, wav: Tensor, size: int, num_codebooks: int | None
) -> Tokens:
    hop = codec.hop_length
    frames = _frames(wav.shape[-1], hop)
    joined: list[_Joined] = []
    for chunk in _chunks(frames, size, codec.encode_context):
        tokens = codec.encode(wav[..., chunk.seen(hop)], num_codebooks)
        units = _units(codec, tokens)
        joined = joined or [_Joined(frames * unit) for unit in units]
        for whole, array, unit in zip(joined, _arrays(tokens), units, strict=True):
            whole.add(array[..., chunk.kept(unit)])
    return _with_codes(tokens, [whole.get() for whole in joined], wav.shape[-1])


def _decode_chunks(codec: _ChunkableCodec, tokens: Tokens, size: int) -> Tensor:
    arrays, units = _arrays(tokens), _units(codec, tokens)
    hop, wav = codec.hop_length, _Joined(tokens.num_samples)
    # Codes may be too few for the audio: what the last chunk lacks is the codec's to judge.
    frames = min(map(_frames, (array.shape[-1] for array in arrays), units))
    for chunk in _chunks(min(frames, _frames(tokens.num_samples, hop)), size, codec.decode_context):
        seen = [array[..., chunk.seen(unit)] for array, unit in zip(arrays, units, strict=True)]
        length = len(range(tokens.num_samples)[chunk.seen(hop)])
        piece = codec.decode(_with_codes(tokens, seen, length))
        wav.add(piece[..., chunk.kept(hop)])
    return _checked(wav, tokens.num_samples)


def encode(
    codec: Codec, wav: Tensor, *, seconds: float = 10.0, num_codebooks: int | None = None
) -> Tokens:
    """Encode long audio as `codec.encode` does, in memory that doesn't grow with its length.

    Args:
        codec: `Streaming` or `Chunkable`, or it is given the whole clip.
        wav: `[B, C, T]`, float in [-1, 1].
        seconds: of a chunk, contexts not counted; a clip no longer than that goes through whole.
        num_codebooks: levels to use, 1..K; default all.

    Raises:
        ValueError: if `seconds` is not positive and finite, the codec refuses its input, its tokens
            have a `side`, or its frame rates don't fit its `hop_length`.
    """
    size = _per_chunk(seconds, codec.sample_rate)
    if wav.shape[-1] <= size:
        return codec.encode(wav, num_codebooks)
    if isinstance(codec, Streaming):
        return _encode_stream(codec, wav, size, num_codebooks)
    if isinstance(codec, Chunkable):
        frames = _per_chunk(seconds, codec.sample_rate / codec.hop_length)
        return _encode_chunks(codec, wav, frames, num_codebooks)
    return codec.encode(wav, num_codebooks)


def decode(codec: Codec, tokens: Tokens, *, seconds: float = 10.0) -> Tensor:
    """Decode many tokens as `codec.decode` does, in memory that doesn't grow with their number.

    Args:
        codec: `Streaming` or `Chunkable`, or it is given all tokens at once.
        tokens: of any prefix of the codec's codebooks.
        seconds: of a chunk, contexts not counted; a clip no longer than that goes through whole.

    Returns:
        wav `[B, C, num_samples]`.

    Raises:
        ValueError: if `seconds` is not positive and finite, the tokens are not the codec's, have a
            `side` or are too few for their `num_samples`, or frame rates don't fit `hop_length`.
    """
    size = _per_chunk(seconds, codec.sample_rate)
    if tokens.num_samples <= size:
        return codec.decode(tokens)
    if isinstance(codec, Streaming):
        return _decode_stream(codec, tokens, _per_chunk(seconds, codec.frame_rates[0]))
    if isinstance(codec, Chunkable):
        frames = _per_chunk(seconds, codec.sample_rate / codec.hop_length)
        return _decode_chunks(codec, tokens, frames)
    return codec.decode(tokens)


def encode_latents(codec: LatentCodec, wav: Tensor, *, seconds: float = 10.0) -> Tensor:
    """Give the latents `[B, D, frames]` of long audio, as `codec.encode_latents` does.

    Args:
        codec: `Chunkable`, or it is given the whole clip; streams are of codes only.
        wav: `[B, C, T]`, float in [-1, 1].
        seconds: as for `encode`.

    Raises:
        ValueError: as for `encode`.
    """
    size = _per_chunk(seconds, codec.sample_rate)
    if not isinstance(codec, Chunkable) or wav.shape[-1] <= size:
        return codec.encode_latents(wav)
    hop = codec.hop_length
    unit = _per_frame(codec, codec.frame_rate, codec.sample_rate)
    size = _per_chunk(seconds, codec.sample_rate / hop)
    frames = _frames(wav.shape[-1], hop)
    z = _Joined(frames * unit)
    for chunk in _chunks(frames, size, codec.encode_context):
        z.add(codec.encode_latents(wav[..., chunk.seen(hop)])[..., chunk.kept(unit)])
    return z.get()


def decode_latents(codec: LatentCodec, z: Tensor, length: int, *, seconds: float = 10.0) -> Tensor:
    """Turn many latents into wav `[B, C, length]`, as `codec.decode_latents` does.

    Args:
        codec: `Chunkable`, or it is given all latents at once.
        z: `[B, D, frames]`.
        length: of the audio, samples.
        seconds: as for `encode`.

    Raises:
        ValueError: as for `decode`.
    """
    size = _per_chunk(seconds, codec.sample_rate)
    if not isinstance(codec, Chunkable) or length <= size:
        return codec.decode_latents(z, length)
    hop, wav = codec.hop_length, _Joined(length)
    unit = _per_frame(codec, codec.frame_rate, codec.sample_rate)
    size = _per_chunk(seconds, codec.sample_rate / hop)
    frames = min(_frames(length, hop), _frames(z.shape[-1], unit))
    for chunk in _chunks(frames, size, codec.decode_context):
        samples = len(range(length)[chunk.seen(hop)])
        piece = codec.decode_latents(z[..., chunk.seen(unit)], samples)
        wav.add(piece[..., chunk.kept(hop)])
    return _checked(wav, length)
