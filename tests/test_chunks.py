"""Chunks: what comes out is what the whole would give, in memory that doesn't grow."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neuralcodec.core import chunks
from neuralcodec.core.codec import Codec
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.tokens import Tokens

RATE = 1000
SIZE = 1021  # entries of a codebook


def weigh(signal: Tensor, reach: int, step: int, width: int, modulus: int) -> Tensor:
    """Sum up, modulo, all that windows of `width` and `reach` to both sides see of `[B, T]` int64.

    Weights are never 0 and the padding isn't either, so nothing within reach is without effect.
    """
    padded = torch.nn.functional.pad(signal, (reach, reach), value=77)
    windows = padded.unfold(-1, 2 * reach + width, step)
    weights = torch.arange(3, 3 + windows.shape[-1]) * 7919 % 1009 + 1
    return (windows * weights).sum(-1) % modulus


class Limited(LatentCodec):
    """A codec that sees exactly so many frames, in integers, so that equality is exact."""

    name, sample_rate, channels, is_causal = "limited", RATE, 1, False

    hop_length: int

    def __init__(
        self, hop: int, encode_context: int, decode_context: int, units: Sequence[int] = (1,)
    ) -> None:
        super().__init__()
        self.hop_length, self.units = hop, tuple(units)
        self.encode_context, self.decode_context = encode_context, decode_context
        self.true_context = encode_context, decode_context
        self.extra = 0
        self.frame_rates = tuple(RATE / hop * unit for unit in self.units)
        self.codebook_sizes = (SIZE,) * len(self.units)
        self.dim, self.frame_rate = 1, self.frame_rates[0]
        self.longest = 0

    def _encode(self, wav: Tensor, depth: int) -> Tokens:
        self.longest = max(self.longest, wav.shape[-1])
        frames = -(-wav.shape[-1] // self.hop_length) + self.extra
        signal = (wav[:, 0] * 32767).round().long()
        signal = torch.nn.functional.pad(signal, (0, frames * self.hop_length - wav.shape[-1]))
        reach = self.true_context[0] * self.hop_length
        steps = [self.hop_length // unit for unit in self.units[:depth]]
        streams = [weigh(signal, reach, step, step, SIZE) for step in steps]
        return Tokens(
            torch.stack(streams, 1) if set(self.units) == {1} else tuple(streams),
            frame_rates=self.frame_rates[:depth],
            codebook_sizes=self.codebook_sizes[:depth],
            sample_rate=RATE,
            num_samples=wav.shape[-1],
        )

    def _decode(self, tokens: Tokens) -> Tensor:
        spread = [
            stream.repeat_interleave(self.hop_length // unit, dim=1)
            for stream, unit in zip(tokens.streams, self.units, strict=False)
        ]
        reach = self.true_context[1] * self.hop_length
        signal = torch.stack(spread).sum(0)
        wav = weigh(signal, reach, 1, 1, 32768).float() / 32768
        return wav[:, None, : tokens.num_samples]

    def _analyse(self, wav: Tensor) -> Tensor:
        return self._encode(wav, 1).streams[0][:, None].float()

    def _synthesise(self, z: Tensor) -> Tensor:
        length = z.shape[-1] * self.hop_length
        tokens = Tokens.uniform(
            z.long(),
            frame_rate=self.frame_rates[0],
            codebook_size=SIZE,
            sample_rate=RATE,
            num_samples=length,
        )
        return self._decode(tokens)


class Summing:
    """A layer of running sums, which see all of the past.

    Encoding, blocks of `width` samples become one code; decoding, a code becomes `width` samples.
    """

    def __init__(self, width: int, decoder: bool = False) -> None:
        self.width, self.decoder = width, decoder
        self.total: Tensor | int = 0
        self.rest: Tensor | None = None

    def step(self, x: Tensor, last: bool) -> Tensor:
        if self.decoder:
            sums = x.cumsum(-1) + self.total
            self.total = sums[..., -1:] if x.shape[-1] else self.total
            samples = (sums % SIZE).sum(1, keepdim=True).float() / 65536
            return samples.repeat_interleave(self.width, dim=-1)
        samples = (x * 32767).round().long()
        samples = samples if self.rest is None else torch.cat([self.rest, samples], -1)
        if last:
            samples = torch.nn.functional.pad(samples, (0, -samples.shape[-1] % self.width))
        frames = samples.shape[-1] // self.width
        self.rest = samples[..., frames * self.width :]
        whole = samples[..., : frames * self.width]
        blocks = whole.reshape(*whole.shape[:-1], frames, self.width)
        ends = blocks.sum(-1).cumsum(-1) + self.total
        self.total = ends[..., -1:] if frames else self.total
        return ends % SIZE


class Endless(Codec):
    """A causal codec that remembers all of the past, and streams."""

    name, sample_rate, is_causal, is_streaming = "endless", RATE, True, True
    frame_rates = (RATE / 10,)
    codebook_sizes = (SIZE,)

    def _encode_layer(self, depth: int) -> Summing:
        return Summing(10)

    def _decode_layer(self) -> Summing:
        return Summing(10, decoder=True)

    def _encode(self, wav: Tensor, depth: int) -> Tokens:
        return self.tokens(Summing(10).step(wav, True), wav.shape[-1])

    def _decode(self, tokens: Tokens) -> Tensor:
        assert isinstance(tokens.codes, Tensor)
        return Summing(10, decoder=True).step(tokens.codes, True)


def noise(length: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.rand(batch, 1, length, generator=generator) * 2 - 1


def same_tokens(one: Tokens, other: Tokens) -> bool:
    """Compare all there is in two tokens."""
    same = all(map(torch.equal, one.streams, other.streams))
    return same and replace(one, codes=other.codes) == other


def test_fakes_keep_the_protocols() -> None:
    limited, endless = Limited(5, 1, 1), Endless()
    assert isinstance(limited, Codec)
    assert isinstance(limited, LatentCodec)
    assert limited.is_chunkable
    assert isinstance(endless, Codec)
    assert endless.is_streaming


@settings(max_examples=150, deadline=None)
@given(
    length=st.integers(1, 300),
    frames=st.integers(1, 12),
    contexts=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    units=st.sampled_from([(1,), (1, 1, 1), (1, 2, 4)]),
    extra=st.integers(0, 2),
)
def test_chunks_give_what_the_whole_gives(
    length: int, frames: int, contexts: tuple[int, int], units: tuple[int, ...], extra: int
) -> None:
    codec = Limited(8, *contexts, units)
    codec.extra = min(extra, contexts[0], contexts[1])  # beyond the audio, as a centred frame is
    wav, seconds = noise(length, batch=2), frames * 8 / RATE
    whole = codec.encode(wav)
    assert same_tokens(chunks.encode(codec, wav, seconds=seconds), whole)
    assert torch.equal(chunks.decode(codec, whole, seconds=seconds), codec.decode(whole))
    shallow = whole.prefix(1)
    assert same_tokens(
        chunks.encode(codec, wav, seconds=seconds, num_codebooks=1), codec.encode(wav, 1)
    )
    assert torch.equal(chunks.decode(codec, shallow, seconds=seconds), codec.decode(shallow))
    z = codec.encode_latents(wav)
    assert torch.equal(chunks.encode_latents(codec, wav, seconds=seconds), z)
    back = chunks.decode_latents(codec, z, length, seconds=seconds)
    assert torch.equal(back, codec.decode_latents(z, length))


@pytest.mark.parametrize("units", [(1,), (1, 2, 4)])
def test_a_context_that_is_one_too_small_shows(units: tuple[int, ...]) -> None:
    codec = Limited(8, 3, 3, units)
    wav = noise(400)
    whole = codec.encode(wav)
    codec.encode_context = codec.decode_context = 2
    assert not same_tokens(chunks.encode(codec, wav, seconds=0.1), whole)
    assert not torch.equal(chunks.decode(codec, whole, seconds=0.1), codec.decode(whole))
    z = codec.encode_latents(wav)
    assert not torch.equal(chunks.encode_latents(codec, wav, seconds=0.1), z)
    back = chunks.decode_latents(codec, z, 400, seconds=0.1)
    assert not torch.equal(back, codec.decode_latents(z, 400))


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 300), milliseconds=st.integers(1, 100))
def test_streams_give_what_the_whole_gives(length: int, milliseconds: int) -> None:
    codec, wav, seconds = Endless(), noise(length, batch=2), milliseconds / 1000
    whole = codec.encode(wav)
    assert same_tokens(chunks.encode(codec, wav, seconds=seconds), whole)
    assert torch.equal(chunks.decode(codec, whole, seconds=seconds), codec.decode(whole))


def test_no_piece_is_longer_than_a_chunk_with_its_contexts() -> None:
    codec = Limited(8, 3, 2)
    chunks.encode(codec, noise(5000), seconds=0.2)
    assert codec.longest == (25 + 2 * 3) * 8
    codec.longest = 0
    chunks.encode(codec, noise(200), seconds=0.2)
    assert codec.longest == 200


def test_a_codec_that_is_neither_is_given_the_whole() -> None:
    codec, wav = Limited(8, 100, 100), noise(400)
    codec.encode_context = None
    assert not codec.is_chunkable
    assert not codec.is_streaming
    tokens = chunks.encode(codec, wav, seconds=0.1)
    assert codec.longest == 400
    assert torch.equal(chunks.decode(codec, tokens, seconds=0.1), codec.decode(tokens))
    z = chunks.encode_latents(codec, wav, seconds=0.1)
    back = chunks.decode_latents(codec, z, 400, seconds=0.1)
    assert torch.equal(back, codec.decode_latents(z, 400))


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_chunks_of_no_length_are_refused(seconds: float) -> None:
    codec = Limited(8, 1, 1)
    tokens = codec.encode(noise(100))
    with pytest.raises(ValueError, match="positive and finite"):
        chunks.encode(codec, noise(100), seconds=seconds)
    with pytest.raises(ValueError, match="positive and finite"):
        chunks.decode(codec, tokens, seconds=seconds)
    with pytest.raises(ValueError, match="positive and finite"):
        chunks.encode_latents(codec, noise(100), seconds=seconds)
    with pytest.raises(ValueError, match="positive and finite"):
        chunks.decode_latents(codec, torch.zeros(1, 1, 10), 80, seconds=seconds)


def test_bad_audio_in_a_late_chunk_of_a_stream_is_refused() -> None:
    wav = noise(400)
    wav[..., 333] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        chunks.encode(Endless(), wav, seconds=0.1)
    with pytest.raises(ValueError, match=r"\[B, 1, T\]"):
        chunks.encode(Endless(), noise(400).expand(1, 2, -1), seconds=0.1)


def test_streams_refuse_foreign_tokens() -> None:
    tokens = Endless().encode(noise(400))
    for foreign in (
        replace(tokens, sample_rate=999),
        replace(tokens, frame_rates=(50.0,)),
        replace(tokens, codebook_sizes=(2000,)),
    ):
        with pytest.raises(ValueError, match="are not of endless: 1000 Hz"):
            chunks.decode(Endless(), foreign, seconds=0.1)


def test_too_few_codes_are_refused() -> None:
    tokens = replace(Endless().encode(noise(400)), num_samples=500)
    with pytest.raises(ValueError, match="decode to 400 samples, 500 were encoded"):
        chunks.decode(Endless(), tokens, seconds=0.1)
    limited = Limited(8, 1, 1)
    tokens = replace(limited.encode(noise(400)), num_samples=500)
    with pytest.raises(ValueError, match="decode to 400 samples, 500 were encoded"):
        chunks.decode(limited, tokens, seconds=0.1)


def test_a_side_of_the_tokens_is_refused() -> None:
    class Scaled(Limited):
        def encode(self, wav: Any, num_codebooks: int | None = None, **_: Any) -> Tokens:
            tokens = super().encode(wav, num_codebooks)
            return replace(tokens, side={"scale": wav.abs().amax(-1)})

    codec = Scaled(8, 1, 1)
    tokens = codec.encode(noise(400))
    with pytest.raises(ValueError, match="tokens with scale beside the codes"):
        chunks.encode(codec, noise(400), seconds=0.1)
    with pytest.raises(ValueError, match="tokens with scale beside the codes"):
        chunks.decode(codec, tokens, seconds=0.1)


def test_frame_rates_that_do_not_fit_the_hop_are_refused() -> None:
    codec = Limited(8, 1, 1)
    codec.frame_rates = (RATE / 12,)
    with pytest.raises(ValueError, match=r"8 samples at 1000 Hz hold 0\.666667 codes"):
        chunks.encode(codec, noise(400), seconds=0.1)


class _Wide(LatentCodec):
    """A codec whose network has a hundred channels of the audio's rate."""

    name, sample_rate, is_causal = "wide", 8000, False
    frame_rates, codebook_sizes = (100.0,), (256,)
    dim, frame_rate = 1, 100.0
    hop_length, encode_context, decode_context = 80, 2, 2

    def _analyse(self, wav: Tensor) -> Tensor:
        return wav.repeat(1, 100, 1)[:, :1, ::80].clone()

    def _synthesise(self, z: Tensor) -> Tensor:
        return torch.ones(1, 100, 80 * z.shape[-1])[:, :1].clone()

    def _quantize(self, z: Tensor, depth: int) -> Tensor:
        return torch.zeros(z.shape, dtype=torch.long)

    def _dequantize(self, codes: Tensor) -> Tensor:
        return codes.float()


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own class
    """Count the bytes of all tensors that are alive: what a heap makes of them is left out.

    Attributes:
        peak: most bytes at a time, of tensors that came about within.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.peak = self._alive = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._known:  # a view, or the result of an operation in place
            return
        self._known.add(storage._cdata)
        weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())
        self._alive += storage.nbytes()
        self.peak = max(self.peak, self._alive)

    def _drop(self, name: int, size: int) -> None:
        self._known.remove(name)
        self._alive -= size


def _tokens_and_back(wav: Tensor) -> Tensor:
    return chunks.decode(_Wide(), chunks.encode(_Wide(), wav))


def _latents_and_back(wav: Tensor) -> Tensor:
    return chunks.decode_latents(_Wide(), chunks.encode_latents(_Wide(), wav), wav.shape[-1])


@pytest.mark.parametrize("there_and_back", [_tokens_and_back, _latents_and_back])
def test_memory_grows_with_nothing_but_the_audio(
    there_and_back: Callable[[Tensor], Tensor],
) -> None:
    peaks = {}
    for minutes in (1, 5):
        with _Counting() as counted:
            wav = torch.rand(1, 1, minutes * 60 * 8000)
            back = there_and_back(wav)
        assert back.shape == wav.shape
        peaks[minutes] = counted.peak
    chunk, minute = 100 * 10 * 8000 * 4, 60 * 8000 * 4  # bytes: what the network needs, the audio
    assert peaks[1] > chunk  # the network was seen
    # Audio in and out, and codes or latents: in all no more than thrice the audio.
    assert peaks[5] - peaks[1] < 3 * 4 * minute
    assert peaks[5] < 1.1 * chunk + 3 * 5 * minute
