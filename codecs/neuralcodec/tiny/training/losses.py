"""How far an estimate is from its reference, in ways that have a useful gradient.

All take `[B, T]` at 16 kHz and give a scalar, 0 for equal signals or (noise) low without bound.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from neuralcodec.core import torchaudio_guard
from neuralcodec.tiny.model import SAMPLE_RATE

Loss = Callable[[Tensor, Tensor], Tensor]

_EXPONENT = 0.3  # of compressed spectra
_MEL_SCALES = ((256, 32), (512, 64), (1024, 80))  # samples, bands
_MEL_FLOOR = 1e-4  # of a band's magnitude
_COMPLEX_WINDOW = 512  # samples
_NOISE_FLOOR = 1e-6  # of power, so that silence counts little

_LOUDNESS_WINDOW = 512  # samples: 32 ms, as in P.862.2
_BARK_BANDS = 42
_SOUND_PRESSURE = 79.0  # dB SPL that a talker is heard at
_QUIETEST = 0.005  # RMS of a talker; what is below is not made louder
_ZWICKER = 0.23  # exponent of loudness
_LOUDNESS_SCALE = 0.1866  # sones, as P.862's Sl
_DEADZONE = 0.25  # of the smaller loudness: differences that are masked
_ASYMMETRY = 1.2  # exponent
_SYMMETRIC, _ASYMMETRIC = 0.1, 0.0309  # weights of P.862

_ENVELOPE_WINDOW = 512  # samples
_THIRD_OCTAVES = 15  # from 150 Hz up
_LOWEST_OCTAVE = 150.0  # Hz, centre
_ENVELOPE_FRAMES = 24  # 384 ms
ENVELOPE_SECONDS = (_ENVELOPE_FRAMES + 1) * _ENVELOPE_WINDOW // 2 / SAMPLE_RATE
"""The shortest signals that `envelope_loss` takes."""
_CLIPPING = 10 ** (15 / 20)  # how far an estimate's envelope counts beyond the reference
_HEARD = 1e-4  # of the power of the loudest stretch: what is below counts as silence
_FLAT = 1.0  # variance of an envelope, times 24, that a band of a talker has 55 dB below the whole


@lru_cache(maxsize=32)
def _hann(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)


class _Spectra(Function):
    """The short-time Fourier transform, with a gradient that is one real inverse transform.

    The gradient of `torch.fft.rfft` is a complex one of full length, the dearest part of a step.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, wav: Tensor, size: int) -> Tensor:
        hop = size // 2
        ctx.size, ctx.length = size, wav.shape[-1]  # type: ignore[attr-defined]
        blocks = wav[:, : wav.shape[-1] // hop * hop].reshape(len(wav), -1, hop)
        frames = torch.cat([blocks[:, :-1], blocks[:, 1:]], dim=-1)
        spectra: Tensor = torch.fft.rfft(frames * _hann(size, wav.device))
        return spectra

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        size, length = ctx.size, ctx.length  # type: ignore[attr-defined]
        hop = size // 2
        inner = gradient / 2  # each stands for its negative frequency too
        inner[..., 0], inner[..., -1] = gradient[..., 0], gradient[..., -1]
        frames = torch.fft.irfft(inner, n=size, norm="forward") * _hann(size, gradient.device)
        wav = frames.new_zeros(len(frames), length)
        blocks = wav[:, : (frames.shape[1] + 1) * hop].view(len(frames), -1, hop)
        blocks[:, :-1] += frames[..., :hop]
        blocks[:, 1:] += frames[..., hop:]
        return wav, None


def _spectra(wav: Tensor, size: int) -> Tensor:
    """Windowed spectra `[B, frames, bins]` complex, half a window apart, none beyond the signal."""
    spectra: Tensor = _Spectra.apply(wav, size)  # type: ignore[no-untyped-call]
    return spectra


def _magnitude(spectra: Tensor) -> Tensor:
    """Magnitudes with a gradient that is finite at zero."""
    return (spectra.real.square() + spectra.imag.square() + 1e-8).sqrt()


@lru_cache(maxsize=16)
def _mel_bands(size: int, bands: int, device: torch.device) -> Tensor:
    """Give the matrix `[bins, bands]` from magnitudes to mel bands."""
    functional = torchaudio_guard.load().functional
    matrix: Tensor = functional.melscale_fbanks(
        size // 2 + 1, 0.0, SAMPLE_RATE / 2, bands, SAMPLE_RATE, norm=None, mel_scale="slaney"
    )
    return matrix.to(device)


def mel_loss(reference: Tensor, estimate: Tensor) -> Tensor:
    """Mean difference of log-mel magnitudes, over windows of 16, 32 and 64 ms."""
    total = reference.new_zeros(())
    for size, bands in _MEL_SCALES:
        matrix = _mel_bands(size, bands, reference.device)
        scale = 2 / size  # a full-scale sine has magnitude 1/2 in any size
        logs = [
            ((_magnitude(_spectra(wav, size)) * scale) @ matrix + _MEL_FLOOR).log()
            for wav in (reference, estimate)
        ]
        total = total + (logs[0] - logs[1]).abs().mean()
    return total / len(_MEL_SCALES)


def _compressed(wav: Tensor) -> tuple[Tensor, Tensor]:
    """Give spectra with compressed magnitudes: these magnitudes, and the complex spectra."""
    spectra = _spectra(wav, _COMPLEX_WINDOW) / math.sqrt(_COMPLEX_WINDOW)
    magnitude = _magnitude(spectra)
    return magnitude.pow(_EXPONENT), spectra * magnitude.pow(_EXPONENT - 1)


def complex_loss(reference: Tensor, estimate: Tensor) -> Tensor:
    """Mean squared difference of compressed spectra, of their magnitudes and with the phase.

    Ephrat et al. 2018 (arXiv:1804.03619), with the exponent 0.3 and windows of 32 ms.
    """
    (magnitude, spectra), (other, others) = _compressed(reference), _compressed(estimate)
    difference = spectra - others
    phased = difference.real.square() + difference.imag.square()
    return (magnitude - other).square().mean() + phased.mean()


def noise_loss(reference: Tensor, estimate: Tensor) -> Tensor:
    """Mean logarithm of noise power over signal power, in 0.1 s: a level means 4.3 dB."""
    size = SAMPLE_RATE // 10
    powers = [
        wav.unfold(-1, size, size).square().mean(dim=-1) + _NOISE_FLOOR
        for wav in (reference - estimate, reference)
    ]
    return (powers[0] / powers[1] + 1e-3).log().mean()


@lru_cache(maxsize=4)
def _bark(device: torch.device) -> tuple[Tensor, Tensor]:
    """Give the matrix `[bins, bands]` from power to Bark bands, and their hearing thresholds."""
    frequency = torch.arange(1, _LOUDNESS_WINDOW // 2 + 1, dtype=torch.float64)
    frequency *= SAMPLE_RATE / _LOUDNESS_WINDOW
    bark = 6 * torch.asinh(frequency / 600)  # Schroeder's scale
    band = (bark / bark[-1] * _BARK_BANDS).long().clamp(max=_BARK_BANDS - 1)
    used = torch.unique(band)
    matrix = (band[:, None] == used).double()  # low bands narrower than a bin don't exist
    centre = (frequency[:, None] * matrix).sum(0) / matrix.sum(0) / 1000
    threshold = (  # dB SPL, Terhardt 1979
        3.64 * centre.pow(-0.8)
        - 6.5 * torch.exp(-0.6 * (centre - 3.3).square())
        + 1e-3 * centre.pow(4)
    )
    power = 10 ** (threshold.clamp(max=60) / 10)
    return matrix.float().to(device), power.float().to(device)


def _talker_level(wav: Tensor) -> Tensor:
    """RMS of signals `[B, 1]`, or of the quietest talker if they are quieter."""
    return wav.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=_QUIETEST)


def _bark_powers(wav: Tensor, gain: Tensor) -> Tensor:
    matrix, _ = _bark(wav.device)
    spectra = _spectra(wav * gain, _LOUDNESS_WINDOW)[..., 1:]
    return (spectra.real.square() + spectra.imag.square()) @ matrix


def _loudness(power: Tensor, threshold: Tensor) -> Tensor:
    """Zwicker's loudness of bands `[..., bands]`, sones a band."""
    scale = _LOUDNESS_SCALE * (threshold / 0.5).pow(_ZWICKER)
    return scale * ((0.5 + 0.5 * power / threshold).pow(_ZWICKER) - 1)


def loudness_loss(reference: Tensor, estimate: Tensor) -> Tensor:
    """Disturbance that a listener hears: differences of loudness that are not masked.

    The perceptual model of ITU-T P.862 (Rix et al. 2001), reduced to what has a gradient: Bark
    bands, Zwicker's loudness, a deadzone for masking, and a second term for what the estimate adds
    to the reference, which disturbs more than what it leaves out. There is no alignment in time and
    no equalization. It is made after a part of PESQ, so PESQ flatters what was trained with it.
    """
    rms = _talker_level(reference)
    window = _hann(_LOUDNESS_WINDOW, reference.device)
    gain = 10 ** (_SOUND_PRESSURE / 20) / (rms * window.square().sum().sqrt())
    gain = gain / math.sqrt(_LOUDNESS_WINDOW / 2)  # the power of a frame's bins adds up to the SPL
    _, threshold = _bark(reference.device)
    powers = [_bark_powers(wav, gain) for wav in (reference, estimate)]
    heard, given = (_loudness(power, threshold) for power in powers)
    difference = given - heard
    audible = (difference.abs() - _DEADZONE * torch.minimum(given, heard)).clamp(min=0)
    added = ((powers[1] + 50) / (powers[0] + 50)).pow(_ASYMMETRY)
    added = torch.where(added < 3, torch.zeros_like(added), added.clamp(max=12)).detach()
    symmetric = (audible.square().mean(dim=-1) + 1e-6).sqrt()
    asymmetric = (audible * added).mean(dim=-1)
    loud = ((powers[0].sum(dim=-1) + 1e5) / 1e7).pow(0.04)
    weighed = (_SYMMETRIC * symmetric + _ASYMMETRIC * asymmetric) / loud
    return weighed.mean()


@lru_cache(maxsize=4)
def _third_octaves(device: torch.device) -> Tensor:
    """Give the matrix `[bins, bands]` from power to third-octave bands."""
    frequency = torch.arange(_ENVELOPE_WINDOW // 2 + 1) * (SAMPLE_RATE / _ENVELOPE_WINDOW)
    centre = _LOWEST_OCTAVE * 2 ** (torch.arange(_THIRD_OCTAVES) / 3)
    low, high = centre * 2 ** (-1 / 6), centre * 2 ** (1 / 6)
    inside = (frequency[:, None] >= low) & (frequency[:, None] < high)
    return inside.float().to(device)


def _envelopes(wav: Tensor, gain: Tensor) -> Tensor:
    """Magnitudes of third-octave bands, in stretches that overlap: `[B, stretches, bands, 24]`."""
    spectra = _spectra(wav * gain, _ENVELOPE_WINDOW)
    power = (spectra.real.square() + spectra.imag.square()) @ _third_octaves(wav.device)
    return (power + 1e-8).sqrt().unfold(1, _ENVELOPE_FRAMES, _ENVELOPE_FRAMES // 6)


def _standard(envelopes: Tensor) -> Tensor:
    """Take the mean of each band's stretch off, and bring it to length 1, or near 0 if flat."""
    centred = envelopes - envelopes.mean(dim=-1, keepdim=True)
    return centred / (centred.square().sum(dim=-1, keepdim=True) + _FLAT).sqrt()


def envelope_loss(reference: Tensor, estimate: Tensor) -> Tensor:
    """How little the envelopes of third-octave bands go along, over 384 ms: 0 to 2.

    1 minus their correlation, the intelligibility measure of Taal et al. 2011 (STOI), at 16 kHz.
    Stretches 40 dB below the loudest of their signal don't count; a band that is flat or silent in
    both counts as equal. STOI flatters what was trained with it.

    Raises:
        ValueError: if the signals are shorter than 0.4 s.
    """
    if reference.shape[-1] < ENVELOPE_SECONDS * SAMPLE_RATE:
        raise ValueError(
            f"the envelope loss needs {ENVELOPE_SECONDS:g} s of audio, "
            f"got {reference.shape[-1] / SAMPLE_RATE:g} s"
        )
    gain = 1 / _talker_level(reference)
    heard, given = _envelopes(reference, gain), _envelopes(estimate, gain)
    power = heard.square().sum(dim=-1, keepdim=True)
    level = (power / given.square().sum(dim=-1, keepdim=True)).sqrt()
    clipped = torch.minimum(given * level, heard * (1 + _CLIPPING))
    # Half the squared distance of vectors of length 1 is 1 minus their product.
    apart = (_standard(heard) - _standard(clipped)).square().sum(dim=-1) / 2
    total = power.sum(dim=(2, 3))
    counts = (total > _HEARD * total.amax(dim=1, keepdim=True))[..., None].float()
    return (apart * counts).sum() / (counts.sum() * _THIRD_OCTAVES)


LOSSES: dict[str, Loss] = {
    "mel": mel_loss,
    "complex": complex_loss,
    "noise": noise_loss,
    "loudness": loudness_loss,
    "envelope": envelope_loss,
}
"""Every reconstruction loss by the name that it has in a training's file."""
