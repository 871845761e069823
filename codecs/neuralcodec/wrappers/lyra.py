"""Lyra v2: the SoundStream that Google published for speech (Zeghidour et al. 2021).

Three TFLite files of google/lyra v1.3.2 (Apache-2.0): encoder, quantizer and decoder, run by
`ai-edge-litert`. 16 kHz, 50 latents of 64 numbers a second, 46 codebooks of 16 entries. Google uses
the first 16, 30 or 46 of them (3.2, 6 or 9.2 kbit/s); any number works. The quantizer is our own
with Lyra's codebooks, so that codes can be looked for with a beam.

The networks are causal and keep the frames before in variables. `reset_all_variables` of TFLite
doesn't touch variables of this kind: what it ran on before would be heard for half a second of the
next clip. So every clip, and every stream, has an interpreter of its own, which takes 2 ms to make.

Weights are 8-bit in part: another runtime gives other latents, hence codes. On stderr the runtime
says once which delegate it uses; it has no switch for that.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from torch import Tensor

from neuralcodec import weights as checkpoints
from neuralcodec.core.audio import check_wav, fit_length
from neuralcodec.core.checks import (
    check_depth,
    check_frames,
    check_latents,
    check_piece,
    codes_of,
)
from neuralcodec.core.tokens import Tokens
from neuralcodec.quantize import ResidualVectorQuantizer

_SAMPLE_RATE, _HOP, _DIM = 16_000, 320, 64
_LEVELS, _ENTRIES = 46, 16
_FRAME_RATE = _SAMPLE_RATE / _HOP


class _Network:
    """A network that turns a row of numbers into another and remembers the rows before.

    Args:
        model: content of the TFLite file.
        shape: how long the rows are that go in and come out.
        threads: that it may use.

    Raises:
        ValueError: if it is no TFLite file or one of other rows.
    """

    def __init__(self, model: bytes, shape: tuple[int, int], threads: int) -> None:
        self._interpreter = Interpreter(model_content=model, num_threads=threads)
        self._interpreter.allocate_tensors()
        (self._source,) = self._interpreter.get_input_details()
        (self._target,) = self._interpreter.get_output_details()
        found = tuple(int(np.prod(each["shape"])) for each in (self._source, self._target))
        if found != shape:
            raise ValueError(f"it turns rows of {found[0]} into rows of {found[1]}, not of {shape}")

    def __call__(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Turn rows `[T, in]` into `[T, out]`."""
        source, target = self._source["index"], self._target["index"]
        shaped = rows.reshape(len(rows), *self._source["shape"])
        out = np.empty((len(rows), int(np.prod(self._target["shape"]))), np.float32)
        for row, place in zip(shaped, out, strict=True):
            self._interpreter.set_tensor(source, row)
            self._interpreter.invoke()
            place[:] = self._interpreter.get_tensor(target).reshape(-1)
        return out


def _read_codebooks(decode: _Network) -> Tensor:
    """Read the codebooks `[46, 16, 64]`: what the quantizer decodes each code to, all alone."""
    unused = -1
    codes = np.full((_LEVELS, _ENTRIES, _LEVELS), unused, np.int32)
    for level in range(_LEVELS):
        codes[level, :, level] = range(_ENTRIES)
    entries = decode(codes.reshape(-1, _LEVELS))
    return torch.from_numpy(entries).reshape(_LEVELS, _ENTRIES, _DIM)


