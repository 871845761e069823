"""Differentiable reconstruction losses.

All losses take `reference` and `estimate`, `[B, T]` at 16 kHz, and return a scalar. For equal
signals it is 0 up to a small constant, except for the noise loss, which is negative unless they are
silent.
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

_EXPONENT = 0.3  # exponent of compressed spectra
_MEL_SCALES = ((256, 32), (512, 64), (1024, 80))  # window in samples, number of bands
_MEL_FLOOR = 1e-4  # added to the magnitude of a band
_COMPLEX_WINDOW = 512  # samples
_NOISE_FLOOR = 1e-6  # added to powers, so that silence has little influence

_LOUDNESS_WINDOW = 512  # samples: 32 ms, as in P.862.2
_BARK_BANDS = 42
_SOUND_PRESSURE = 79.0  # listening level of speech, dB SPL
_QUIETEST = 0.005  # RMS below which speech is not amplified further
_ZWICKER = 0.23  # exponent of loudness
_LOUDNESS_SCALE = 0.1866  # sones, Sl of P.862
_DEADZONE = 0.25  # masked differences, relative to the smaller loudness
_ASYMMETRY = 1.2  # exponent
_SYMMETRIC, _ASYMMETRIC = 0.1, 0.0309  # weights of P.862

_ENVELOPE_WINDOW = 512  # samples
_THIRD_OCTAVES = 15  # from 150 Hz up
_LOWEST_OCTAVE = 150.0  # Hz, centre
_ENVELOPE_FRAMES = 24  # 384 ms
ENVELOPE_SECONDS = (_ENVELOPE_FRAMES + 1) * _ENVELOPE_WINDOW // 2 / SAMPLE_RATE
"""Duration of the shortest signals that `envelope_loss` accepts, seconds."""
_CLIPPING = 10 ** (15 / 20)  # upper limit of the estimate's envelope above the reference, as STOI
_HEARD = 1e-4  # power below which a segment is silent, relative to the loudest segment
_FLAT = 1.0  # squared norm of a centred envelope, of a band 55 dB below the level of the speech


@lru_cache(maxsize=32)
def _hann(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)


class _Spectra(Function):
    """The short-time Fourier transform with a gradient of one inverse real transform.

    Autograd's gradient of `torch.fft.rfft` is a complex transform of full length, which would be
    the most expensive part of a step.
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
        inner = gradient / 2  # each bin also represents its negative frequency
        inner[..., 0], inner[..., -1] = gradient[..., 0], gradient[..., -1]
        frames = torch.fft.irfft(inner, n=size, norm="forward") * _hann(size, gradient.device)
        wav = frames.new_zeros(len(frames), length)
        blocks = wav[:, : (frames.shape[1] + 1) * hop].view(len(frames), -1, hop)
        blocks[:, :-1] += frames[..., :hop]
        blocks[:, 1:] += frames[..., hop:]
        return wav, None


def _spectra(wav: Tensor, size: int) -> Tensor:
    """Return complex spectra `[B, frames, bins]` with a hop of half a window, without padding."""
    spectra: Tensor = _Spectra.apply(wav, size)  # type: ignore[no-untyped-call]
    return spectra


def _magnitude(spectra: Tensor) -> Tensor:
    """Return magnitudes with a gradient that is finite at zero."""
    return (spectra.real.square() + spectra.imag.square() + 1e-8).sqrt()


@lru_cache(maxsize=16)
def _mel_bands(size: int, bands: int, device: torch.device) -> Tensor:
    """Return the matrix `[bins, bands]` from magnitudes to mel bands."""
    functional = torchaudio_guard.load().functional
    matrix: Tensor = functional.melscale_fbanks(
        size // 2 + 1, 0.0, SAMPLE_RATE / 2, bands, SAMPLE_RATE, norm=None, mel_scale="slaney"
    )
    return matrix.to(device)


def mel_loss(reference: Tensor, estimate: Tensor) -> Tensor:
    """Return the mean absolute log-mel difference, over windows of 16, 32 and 64 ms."""
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
    """Return the compressed magnitudes, and the complex spectra with these magnitudes."""
    spectra = _spectra(wav, _COMPLEX_WINDOW) / math.sqrt(_COMPLEX_WINDOW)
    magnitude = _magnitude(spectra)
    return magnitude.pow(_EXPONENT), spectra * magnitude.pow(_EXPONENT - 1)


def complex_loss(reference: Tensor, estimate: Tensor) -> Tensor:
    """Return the mean squared difference of compressed magnitudes plus that of compressed spectra.

    Ephrat et al. 2018 (arXiv:1804.03619), with the exponent 0.3 and windows of 32 ms.
    """
    (magnitude, spectra), (other, others) = _compressed(reference), _compressed(estimate)
    difference = spectra - others
    phased = difference.real.square() + difference.imag.square()
    return (magnitude - other).square().mean() + phased.mean()


