"""Tokens: the codes of a batch of clips, and all that is needed to count and decode them.

A codec at f frames/s with K codebooks of V entries costs f * K tokens/s and f * K * log2(V) bits/s.
Codebooks may differ in size and, in multi-scale codecs such as SNAC (arXiv:2410.14411), in frame
rate, so each has its own of both and the rates are sums over codebooks. All rates of the program
come from here.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralcodec.core import token_checks, token_files
from neuralcodec.core.rates import nominal_rates
from neuralcodec.core.token_checks import ClipShape


@dataclass(frozen=True, eq=False, repr=False)
class Tokens:
    """The codes of a batch of clips.

    Rates are over the *padded* duration, frames / frame rate: a 10 ms clip costs a whole frame, and
    the rates of a codec don't depend on the clip. Codes start at 0 in every codebook. Two `Tokens`
    are equal if all their values are, on whatever device.

    Attributes:
        codes: `[B, K, T]` int64 in 0..V-1, or a tuple of `[B, T_k]`, one per codebook, where the
            codebooks run at different frame rates. Clips shorter than the longest are padded with
            zeros.
        frame_rates: Hz, one per codebook; where each clip has rates of its own, those of all clips
            together.
        codebook_sizes: entries, one per codebook.
        sample_rate: of the audio, Hz.
        num_samples: length of the audio before padding, of the longest clip; decoding restores it.
        side: whatever else a decoder needs (scales, packet sizes) by name, `[B, ...]`.
        side_bits: what `side` costs per clip, in bits; 0 if the literature does not count it.
        clips: shape of each clip; None where all fill the arrays and are equally long.

    Raises:
        ValueError: if shapes, counts, rates or code values don't fit together.

    >>> tokens = Tokens.uniform(torch.zeros(1, 4, 100, dtype=torch.long), frame_rate=50,
    ...                         codebook_size=1024, sample_rate=16000, num_samples=32000)
    >>> tokens
    Tokens(1 clip, 4 x 1024 at 50 Hz, 2 s, 200 tokens/s, 2 kbit/s)
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
    clips: tuple[ClipShape, ...] | None = None

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
        """Return tokens whose codebooks all share one frame rate (Hz) and one size.

        Args:
            codes: `[B, K, T]` int64.
            frame_rate: Hz.
            codebook_size: entries of each codebook.
            sample_rate: of the audio, Hz.
            num_samples: length of the audio before padding.
        """
        token_checks.check_array(codes)
        num_codebooks = codes.shape[1]
        return cls(
            codes,
            frame_rates=(float(frame_rate),) * num_codebooks,
            codebook_sizes=(codebook_size,) * num_codebooks,
            sample_rate=sample_rate,
            num_samples=num_samples,
        )

    @classmethod
    def batch(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """Return one batch of the clips of several, in their order; lengths may differ.

        Raises:
            ValueError: if there is no part, or they differ in codebooks, sample rate or sides.
        """
        from neuralcodec.core.token_batches import batch

        return batch(parts)

    @classmethod
    def concat(cls, parts: Sequence["Tokens"]) -> "Tokens":
        """Return the parts one after the other in time, such as pieces cut by `crop`.

        Raises:
            ValueError: if there is no part, they differ in batch size, codebooks or sample rate,
                have a side or clips of different lengths, or a part before the last does not fill
                its frames, so that its padding would lie within the audio.
        """
        from neuralcodec.core.token_batches import concat

        return concat(parts)

    @classmethod
    def load(cls, path: str | Path) -> "Tokens":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no such file.
        """
        return cls(**token_files.read(Path(path)))

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_rates", tuple(map(float, self.frame_rates)))
        object.__setattr__(self, "codebook_sizes", tuple(map(int, self.codebook_sizes)))
        token_checks.check(self)

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
    def device(self) -> torch.device:
        """Where the codes are."""
        return self.streams[0].device

    @property
    def lengths(self) -> tuple[int, ...]:
        """Samples of each clip."""
        return tuple(clip.num_samples for clip in self.shapes)

    @property
    def shapes(self) -> tuple[ClipShape, ...]:
        """The shape of each clip, also where all are equal."""
        if self.clips is not None:
            return self.clips
        frames = tuple(stream.shape[1] for stream in self.streams)
        ends = {name: side.shape[-1] for name, side in self.side.items() if side.ndim > 1}
        shape = ClipShape(
            self.num_samples, frames, self.frame_rates, self.side_bits, tuple(sorted(ends.items()))
        )
        return (shape,) * self.batch_size

    @property
    def duration(self) -> float:
        """Length of the audio in seconds, without padding; of the longest clip."""
        return self.num_samples / self.sample_rate

    @property
    def padded_duration(self) -> float:
        """Seconds that the frames of a clip span; at least `duration` for codecs that pad.

        In a batch of clips of different lengths it is the mean, like `num_tokens` and `num_bits`,
        so that their ratios are the rates of all clips together.
        """
        return self._mean(lambda clip: clip.seconds)

    @property
    def num_tokens(self) -> float:
        """Codes per clip: the sum of T_k; the mean where clips differ in length."""
        if self.clips is None:
            return sum(stream.shape[1] for stream in self.streams)
        return self._mean(lambda clip: sum(clip.frames))

    @property
    def num_bits(self) -> float:
        """Bits per clip: the sum of T_k * log2(V_k), and `side_bits`; the mean likewise."""
        return self._mean(lambda clip: clip.bits(self.codebook_sizes))

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of padded audio: the sum of the frame rates."""
        return nominal_rates(self.frame_rates, self.codebook_sizes)[0]

    @property
    def bitrate_kbps(self) -> float:
        """Kilobits per second of padded audio, `side_bits` included.

        Infinite if there are side bits and no frame.
        """
        seconds, side = self.padded_duration, 0.0
        bits = self._mean(lambda clip: clip.side_bits)
        if bits:
            side = bits / seconds / 1000 if seconds else math.inf
        return nominal_rates(self.frame_rates, self.codebook_sizes)[1] + side

    def prefix(self, num_codebooks: int) -> "Tokens":
        """Return the first `num_codebooks` codebooks, 1..K; of nested codes a coarser coding.

        Raises:
            ValueError: if `num_codebooks` is outside 1..K.
        """
        if not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(f"num_codebooks must be 1..{self.num_codebooks}, got {num_codebooks}")
        kept = slice(num_codebooks)
        clips = self.clips and tuple(
            replace(clip, frames=clip.frames[kept], frame_rates=clip.frame_rates[kept])
            for clip in self.clips
        )
        return replace(
            self,
            codes=self.codes[:, kept] if isinstance(self.codes, Tensor) else self.codes[kept],
            frame_rates=self.frame_rates[kept],
            codebook_sizes=self.codebook_sizes[kept],
            clips=clips,
        )

    def crop(self, start: float = 0.0, stop: float | None = None) -> "Tokens":
        """Return the frames that overlap `start`..`stop` seconds, whole.

        The first frame kept is the one in which `start` lies, the last the one before or in which
        `stop` lies; codebooks of different frame rates are cut at frames of the slowest. The new
        audio begins with the first frame kept and ends with the last, or with the clip.

        Args:
            start: seconds, 0 or more.
            stop: seconds, above `start`; None for the end of the clip.

        Raises:
            ValueError: if nothing is left, the tokens have a side, or clips differ in length.
        """
        from neuralcodec.core.token_batches import crop

        return crop(self, start, stop)

    def map_arrays(self, change: Callable[[Tensor], Tensor]) -> "Tokens":
        """Return tokens with all codes, `[B, K, T]` or each `[B, T_k]`, and all sides changed."""
        codes = self.codes
        return replace(
            self,
            codes=change(codes) if isinstance(codes, Tensor) else tuple(map(change, codes)),
            side={name: change(value) for name, value in self.side.items()},
        )

    def to(self, device: torch.device | str) -> "Tokens":
        """Return the tokens with codes and sides on a device."""
        return self.map_arrays(lambda array: array.to(device))

    def numpy(self) -> Any:
        """Return the codes as an array `[B, K, T]`, or a tuple of `[B, T_k]`."""
        if isinstance(self.codes, Tensor):
            return self.codes.cpu().numpy()
        return tuple(stream.cpu().numpy() for stream in self.codes)

    def unpad(self, wav: Tensor) -> list[Tensor]:
        """Return decoded audio `[B, C, T]` as clips `[C, T_i]` without the zeros that fill it up.

        Raises:
            ValueError: if it has another batch size or is shorter than the longest clip.
        """
        if len(wav) != len(self) or wav.shape[-1] < self.num_samples:
            raise ValueError(
                f"wav must be [{len(self)}, C, {self.num_samples}], got {list(wav.shape)}"
            )
        return [clip[..., :length] for clip, length in zip(wav, self.lengths, strict=True)]

    def save(self, path: str | Path) -> None:
        """Write the tokens to a safetensors file, which is then there whole, or as it was before.

        A file of tokens that stands alone, with the codec's name and a few bytes of header, is
        written by `neuralcodec.bitstream`.

        Raises:
            OSError: if the file cannot be written.
        """
        token_files.write(Path(path), self)

    def __len__(self) -> int:
        return self.batch_size

    def __iter__(self) -> Iterator["Tokens"]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int | slice) -> "Tokens":
        """Return one clip of the batch without padding, or for a slice several."""
        from neuralcodec.core.token_batches import select

        return select(self, index)

    def _mean(self, of: Callable[[ClipShape], float]) -> float:
        clips = self.clips or self.shapes[:1] or (self._empty(),)
        values = [of(clip) for clip in clips]
        return values[0] if len(set(values)) == 1 else math.fsum(values) / len(values)

    def _empty(self) -> ClipShape:
        frames = tuple(stream.shape[1] for stream in self.streams)
        return ClipShape(self.num_samples, frames, self.frame_rates, self.side_bits, ())

    def _scalars(self) -> tuple[Any, ...]:
        return (
            self.frame_rates,
            self.codebook_sizes,
            self.sample_rate,
            self.num_samples,
            self.side_bits,
            self.clips,
            isinstance(self.codes, Tensor),
            tuple(stream.shape for stream in self.streams),
            tuple(sorted(self.side)),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        if self._scalars() != other._scalars():
            return False
        pairs = list(zip(self.streams, other.streams, strict=True))
        pairs += [(self.side[name], other.side[name]) for name in self.side]
        return all(token_checks.same(one, two) for one, two in pairs)

    def __hash__(self) -> int:
        return hash(self._scalars())

    def __repr__(self) -> str:
        from neuralcodec.core.cards import tokens_line

        return tokens_line(self)

    def _repr_html_(self) -> str:
        from neuralcodec.core.cards import tokens_card

        return tokens_card(self)


def stack(*parts: Tokens) -> Tokens:
    """Put the codebooks of several tokenizations of the same audio on top of each other.

    Semantic tokens over acoustic ones, say: the result has the codebooks of all parts in the order
    given, each at its own frame rate, and their summed cost.

    Raises:
        ValueError: if there is no part, or the parts differ in batch size, or in duration by more
            than a sample at the lowest sample rate, or a name stands in the `side` of two of them,
            or their clips differ in length.

    >>> acoustic = Tokens.uniform(torch.zeros(1, 8, 75, dtype=torch.long), frame_rate=75,
    ...                           codebook_size=1024, sample_rate=24000, num_samples=24000)
    >>> semantic = Tokens.uniform(torch.zeros(1, 1, 25, dtype=torch.long), frame_rate=25,
    ...                           codebook_size=500, sample_rate=16000, num_samples=16000)
    >>> stack(semantic, acoustic).tokens_per_second
    625.0
    """
    if not parts:
        raise ValueError("stack needs at least one Tokens, got none")
    if any(part.clips is not None for part in parts):
        raise ValueError("stack takes batches of equally long clips: stack them one by one")
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
