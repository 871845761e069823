"""Lyra v2: the SoundStream model that Google published for speech (Zeghidour et al. 2021).

Encoder, quantizer and decoder are three TFLite files of google/lyra v1.3.2 (Apache-2.0), run by
`ai-edge-litert`. Audio has 16 kHz, latents have 64 dimensions at 50 Hz, and there are 46 codebooks
of 16 entries. Google uses the first 16, 30 or 46 (3.2, 6 or 9.2 kbit/s); any number works. The
quantizer is our own with Lyra's codebooks, so that a beam search is possible.

The networks are causal and keep earlier frames in variables that `reset_all_variables` of TFLite
does not reset: the previous clip would be audible for half a second of the next one. So every clip,
and every stream, has an interpreter of its own, which takes 2 ms to create.

Some weights have 8 bits, so that another runtime gives other latents and hence other codes. The
runtime writes once to stderr which delegate it uses, which cannot be turned off.
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
from neuralcodec.core.audio import fit_length
from neuralcodec.core.inputs import check_beam, check_frames
from neuralcodec.core.latents import LatentCodec
from neuralcodec.core.streaming import Layer
from neuralcodec.quantize import ResidualVectorQuantizer

_SAMPLE_RATE, _HOP, _DIM = 16_000, 320, 64
_LEVELS, _ENTRIES = 46, 16
_FRAME_RATE = _SAMPLE_RATE / _HOP


class _Network:
    """A causal network that maps one row per frame to another and keeps the state of earlier rows.

    Args:
        model: content of the TFLite file.
        shape: lengths of an input row and of an output row.
        threads: number of threads that it may use.

    Raises:
        ValueError: if it is not a TFLite file, or its rows have other lengths.
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
        """Return the output rows `[T, out]` of input rows `[T, in]`."""
        source, target = self._source["index"], self._target["index"]
        shaped = rows.reshape(len(rows), *self._source["shape"])
        out = np.empty((len(rows), int(np.prod(self._target["shape"]))), np.float32)
        for row, place in zip(shaped, out, strict=True):
            self._interpreter.set_tensor(source, row)
            self._interpreter.invoke()
            place[:] = self._interpreter.get_tensor(target).reshape(-1)
        return out


def _read_codebooks(decode: _Network) -> Tensor:
    """Return the codebooks `[46, 16, 64]`: to what the quantizer decodes each code alone."""
    unused = -1
    codes = np.full((_LEVELS, _ENTRIES, _LEVELS), unused, np.int32)
    for level in range(_LEVELS):
        codes[level, :, level] = range(_ENTRIES)
    entries = decode(codes.reshape(-1, _LEVELS))
    return torch.from_numpy(entries).reshape(_LEVELS, _ENTRIES, _DIM)


