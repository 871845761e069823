"""Tokens: the codes of a clip. The one place of the program that turns codes into rates.

A codec at f frames/s with K codebooks of V entries costs f * K tokens/s and f * K * log2(V) bits/s.
Codebooks may differ in size and, in multi-scale codecs such as SNAC (arXiv:2410.14411), in frame
rate, so each has its own of both and the rates are sums over codebooks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


def nominal_rates(
    frame_rates: Sequence[float], codebook_sizes: Sequence[int]
) -> tuple[float, float]:
    """Give tokens/s and kbit/s of codebooks with these frame rates (Hz) and sizes (entries).

    Bits are counted at log2(V) a token, as the field does, also where V is no power of two.

    >>> nominal_rates([50.0] * 4, [1024] * 4)
    (200.0, 2.0)
    """
    bits = (rate * math.log2(size) for rate, size in zip(frame_rates, codebook_sizes, strict=True))
    return math.fsum(frame_rates), math.fsum(bits) / 1000


@dataclass(frozen=True)
class Tokens:
    """The codes of one batch of equally long clips, with all that is needed to count them.

    Rates are over the *padded* duration, frames / frame rate: a 10 ms clip costs a whole frame, and
    the rates of a codec don't depend on the clip. Indexing starts at 0 in every codebook.

    Attributes:
        codes: `[B, K, T]` int64 in 0..V-1, or a tuple of `[B, T_k]`, one a codebook, where the
            codebooks run at different frame rates.
        frame_rates: Hz, one a codebook.
        codebook_sizes: entries, one a codebook.
        sample_rate: of the audio, Hz.
        num_samples: length of the audio before padding; decoding restores it.
        side: whatever else a decoder needs (scales, packet sizes), by name.
        side_bits: what `side` costs a clip, in bits; 0 where the field counts it as free.

    Raises:
        ValueError: if shapes, counts, rates or code values don't fit together.

    >>> tokens = Tokens.uniform(torch.zeros(1, 4, 100, dtype=torch.long), frame_rate=50,
    ...                         codebook_size=1024, sample_rate=16000, num_samples=32000)
    >>> tokens.tokens_per_second, tokens.bitrate_kbps, tokens.duration
    (200.0, 2.0, 2.0)
    >>> tokens.prefix(1).bitrate_kbps
    0.5
    """

    codes: Tensor | tuple[Tensor, ...]
    frame_rates: tuple[float, ...]
    codebook_sizes: tuple[int, ...]
    sample_rate: int
    num_samples: int
    side: Mapping[str, Tensor] = field(default_factory=dict)
    side_bits: float = 0.0
    clips: None = None

    @classmethod
    def batch(cls, parts):
        if len(parts) == 1:
            return parts[0]
        return replace(
            parts[0],
            codes=torch.cat([p.codes for p in parts]),
            side={k: torch.cat([p.side[k] for p in parts]) for k in parts[0].side},
        )

    def map_arrays(self, fn):
        return replace(
            self,
            codes=fn(self.codes) if isinstance(self.codes, Tensor) else tuple(map(fn, self.codes)),
            side={k: fn(v) for k, v in self.side.items()},
        )

    def __len__(self):
        return self.batch_size

    def __getitem__(self, i):
        if not 0 <= i < len(self):
            raise IndexError
        return self.map_arrays(lambda a: a[i : i + 1])

    @classmethod
    def uniform(
        cls,
        codes: Tensor,
        *,
        frame_rate: float,
        codebook_size: int,
        sample_rate: int,
        num_samples: int,
    ) -> "Tokens":
        """Make tokens whose codebooks all share one frame rate (Hz) and one size.

        Args:
            codes: `[B, K, T]` int64.
            frame_rate: Hz.
            codebook_size: entries of each codebook.
            sample_rate: of the audio, Hz.
            num_samples: length of the audio before padding.
        """
        if codes.ndim != 3:
            raise ValueError(f"codes must be [B, K, T], got shape {tuple(codes.shape)}")
        num_codebooks = codes.shape[1]
        return cls(
            codes,
            frame_rates=(float(frame_rate),) * num_codebooks,
            codebook_sizes=(codebook_size,) * num_codebooks,
            sample_rate=sample_rate,
            num_samples=num_samples,
        )

    def __post_init__(self) -> None:
        if isinstance(self.codes, Tensor) and self.codes.ndim != 3:
            raise ValueError(f"codes must be [B, K, T], got shape {tuple(self.codes.shape)}")
        streams = self.streams
        if not len(streams) == len(self.frame_rates) == len(self.codebook_sizes):
            raise ValueError(
                f"{len(streams)} codebooks of codes, {len(self.frame_rates)} frame rates and "
                f"{len(self.codebook_sizes)} codebook sizes: they must be equally many"
            )
        if not streams:
            raise ValueError("tokens need at least one codebook, got none")
        if self.sample_rate <= 0 or self.num_samples < 0:
            raise ValueError(
                f"sample_rate must be positive and num_samples not negative, "
                f"got {self.sample_rate} and {self.num_samples}"
            )
        if not 0 <= self.side_bits < math.inf:
            raise ValueError(f"side_bits must be finite and not negative, got {self.side_bits}")
        for k, (stream, rate, size) in enumerate(
            zip(streams, self.frame_rates, self.codebook_sizes, strict=True)
        ):
            if stream.ndim != 2 or stream.dtype != torch.int64:
                raise ValueError(
                    f"codes of codebook {k} must be int64 [B, T], "
                    f"got {stream.dtype} {list(stream.shape)}"
                )
            if not (rate > 0 and math.isfinite(rate)) or size < 1:
                raise ValueError(f"codebook {k} has frame rate {rate} Hz and {size} entries")
            if stream.numel() and not 0 <= int(stream.min()) <= int(stream.max()) < size:
                raise ValueError(
                    f"codes of codebook {k} must lie in 0..{size - 1}, "
                    f"got {int(stream.min())}..{int(stream.max())}"
                )
        if len({stream.shape[0] for stream in streams}) > 1:
            raise ValueError(f"batch sizes differ: {[stream.shape[0] for stream in streams]}")
        spans = [s.shape[1] / rate for s, rate in zip(streams, self.frame_rates, strict=True)]
        if max(spans) - min(spans) > 1 / min(self.frame_rates) + 1e-9:
            raise ValueError(f"codebooks span different times, in seconds: {spans}")

    @property
    def streams(self) -> tuple[Tensor, ...]:
        """The codes one codebook at a time: K tensors `[B, T_k]`."""
        return self.codes.unbind(1) if isinstance(self.codes, Tensor) else self.codes

    @property
    def num_codebooks(self) -> int:
        """K."""
        return len(self.codebook_sizes)

    @property
    def batch_size(self) -> int:
        """B."""
        return self.streams[0].shape[0]

    @property
    def duration(self) -> float:
        """Length of the audio in seconds, without padding."""
        return self.num_samples / self.sample_rate

    @property
    def padded_duration(self) -> float:
        """Seconds that the frames span; at least `duration` for codecs that pad."""
        return max(s.shape[1] / f for s, f in zip(self.streams, self.frame_rates, strict=True))

    @property
    def num_tokens(self) -> int:
        """Codes of one clip: the sum of T_k."""
        return sum(stream.shape[1] for stream in self.streams)

    @property
    def num_bits(self) -> float:
        """Bits of one clip: the sum of T_k * log2(V_k), and `side_bits`."""
        pairs = zip(self.streams, self.codebook_sizes, strict=True)
        return math.fsum(s.shape[1] * math.log2(size) for s, size in pairs) + self.side_bits

    @property
    def tokens_per_second(self) -> float:
        """Tokens of one clip per second of padded audio: the sum of the frame rates."""
        return nominal_rates(self.frame_rates, self.codebook_sizes)[0]

    @property
    def bitrate_kbps(self) -> float:
        """Kilobits of one clip per second of padded audio, `side_bits` included.

        Infinite if there are side bits and no frame.
        """
        seconds, side = self.padded_duration, 0.0
        if self.side_bits:
            side = self.side_bits / seconds / 1000 if seconds else math.inf
        return nominal_rates(self.frame_rates, self.codebook_sizes)[1] + side

    def prefix(self, num_codebooks: int) -> "Tokens":
        """Keep the first `num_codebooks` codebooks, 1..K; for nested quantizers a coarser coding.

        Raises:
            ValueError: if `num_codebooks` is outside 1..K.
        """
        if not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(f"num_codebooks must be 1..{self.num_codebooks}, got {num_codebooks}")
        return replace(
            self,
            codes=self.codes[:, :num_codebooks]
            if isinstance(self.codes, Tensor)
            else self.codes[:num_codebooks],
            frame_rates=self.frame_rates[:num_codebooks],
            codebook_sizes=self.codebook_sizes[:num_codebooks],
        )


def stack(*parts: Tokens) -> Tokens:
    """Put the codebooks of several tokenizations of the same audio on top of each other.

    Semantic tokens over acoustic ones, say: the result has the codebooks of all parts in the order
    given, each at its own frame rate, and their summed cost.

    Raises:
        ValueError: if there is no part, or the parts differ in batch size, or in duration by more
            than a sample at the lowest sample rate, or a name stands in the `side` of two of them.

    >>> acoustic = Tokens.uniform(torch.zeros(1, 8, 75, dtype=torch.long), frame_rate=75,
    ...                           codebook_size=1024, sample_rate=24000, num_samples=24000)
    >>> semantic = Tokens.uniform(torch.zeros(1, 1, 25, dtype=torch.long), frame_rate=25,
    ...                           codebook_size=500, sample_rate=16000, num_samples=16000)
    >>> stack(semantic, acoustic).tokens_per_second
    625.0
    """
    if not parts:
        raise ValueError("stack needs at least one Tokens, got none")
    durations = [part.duration for part in parts]
    # Resampling rounds a length up to whole samples, so the same audio may differ by almost one.
    if max(durations) - min(durations) > 1 / min(part.sample_rate for part in parts):
        raise ValueError(f"parts last {durations} s: they must be equal to a sample")
    side = {name: value for part in parts for name, value in part.side.items()}
    if len(side) < sum(len(part.side) for part in parts):
        raise ValueError(f"the same name stands in the side of two parts: {sorted(side)}")
    streams = tuple(stream for part in parts for stream in part.streams)
    lengths = {stream.shape for stream in streams}
    rates = tuple(rate for part in parts for rate in part.frame_rates)
    same = len(lengths) == 1 and len(set(rates)) == 1
    return Tokens(
        torch.stack(streams, dim=1) if same else streams,
        frame_rates=rates,
        codebook_sizes=tuple(size for part in parts for size in part.codebook_sizes),
        sample_rate=max(part.sample_rate for part in parts),
        num_samples=max(parts, key=lambda part: part.sample_rate).num_samples,
        side=side,
        side_bits=math.fsum(part.side_bits for part in parts),
    )
