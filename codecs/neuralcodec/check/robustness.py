"""Checks on difficult input: the codec's own output, silence, extreme levels, invalid input."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from neuralcodec.check.compare import codes_apart, is_finite, relative_error, rms
from neuralcodec.check.line import Finding, NotApplicable
from neuralcodec.check.subject import Coded, Subject, arrays
from neuralcodec.core.tokens import Tokens

_ROUNDS = 5
_GROWTH = 4.0  # largest level, relative to the input or the first output, whichever is louder
_SILENT = 0.01  # RMS, -40 dB of full scale
_FRAMES = 8


def _agreement(subject: Subject, one: Coded, other: Coded) -> str:
    if not subject.has_codes:
        return f"{relative_error(arrays(one)[0], arrays(other)[0]):.1e}"
    apart, total = codes_apart(arrays(one), arrays(other))
    return f"{1 - apart / total:.0%}"


def reencoding(subject: Subject) -> Finding:
    """Repeated encoding and decoding gives finite audio of bounded level."""
    coded, wav = subject.coded, subject.decoded
    levels, same, errors = [rms(wav)], [], [relative_error(wav, subject.wav) ** 2]
    for _ in range(1, _ROUNDS):
        if not is_finite(wav):
            break
        again = subject.encode(wav.clamp(-1, 1))  # as writing a file of integers would do
        same.append(_agreement(subject, again, coded))
        coded, wav = again, subject.decode(again, subject.length)
        levels.append(rms(wav))
        errors.append(relative_error(wav, subject.wav) ** 2)
    growth = levels[-1] / max(levels[0], rms(subject.wav))
    kept = "codes kept" if subject.has_codes else "change of the latents"
    return Finding(
        is_finite(wav) and growth <= _GROWTH,
        f"level x{growth:.2g}",
        f"finite, level at most x{_GROWTH:g}",
        f"{_ROUNDS} rounds; {kept} from one to the next: {', '.join(same)}; "
        f"NMSE of the audio: {', '.join(f'{error:.2g}' for error in errors)}",
    )


def silence(subject: Subject) -> Finding:
    """Digital silence decodes to quiet audio."""
    level = rms(subject.pass_through(torch.zeros_like(subject.wav)))
    if not subject.trained:
        finite = level < float("inf")
        return Finding(finite, f"RMS {level:.2g}", "finite", "random weights know no silence")
    return Finding(level <= _SILENT, f"RMS {level:.2g}", f"at most {_SILENT:g}", "digital silence")


def _extremes(subject: Subject) -> Mapping[str, Tensor]:
    """Return signals `[1, C, T]` at the limits of the range [-1, 1], by name."""
    short = subject.wav[..., : _FRAMES * subject.hop + 1]
    ones = torch.ones_like(short)
    period = max(2, subject.sample_rate // 200)
    square = ones * (1 - 2 * (torch.arange(short.shape[-1]) // (period // 2) % 2))
    return {
        "a square wave of full scale": square,
        "the largest sample all along": ones,
        "speech of full scale": short / short.abs().max(),
        "speech at a millionth": short / short.abs().max() / 1e6,
        "a single sample": torch.nn.functional.pad(ones[..., :1], (0, short.shape[-1] - 1)),
    }


def levels(subject: Subject) -> Finding:
    """Audio at full scale gives finite audio; beyond it, finite audio or a ValueError."""
    wrong = []
    extremes = _extremes(subject)
    for name, wav in extremes.items():
        back = subject.pass_through(wav)
        if back.shape != wav.shape or not is_finite(back):
            wrong.append(f"{name} gives {list(back.shape)}, or no numbers")
    beyond = 3 * extremes["speech of full scale"]
    try:
        finite = is_finite(subject.pass_through(beyond))
        handled = "handled" if finite else "turned into NaN"
    except ValueError:
        finite, handled = True, "refused"
    return Finding(
        not wrong and finite,
        "; ".join([*wrong, f"three times full scale is {handled}"]),
        "finite, or ValueError beyond full scale",
        ", ".join(extremes),
    )


def _not_refused(attempts: Mapping[str, Callable[[], Any]]) -> list[str]:
    """Return the names of the attempts that raise no ValueError."""
    accepted = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except ValueError:
            continue
        except Exception as error:  # whatever it is, it is not what was promised
            accepted.append(f"{name} ({type(error).__name__})")
        else:
            accepted.append(name)
    return accepted


def _refusal(attempts: Mapping[str, Callable[[], Any]]) -> Finding:
    wrong = _not_refused(attempts)
    measured = f"not refused: {', '.join(wrong)}" if wrong else f"all {len(attempts)} refused"
    return Finding(not wrong, measured, "ValueError", ", ".join(attempts))


def bad_input(subject: Subject) -> Finding:
    """Invalid audio and invalid numbers of codebooks raise ValueError."""
    good = subject.wav
    broken = good.clone()
    broken[..., good.shape[-1] // 2] = torch.nan
    endless = good.clone()
    endless[..., -1] = torch.inf
    wavs: dict[str, Any] = {
        "NaN": broken,
        "infinity": endless,
        "a channel too many": torch.cat([good, good[:, :1]], dim=1),
        "four axes": good[None],
        "no samples": good[..., :0],
        "no clips": good[:0],
        "integers": (good * 32767).short(),
        "samples of 16 bits as floats": good * 32767,
        "a numpy array": good.numpy(),
    }
    attempts: dict[str, Callable[[], Any]] = {
        name: partial(subject.encode, wav) for name, wav in wavs.items()
    }
    if subject.has_codes:
        for depth in (0, -1, subject.num_codebooks + 1):
            attempts[f"{depth} codebooks"] = partial(subject.encode, good, depth)
    else:
        z = subject.coded
        assert isinstance(z, Tensor)
        narrow, empty = z[:, 1:], z[..., :0]
        attempts["latents a row too few"] = partial(subject.decode, narrow, subject.length)
        attempts["latents of no frames"] = partial(subject.decode, empty, subject.length)
    return _refusal(attempts)


def foreign_tokens(subject: Subject) -> Finding:
    """Tokens of a codec with other rates or codebook sizes raise ValueError."""
    if not subject.has_codes:
        raise NotApplicable("latents, no tokens")
    tokens = subject.coded
    assert isinstance(tokens, Tokens)
    foreign = {
        "another sample rate": replace(tokens, sample_rate=tokens.sample_rate + 1),
        "larger codebooks": replace(
            tokens, codebook_sizes=tuple(size + 1 for size in tokens.codebook_sizes)
        ),
    }
    # Where a frame is one sample, or a packet, the sample rate is the only rate to test.
    if subject.frame_rates and subject.hop > 1:
        rates = tuple(2 * rate for rate in tokens.frame_rates)
        foreign["another frame rate"] = replace(tokens, frame_rates=rates)
    return _refusal(
        {name: partial(subject.decode, other, subject.length) for name, other in foreign.items()}
    )
