"""The tasks of a worker process: to fit a quantizer, or to score one setup on one clip."""

import functools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from neuralcodec.core.audio import fit_length, mix_down, noted, resample
from neuralcodec.core.codec import Codec
from neuralcodec.core.files import write_whole
from neuralcodec.core.loading import load
from neuralcodec.core.names import printable
from neuralcodec.core.tokens import Tokens
from neuralcodec.latent import requantized
from neuralcodec.metrics import find, score
from neuralcodec.quantize import ResidualVectorQuantizer
from neuralcodec.sweep.plan import Fit, Job, Key, Setup
from neuralcodec.sweep.store import Row

T = TypeVar("T")

COLUMNS = (
    "codec num_codebooks codebook_size frame_rate tokens_per_second bitrate_kbps clip kind seconds"
).split()
"""Columns of a row before its metrics."""

LAST_COLUMNS = "encode_rtf decode_rtf status reason settings point".split()
"""Columns after the metrics. A real-time factor is computing time divided by duration."""


def reason_of(error: BaseException) -> str:
    """Return the message of an error as one printable line, after its type unless ValueError."""
    text = printable(" ".join(str(error).split()))
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def run_fit(fit: Fit, folder: Path) -> str | None:
    """Fit a quantizer and write its codebooks to `folder`, unless they exist there.

    The file name includes a digest of the codec's weights, so that new weights lead to a new fit.

    Returns:
        None, or the reason why the quantizer cannot be fitted.

    Raises:
        OSError: if the codebooks cannot be written.
    """
    try:
        codec = requantized.latent_codec(fit.codec, dict(fit.settings))
        path = folder / requantized.fit_file(codec, [fit.signature])
        if path.exists():
            return None
        fitted = requantized.fit(
            codec,
            fit.audio,
            num_codebooks=fit.num_codebooks,
            codebook_size=fit.codebook_size,
            seed=fit.seed,
        )
    except Exception as error:  # a codec may raise anything; the reason is recorded
        return reason_of(error)
    write_whole(path, save({"codebooks": fitted.rvq.codebooks}))
    return None


@functools.lru_cache(maxsize=2)
def _load(setup: Setup, folder: Path) -> Codec:
    """Build the codec of a setup; jobs of one setup follow each other, so few are cached."""
    settings: dict[str, Any] = dict(setup.settings)
    if setup.fit is None:
        return load(setup.codec, **settings)
    codec = requantized.latent_codec(setup.fit.codec, settings)
    fitted = load_file(folder / requantized.fit_file(codec, [setup.fit.signature]))
    rvq = ResidualVectorQuantizer.from_codebooks(fitted["codebooks"])
    return requantized.Requantized(codec, rvq, int(settings.get(requantized.BEAM, 1)))


def _asked(job: Job, depth: int | None, point: str) -> Row:
    """Return the columns of a row that are known before anything runs."""
    settings = dict(job.setup.settings)
    return {
        "codec": job.setup.codec,
        "num_codebooks": depth,
        "codebook_size": job.setup.codebook_size,
        "frame_rate": settings.get("frame_rate"),
        "clip": job.clip.name,
        "kind": job.clip.kind,
        "settings": json.dumps(settings, sort_keys=True),
        "point": point,
    }


def _measured(tokens: Tokens) -> Row:
    return {
        "num_codebooks": tokens.num_codebooks,
        "codebook_size": max(tokens.codebook_sizes),
        "frame_rate": max(tokens.frame_rates),
        "tokens_per_second": tokens.tokens_per_second,
        "bitrate_kbps": tokens.bitrate_kbps,
        "seconds": tokens.duration,
    }


def _score(job: Job, reference: Tensor, estimate: Tensor) -> tuple[dict[str, float], str]:
    """Return scores, and the reasons for undefined ones except those that follow from the kind."""
    scores = score(
        reference, estimate, job.base.sample_rate, metrics=job.base.metrics, kind=job.clip.kind
    )
    reasons = [
        f"{name}: {reason}"
        for name, reason in scores.reasons.items()
        if job.clip.kind == "unknown" or job.clip.kind in find(name).kinds
    ]
    return dict(scores), "; ".join(reasons)