def _frames(wav: Tensor) -> Tensor:
    """Cut `[..., T]` into frames `[..., ceil(T / 320), 320]`, the last filled up with zeros."""
    count = -(-wav.shape[-1] // _HOP)
    return fit_length(wav, count * _HOP).reshape(*wav.shape[:-1], count, _HOP)


class _Batch:
    """A network for each clip of a batch, for clips that go on from call to call."""

    def __init__(self, make: Callable[[], _Network]) -> None:
        self._make = make
        self._networks: list[_Network] = []

    def __call__(self, rows: Tensor) -> Tensor:
        """Turn `[B, T, in]` into `[B, T, out]`; every call must bring the same B clips."""
        if not self._networks:
            self._networks = [self._make() for _ in range(len(rows))]
        if len(rows) != len(self._networks):
            raise ValueError(f"the stream began with {len(self._networks)} clips, got {len(rows)}")
        arrays = rows.detach().cpu().float().numpy()
        turned = [run(each) for run, each in zip(self._networks, arrays, strict=True)]
        return torch.from_numpy(np.stack(turned))


def _check_open(ended: bool) -> None:
    if ended:
        raise ValueError("the stream has ended: begin another one")


class LyraEncodeStream:
    """An `EncodeStream`; a frame's codes come as soon as its 320 samples are there."""

    def __init__(self, encoder: _Batch, quantize: Callable[[Tensor], Tensor]) -> None:
        self._encoder, self._quantize = encoder, quantize
        self._rest: Tensor | None = None  # [B, 1, T], less than a frame
        self._ended = False

    def push(self, wav: Tensor) -> Tensor:
        """Take the next `wav [B, 1, T]`, any T; give the codes `[B, K, frames]` it completes."""
        _check_open(self._ended)
        check_piece(wav, channels=1)
        if self._rest is not None:
            if len(wav) != len(self._rest):
                raise ValueError(f"the stream began with {len(self._rest)} clips, got {len(wav)}")
            wav = torch.cat([self._rest, wav], dim=-1)
        whole = wav.shape[-1] // _HOP * _HOP
        self._rest = wav[..., whole:].clone()  # the caller may fill the same memory again
        return self._codes(wav[..., :whole])

    def finish(self) -> Tensor:
        """End the audio; give the codes `[B, K, 0 or 1]` of a frame that isn't full."""
        _check_open(self._ended)
        self._ended = True
        return self._codes(torch.zeros(1, 1, 0) if self._rest is None else self._rest)

    def _codes(self, wav: Tensor) -> Tensor:
        return self._quantize(self._encoder(_frames(wav[:, 0])).mT)


class LyraDecodeStream:
    """A `DecodeStream`; every frame of codes gives its 320 samples at once."""

    def __init__(self, decoder: _Batch, dequantize: Callable[[Tensor], Tensor]) -> None:
        self._decoder, self._dequantize = decoder, dequantize
        self._clips = 1
        self._ended = False

    def push(self, codes: Tensor) -> Tensor:
        """Take the next `codes [B, K, frames]`; give wav `[B, 1, 320 * frames]`."""
        _check_open(self._ended)
        wav = self._decoder(self._dequantize(codes).mT).flatten(1)[:, None]
        self._clips = len(wav)
        return wav

    def finish(self) -> Tensor:
        """End the codes; nothing is left to give: `[B, 1, 0]`."""
        _check_open(self._ended)
        self._ended = True
        return torch.zeros(self._clips, 1, 0)


class Lyra:
    """Lyra v2, a `Codec`, a `LatentCodec`, `Streaming` and `Chunkable`.

    Decoded audio is in time with the input: on speech their correlation peaks at a shift of 0.
    Everything is computed, and given, on the CPU.

    Args:
        weights: folder that holds soundstream_encoder.tflite, quantizer.tflite and lyragan.tflite;
            None: where `neuralcodec.weights` finds them.
        beam_width: codes kept at each level of the search; 1 is the greedy search, whose codes are
            nested and, but for near ties, those of Lyra's own quantizer. With a beam, encode to
            the number of codebooks that will be decoded: see `ResidualVectorQuantizer.encode`.
        num_threads: that the runtime may use, at least 1.

    Attributes:
        rvq: Lyra's quantizer.
        weights_digest: hex digits of what is in the three files.
        hop_length: samples of a frame.
        encode_context: frames before a frame that its latent depends on, 24.7 by the sizes of all
            that the network remembers; none after it.
        decode_context: likewise, of its audio.
        delay_samples: taken off decoded audio: none.

    Raises:
        ValueError: if a setting is out of range, `weights` is "random", or a file is not Lyra's.
        WeightsMissing: if there are no weights.
    """

    name = "lyra_v2"
    sample_rate = _SAMPLE_RATE
    channels = 1
    num_codebooks = _LEVELS
    frame_rates: tuple[float, ...] = (_FRAME_RATE,) * _LEVELS
    codebook_sizes: tuple[int, ...] = (_ENTRIES,) * _LEVELS
    is_causal = True
    dim = _DIM
    frame_rate = _FRAME_RATE
    hop_length = _HOP
    encode_context = decode_context = 25
    delay_samples = 0

    def __init__(
        self, weights: str | Path | None = None, beam_width: int = 1, num_threads: int = 1
    ) -> None:
        if weights == "random":
            raise ValueError(
                "weights must be a folder of Lyra's files, not 'random': the networks exist only "
                "as these files"
            )
        for setting, value in (("beam_width", beam_width), ("num_threads", num_threads)):
            if value < 1:
                raise ValueError(f"{setting} must be at least 1, got {value}")
        self.beam_width, self._threads = beam_width, num_threads
        self._digest = hashlib.sha256()
        self._encoder = self._load("lyra_encoder", weights, (_HOP, _DIM))
        self._decoder = self._load("lyra_decoder", weights, (_DIM, _HOP))
        quantizer = self._load("lyra_quantizer", weights, (_LEVELS, _DIM))
        self.rvq = ResidualVectorQuantizer.from_codebooks(
            _read_codebooks(quantizer()), frame_rate=_FRAME_RATE
        )
        self.weights_digest = self._digest.hexdigest()

    def _load(
        self, name: str, folder: str | Path | None, shape: tuple[int, int]
    ) -> Callable[[], _Network]:
        """Read a file and give what makes networks of it, after making one to see that it works."""
        path = checkpoints.locate(name, folder)
        content = path.read_bytes()
        self._digest.update(content)
        make = partial(_Network, content, shape, self._threads)
        try:
            make()
        except ValueError as error:
            raise ValueError(f"{path} is not Lyra's file for {name}: {error}") from error
        return make

    def encode_latents(self, wav: Tensor) -> Tensor:
        """Turn `wav [B, 1, T]` into latents `[B, 64, ceil(T / 320)]` float32."""
        check_wav(wav, channels=1)
        return _Batch(self._encoder)(_frames(wav[:, 0])).mT.contiguous()

    def decode_latents(self, z: Tensor, length: int | None = None) -> Tensor:
        """Turn latents `[B, 64, frames]` into wav `[B, 1, length]` float32."""
        check_latents(z, _DIM)
        wav = _Batch(self._decoder)(z.mT).flatten(1)[:, None]
        return wav if length is None else fit_length(wav, length)

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        """Encode `wav [B, 1, T]` with the first `num_codebooks` codebooks, 1..46; default all."""
        quantize = self._quantizer(num_codebooks)
        return Tokens.uniform(
            quantize(self.encode_latents(wav)),
            frame_rate=_FRAME_RATE,
            codebook_size=_ENTRIES,
            sample_rate=_SAMPLE_RATE,
            num_samples=wav.shape[-1],
        )

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode the codes of the first codebooks, any number, to wav `[B, 1, num_samples]`.

        Raises:
            ValueError: if the tokens are of another codec, or too few or many for their length.
        """
        codes, length = codes_of(self, tokens).cpu(), tokens.num_samples
        check_frames(codes.shape[-1], -(-length // _HOP), length)
        return self.decode_latents(self.rvq.decode(codes), length)

    def stream(self, num_codebooks: int | None = None) -> LyraEncodeStream:
        """Begin to encode with the first `num_codebooks` codebooks, 1..46; default all."""
        return LyraEncodeStream(_Batch(self._encoder), self._quantizer(num_codebooks))

    def decode_stream(self) -> LyraDecodeStream:
        """Begin to decode codes of any one number of codebooks."""
        return LyraDecodeStream(_Batch(self._decoder), self.rvq.decode)

    def _quantizer(self, num_codebooks: int | None) -> Callable[[Tensor], Tensor]:
        """Give what turns latents into codes of so many levels."""
        depth = check_depth(num_codebooks, range(1, _LEVELS + 1))
        return partial(self.rvq.encode, num_codebooks=depth, beam_width=self.beam_width)
