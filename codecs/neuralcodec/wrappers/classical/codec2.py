"""Codec 2: speech at 700-3200 bit/s (Rowe 2011), by the programs of Debian's package `codec2`.

Codec 2 is used in digital radio, at the rates of the coarsest neural codecs. It is a vocoder that
codes pitch, spectral envelope and voicing, not the waveform, so metrics that compare waveforms are
meaningless for it.

The programs run once per clip and communicate through pipes. A frame has a fixed number of bits,
and its bytes are its tokens, byte k being the token of codebook k. The bits with which `c2enc`
pads the last byte of a frame are left out: where it has four bits, its codebook has 16 entries, so
that the bitrate is that of the mode. The bytes do not refine each other: all are needed to decode.
"""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralcodec.core.audio import fit_length
from neuralcodec.core.codec import Codec
from neuralcodec.core.inputs import check_frames
from neuralcodec.core.tokens import Tokens
from neuralcodec.wrappers.classical.pcm import check_full_scale

_SAMPLE_RATE = 8000
_ENCODER, _DECODER = "c2enc", "c2dec"
_FULL_SCALE = 32768  # the programs read and write 16-bit samples


@dataclass(frozen=True)
class _Frames:
    """The frames of a mode.

    Attributes:
        length: samples per frame.
        bits: bits per frame.
        delay: samples by which decoded audio is late. A vocoder does not preserve phase, so this
            was measured on the envelope of harmonics whose level rises and falls slowly: 160.0
            samples in 3200, 1600 and 1300, 160-167 in 2400, 1400 and 1200, which smooth the level
            in time, and 240.0 in 700C.
    """

    length: int
    bits: int
    delay: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each codebook: 256 per whole byte, and fewer for the remaining bits."""
        rest = self.bits % 8
        return (256,) * (self.bits // 8) + ((2**rest,) if rest else ())


_MODES: Mapping[str, _Frames] = {
    "3200": _Frames(160, 64, 160),
    "2400": _Frames(160, 48, 160),
    "1600": _Frames(320, 64, 160),
    "1400": _Frames(320, 56, 160),
    "1300": _Frames(320, 52, 160),
    "1200": _Frames(320, 48, 160),
    "700C": _Frames(320, 28, 240),
}


def _run(program: str, mode: str, data: bytes) -> bytes:
    done = subprocess.run([program, mode, "-", "-"], input=data, capture_output=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise OSError(f"{program} {mode} failed with status {done.returncode}: {said}")
    return done.stdout


def _check_programs(mode: str) -> None:
    """Check that the programs are installed and have the mode.

    Run without arguments, they list their modes.
    """
    for program in (_ENCODER, _DECODER):
        if shutil.which(program) is None:
            raise FileNotFoundError(
                f"codec 'codec2' needs the program {program}: apt-get install codec2"
            )
        said = subprocess.run([program], capture_output=True, check=False)
        words = (said.stdout + said.stderr).decode(errors="replace").replace("|", " ").split()
        if mode not in words:
            there = [known for known in _MODES if known in words]
            raise ValueError(f"this {program} has no mode {mode!r}, only {', '.join(there)}")


class Codec2(Codec):
    """Codec 2 at 8 kHz; one codebook per byte of a frame, and all of them are needed to decode.

    Zeros are added at the end of a clip, to compensate for the delay and to fill the last frame.

    Args:
        mode: "3200", "2400", "1600", "1400", "1300", "1200" (bit/s, also as a number) or "700C".

    Raises:
        ValueError: if there is no such mode, or the installed programs lack it.
        FileNotFoundError: if the programs are not installed; the message tells how to do that.
    """

    name = "codec2"
    sample_rate = _SAMPLE_RATE
    is_causal = True
    device_types = ("cpu",)

    def __init__(self, mode: str | int = "3200") -> None:
        super().__init__()
        mode = str(mode)  # on a command line "3200" and 3200 are the same
        if mode not in _MODES:
            raise ValueError(f"mode of codec2 must be one of {', '.join(_MODES)}, got {mode!r}")
        _check_programs(mode)
        self.mode, self._frames = mode, _MODES[mode]
        self.codebook_sizes = self._frames.sizes
        self.frame_rates = (_SAMPLE_RATE / self._frames.length,) * len(self.codebook_sizes)
        self.hop_length = self._frames.length
        self.delay_samples = self._frames.delay

    @property
    def depths(self) -> tuple[int]:
        """The number of all codebooks: fewer bytes of a frame cannot be decoded."""
        return (self.num_codebooks,)

    def _encode(self, wav: Tensor, depth: int) -> Tokens:
        check_full_scale(wav)
        padded = fit_length(wav[:, 0], self._count(wav.shape[-1]) * self._frames.length)
        steps = (padded.double() * _FULL_SCALE).round().clamp(max=_FULL_SCALE - 1)
        frames = [
            np.frombuffer(_run(_ENCODER, self.mode, clip.tobytes()), np.uint8)
            for clip in steps.numpy().astype("<i2")
        ]
        codes = np.stack(frames).reshape(len(wav), -1, self.num_codebooks).astype(np.int64)
        codes[..., -1] >>= self._spare
        return self.tokens(torch.from_numpy(codes).mT.contiguous(), wav.shape[-1])

    def _decode(self, tokens: Tokens) -> Tensor:
        codes = torch.stack(tokens.streams, dim=2).numpy()  # [B, frames, K]
        check_frames(codes.shape[1], self._count(tokens.num_samples), tokens.num_samples)
        codes[..., -1] <<= self._spare
        clips = [
            np.frombuffer(_run(_DECODER, self.mode, clip.tobytes()), "<i2")
            for clip in codes.astype(np.uint8)
        ]
        wav = torch.from_numpy(np.stack(clips).astype(np.float32) / _FULL_SCALE)[:, None]
        return fit_length(wav[..., self.delay_samples :], tokens.num_samples)

    @property
    def _spare(self) -> int:
        """Number of bits with which `c2enc` pads the last byte of a frame."""
        return -self._frames.bits % 8

    def _count(self, samples: int) -> int:
        """Return the number of frames of a clip, the delay included."""
        return -(-(samples + self.delay_samples) // self._frames.length)