def _frames(wav: Tensor) -> Tensor:
    """Return the frames `[..., ceil(T / 320), 320]` of `wav [..., T]`, the last padded by zeros."""
    count = -(-wav.shape[-1] // _HOP)
    return fit_length(wav, count * _HOP).reshape(*wav.shape[:-1], count, _HOP)


def _read(name: str, folder: str | Path | None) -> bytes:
    return checkpoints.locate(name, folder).read_bytes()


class _Batch:
    """One network per clip of a batch, whose clips may continue over several calls."""

    def __init__(self, make: Callable[[], _Network]) -> None:
        self._make = make
        self._networks: list[_Network] = []

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the output `[B, T, out]` of `[B, T, in]`; B must be the same in every call."""
        if not self._networks:
            self._networks = [self._make() for _ in range(len(rows))]
        arrays = rows.detach().float().numpy()
        turned = [run(each) for run, each in zip(self._networks, arrays, strict=True)]
        return torch.from_numpy(np.stack(turned))


class _EncoderLayer:
    """The encoder on a signal that comes in pieces: a frame is encoded once it is complete."""

    def __init__(self, encoder: _Batch) -> None:
        self._encoder = encoder
        self._rest: Tensor | None = None  # [B, 1, T], less than a frame

    def step(self, x: Tensor, last: bool) -> Tensor:
        """See `streaming.Layer`; the last frame is padded by zeros."""
        if self._rest is not None:
            x = torch.cat([self._rest, x], dim=-1)
        whole = x.shape[-1] if last else x.shape[-1] // _HOP * _HOP
        self._rest = x[..., whole:].clone()  # the caller may reuse the memory
        return self._encoder(_frames(x[:, 0, :whole])).mT


class _DecoderLayer:
    """The decoder on latents that come in pieces: each frame gives its 320 samples at once."""

    def __init__(self, decoder: _Batch) -> None:
        self._decoder = decoder

    def step(self, x: Tensor, last: bool) -> Tensor:
        """See `streaming.Layer`."""
        return self._decoder(x.mT).flatten(1)[:, None]


class Lyra(LatentCodec):
    """Lyra v2: 16 kHz, 50 frames/s, 1..46 codebooks of 16 entries, on the CPU.

    Decoded audio is aligned with the input: on speech their correlation peaks at a lag of 0.
    The contexts are 25 frames: according to the sizes of the networks' state variables, a latent
    depends on 24.7 frames before it and none after it, and so does the audio of a frame.

    Args:
        weights: folder that holds soundstream_encoder.tflite, quantizer.tflite and lyragan.tflite;
            None: where `neuralcodec.weights` finds them.
        beam_width: hypotheses kept at each level of the search; 1 is greedy search, whose codes are
            nested and, except for near ties, those of Lyra's own quantizer.
        num_threads: threads that the runtime may use, at least 1.

    Attributes:
        rvq: quantizer with Lyra's codebooks.

    Raises:
        ValueError: if a setting is out of range, `weights` is "random", or a file is not Lyra's.
        WeightsMissing: if the weights cannot be found or downloaded.
    """

    name = "lyra_v2"
    sample_rate = _SAMPLE_RATE
    frame_rates = (_FRAME_RATE,) * _LEVELS
    codebook_sizes = (_ENTRIES,) * _LEVELS
    is_causal = True
    is_streaming = True
    dim = _DIM
    frame_rate = _FRAME_RATE
    hop_length = _HOP
    encode_context = 25
    decode_context = 25
    device_types = ("cpu",)

    def __init__(
        self, weights: str | Path | None = None, beam_width: int = 1, num_threads: int = 1
    ) -> None:
        super().__init__()
        if weights == "random":
            raise ValueError(
                "weights must be a folder of Lyra's files, not 'random': the networks exist only "
                "as these files"
            )
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        self.beam_width, self._threads = check_beam(beam_width), num_threads
        shapes = {
            "lyra_encoder": (_HOP, _DIM),
            "lyra_decoder": (_DIM, _HOP),
            "lyra_quantizer": (_LEVELS, _DIM),
        }
        contents = {name: _read(name, weights) for name in shapes}
        self._makers = {
            name: self._maker(name, weights, contents[name], shape)
            for name, shape in shapes.items()
        }
        self.digest = hashlib.sha256(b"".join(contents.values())).hexdigest()
        self.rvq = ResidualVectorQuantizer.from_codebooks(
            _read_codebooks(self._makers["lyra_quantizer"]()), frame_rate=_FRAME_RATE
        )

    def _maker(
        self, name: str, folder: str | Path | None, content: bytes, shape: tuple[int, int]
    ) -> Callable[[], _Network]:
        """Return a function that creates networks of a file, after creating one as a check."""
        make = partial(_Network, content, shape, self._threads)
        try:
            make()
        except ValueError as error:
            path = checkpoints.locate(name, folder)
            raise ValueError(f"{path} is not Lyra's file for {name}: {error}") from error
        return make

    def _analyse(self, wav: Tensor) -> Tensor:
        return _Batch(self._makers["lyra_encoder"])(_frames(wav[:, 0])).mT.contiguous()

    def _synthesise(self, z: Tensor) -> Tensor:
        return _Batch(self._makers["lyra_decoder"])(z.mT).flatten(1)[:, None]

    def _check_length(self, frames: int, num_samples: int) -> None:
        check_frames(frames, -(-num_samples // _HOP), num_samples)

    def _analysis_layer(self) -> Layer:
        return _EncoderLayer(_Batch(self._makers["lyra_encoder"]))

    def _synthesis_layer(self) -> Layer:
        return _DecoderLayer(_Batch(self._makers["lyra_decoder"]))