@dataclass(frozen=True)
class _Encoded:
    """A clip after one encode, at the largest number of codebooks that is needed."""

    codec: Codec
    wav: Tensor  # [1, C, T] at the codec's sample rate
    reference: Tensor  # [1, T] at the sweep's
    tokens: Tokens
    seconds: float  # time that the encode took
    notes: tuple[str, ...]  # warnings from reading the clip

    def at(self, depth: int | None) -> tuple[Tokens, float]:
        """Return the tokens with `depth` codebooks, and the seconds that encoding took.

        Nested codes are a prefix; otherwise the clip is encoded again.
        """
        wanted = self.codec.check_depth(depth)
        if wanted == self.tokens.num_codebooks:
            return self.tokens, self.seconds
        if self.codec.nested:
            return self.tokens.prefix(wanted), self.seconds
        return _timed(self.codec, self.wav, wanted)


def _timed(codec: Codec, wav: Tensor, depth: int | None) -> tuple[Tokens, float]:
    start = time.perf_counter()
    tokens = codec.encode(wav, depth)
    return tokens, time.perf_counter() - start


def _encode(job: Job, folder: Path) -> _Encoded:
    """Encode once, at the largest number of codebooks that is needed and that the codec has."""
    codec = _load(job.setup, folder)
    with noted() as notes:  # into the rows: workers have no terminal
        reference = job.clip.read(job.base.sample_rate)
        mono = job.clip.read(codec.sample_rate)
    wav = mono.expand(codec.channels, -1)[None]
    possible = [depth for depth, _ in job.points if depth in codec.depths]
    tokens, seconds = _timed(codec, wav, max(filter(None, possible), default=None))
    return _Encoded(codec, wav, reference, tokens, seconds, tuple(dict.fromkeys(notes)))


def _row(job: Job, encoded: _Encoded, depth: int | None) -> Row:
    """Decode the tokens at a depth and score them; several channels are mixed down for scoring."""
    tokens, encoding = encoded.at(depth)
    start = time.perf_counter()
    decoded = encoded.codec.decode(tokens)
    seconds = time.perf_counter() - start
    if decoded.shape[-1] != tokens.num_samples:
        raise ValueError(f"decoded {decoded.shape[-1]} samples of {tokens.num_samples}")
    estimate = resample(mix_down(decoded[0]), encoded.codec.sample_rate, job.base.sample_rate)
    estimate = fit_length(estimate, encoded.reference.shape[-1])  # rounding of the resampler
    scores, reason = _score(job, encoded.reference, estimate)
    return {
        **_measured(tokens),
        **scores,
        "encode_rtf": encoding / tokens.duration,
        "decode_rtf": seconds / tokens.duration,
        "status": "ok",
        "reason": "; ".join(filter(None, [*encoded.notes, reason])),
    }


def _attempt(task: Callable[..., T], *arguments: Any) -> T | Row:
    """Run a part of a job; an exception becomes the last columns of a failed row."""
    try:
        return task(*arguments)
    except Exception as error:  # a codec may raise anything; the reason is recorded
        return {"status": "failed", "reason": reason_of(error)}


def _complete(job: Job, depth: int | None, point: str, row: Row) -> tuple[Key, Row]:
    nothing = dict.fromkeys([*COLUMNS, *job.base.metrics, *LAST_COLUMNS], math.nan)
    return job.key(point), {**nothing, **_asked(job, depth, point), **row}


def failed_rows(job: Job, reason: str) -> list[tuple[Key, Row]]:
    """Return the rows of a job that failed as a whole."""
    failed = {"status": "failed", "reason": reason}
    return [_complete(job, depth, point, failed) for depth, point in job.points]


def run_job(job: Job, folder: Path) -> list[tuple[Key, Row]]:
    """Score all points of a job; an exception becomes a failed row with the reason.

    Args:
        job: a setup on a clip.
        folder: folder that contains the fitted quantizers.

    Returns:
        One row per point of the job, in order.
    """
    with torch.inference_mode():
        encoded = _attempt(_encode, job, folder)
        if not isinstance(encoded, _Encoded):
            return failed_rows(job, encoded["reason"])
        return [
            _complete(job, depth, point, _attempt(_row, job, encoded, depth))
            for depth, point in job.points
        ]