def noise_loss(reference: Tensor, estimate: Tensor) -> Tensor:
    """Return the mean natural logarithm of the noise-to-signal power ratio, over segments of 0.1 s.

    A difference of 1 is 4.3 dB. A constant of 0.001 is added to the ratio, so the loss is above
    -6.9. Signals must last at least 0.1 s.
    """
    size = SAMPLE_RATE // 10
    powers = [
        wav.unfold(-1, size, size).square().mean(dim=-1) + _NOISE_FLOOR
        for wav in (reference - estimate, reference)
    ]
    return (powers[0] / powers[1] + 1e-3).log().mean()


@lru_cache(maxsize=4)
def _bark(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the matrix `[bins, bands]` from power to Bark bands, and their hearing thresholds."""
    frequency = torch.arange(1, _LOUDNESS_WINDOW // 2 + 1, dtype=torch.float64)
    frequency *= SAMPLE_RATE / _LOUDNESS_WINDOW
    bark = 6 * torch.asinh(frequency / 600)  # Schroeder's scale
    band = (bark / bark[-1] * _BARK_BANDS).long().clamp(max=_BARK_BANDS - 1)
    used = torch.unique(band)
    matrix = (band[:, None] == used).double()  # without the low bands that contain no bin
    centre = (frequency[:, None] * matrix).sum(0) / matrix.sum(0) / 1000
    threshold = (  # dB SPL, Terhardt 1979
        3.64 * centre.pow(-0.8)
        - 6.5 * torch.exp(-0.6 * (centre - 3.3).square())
        + 1e-3 * centre.pow(4)
    )
    power = 10 ** (threshold.clamp(max=60) / 10)
    return matrix.float().to(device), power.float().to(device)


def _talker_level(wav: Tensor) -> Tensor:
    """Return the RMS of signals, `[B, 1]`, with a lower limit."""
    return wav.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=_QUIETEST)


def _bark_powers(wav: Tensor, gain: Tensor) -> Tensor:
    matrix, _ = _bark(wav.device)
    spectra = _spectra(wav * gain, _LOUDNESS_WINDOW)[..., 1:]
    return (spectra.real.square() + spectra.imag.square()) @ matrix


def _loudness(power: Tensor, threshold: Tensor) -> Tensor:
    """Return Zwicker's loudness of bands `[..., bands]`, in sones per band."""
    scale = _LOUDNESS_SCALE * (threshold / 0.5).pow(_ZWICKER)
    return scale * ((0.5 + 0.5 * power / threshold).pow(_ZWICKER) - 1)


def loudness_loss(reference: Tensor, estimate: Tensor) -> Tensor:
    """Return the audible disturbance: the differences of loudness that are not masked.

    The perceptual model of ITU-T P.862 (Rix et al. 2001), reduced to its differentiable parts: Bark
    bands, Zwicker's loudness, a dead zone for masking, and an asymmetric term for components that
    the estimate adds to the reference, which disturb more than components that it omits. There is
    no time alignment and no equalisation. The loss is modelled on a part of PESQ, so PESQ is biased
    in favour of models trained with it.
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
    """Return the matrix `[bins, bands]` from power to third-octave bands."""
    frequency = torch.arange(_ENVELOPE_WINDOW // 2 + 1) * (SAMPLE_RATE / _ENVELOPE_WINDOW)
    centre = _LOWEST_OCTAVE * 2 ** (torch.arange(_THIRD_OCTAVES) / 3)
    low, high = centre * 2 ** (-1 / 6), centre * 2 ** (1 / 6)
    inside = (frequency[:, None] >= low) & (frequency[:, None] < high)
    return inside.float().to(device)


def _envelopes(wav: Tensor, gain: Tensor) -> Tensor:
    """Return third-octave magnitudes in overlapping segments, `[B, segments, bands, 24]`."""
    spectra = _spectra(wav * gain, _ENVELOPE_WINDOW)
    power = (spectra.real.square() + spectra.imag.square()) @ _third_octaves(wav.device)
    return (power + 1e-8).sqrt().unfold(1, _ENVELOPE_FRAMES, _ENVELOPE_FRAMES // 6)


def _standard(envelopes: Tensor) -> Tensor:
    """Centre each band's segment and normalise it to length 1, or near 0 if it is flat."""
    centred = envelopes - envelopes.mean(dim=-1, keepdim=True)
    return centred / (centred.square().sum(dim=-1, keepdim=True) + _FLAT).sqrt()


def envelope_loss(reference: Tensor, estimate: Tensor) -> Tensor:
    """Return 1 minus the correlation of third-octave envelopes over 384 ms, in 0..2.

    After the intelligibility measure of Taal et al. 2011 (STOI), at 16 kHz. Segments 40 dB below
    the loudest one of their signal are ignored; a band that is flat or silent in both signals
    counts as equal. STOI is biased in favour of models trained with this loss.

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
    # Half the squared distance of unit vectors is 1 minus their inner product.
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
"""Every reconstruction loss by its name in a recipe."""
