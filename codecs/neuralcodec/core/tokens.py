"""Tokens: the codes of a batch of clips, and all that one does with them."""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralcodec.core import token_batch, token_time
from neuralcodec.core.clip_shape import ClipShape, mean_side_bits, stack_shapes
from neuralcodec.core.token_card import html_table, one_line
from neuralcodec.core.token_data import TokenData, check_type
from neuralcodec.core.token_files import read_tokens, write_tokens

__all__ = ["ClipShape", "Tokens", "stack"]


@dataclass(frozen=True, eq=False, repr=False)
class Tokens(TokenData):
    """The codes of a batch of clips, with all that is needed to count them.

    Rates are over the *padded* duration, frames / frame rate: a 10 ms clip costs a whole frame, and
    the rates of a codec don't depend on the clip. Indexing starts at 0 in every codebook.

    Clips of one batch may differ in length; `clips` then holds the shape of each, and the arrays
    are zero-padded to the longest. In such a batch `num_tokens`, `num_bits`, `side_bits` and
    `padded_duration` are means over the clips, each clip counted once. `tokens_per_second` and
    `bitrate_kbps` are therefore all tokens and all bits over all padded seconds, not means of the
    clips' rates. `num_samples` and `duration` are those of the longest clip.

    Attributes:
        codes: `[B, K, T]` int64 in 0..V-1, or a tuple of `[B, T_k]`, one per codebook, if the
            codebooks run at different frame rates.
        frame_rates: Hz, one per codebook. If the clips' own rates differ (variable bitrate), all
            codes / all seconds of the codebook.
        codebook_sizes: entries, one per codebook.
        sample_rate: of the audio, Hz.
        num_samples: length of the audio before padding; decoding restores it.
        side: whatever else a decoder needs (scales, packet sizes), by name: `[B, ..., n]`
            zero-padded along the last axis, or `[B]`. With one clip other shapes are allowed.
        side_bits: cost of `side` per clip, in bits; 0 if the literature does not count it.
        clips: shape of each clip; None if all clips are alike and fill the arrays.

    Raises:
        ValueError: if shapes, counts, rates or code values don't fit together.

    >>> tokens = Tokens.uniform(torch.zeros(1, 4, 100, dtype=torch.long), frame_rate=50,
    ...                         codebook_size=1024, sample_rate=16000, num_samples=32000)
    >>> tokens.tokens_per_second, tokens.bitrate_kbps, tokens.duration
    (200.0, 2.0, 2.0)
    >>> tokens.prefix(1).bitrate_kbps
    0.5
    """

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
        check_type(codes)
        num_codebooks = codes.shape[1]
        return cls(
            codes,
            frame_rates=(float(frame_rate),) * num_codebooks,
            codebook_sizes=(codebook_size,) * num_codebooks,
            sample_rate=sample_rate,
            num_samples=num_samples,
        )

    @staticmethod
    def batch(parts: "Sequence[Tokens]") -> "Tokens":
        """Join clips of one codec into one batch, zero-padded to the longest.

        `Tokens.batch([a, b])[0] == a` for parts of one clip each; a part may itself be a batch.

        Raises:
            ValueError: if there is no part, or the parts differ in sample rate, codebooks, device
                or names and axes of `side`, or in frame rates that are not codes / duration.
        """
        return token_batch.batch([*parts])

    @staticmethod
    def concat(parts: "Sequence[Tokens]") -> "Tokens":
        """Join tokens of one codec in time; the inverse of `crop` at whole frames.

        Every part but the last must fill its frames with audio, so that nothing is lost or
        inserted where two parts meet. In a batch, clip i of the result is made of the clips i.

        Raises:
            ValueError: if there is no part, the parts differ in batch size, sample rate, codebooks,
                frame rates or device, have a side, or a part before the last ends within a frame.
        """
        return token_time.concat([*parts])

    @classmethod
    def load(cls, path: str | Path) -> "Tokens":
        """Read what `save` wrote, to the CPU.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is another file, of a newer version, or damaged; the message names it.
        """
        fields = read_tokens(Path(path))
        try:
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no valid tokens: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the tokens to a safetensors file of any name, which replaces one of that name.

        The file appears whole or not at all. Nothing in it is pickled.

        Raises:
            OSError: if it cannot be written; the message names it.
            ValueError: if the tokens are on the meta device.
        """
        write_tokens(Path(path), self)

    def __repr__(self) -> str:
        return one_line(self)

    def _repr_html_(self) -> str:
        return html_table(self)

    def __len__(self) -> int:
        return self.batch_size

    def __iter__(self) -> "Iterator[Tokens]":
        return (self[index] for index in range(self.batch_size))

    def __getitem__(self, index: int | slice) -> "Tokens":
        """Return one clip as a batch of 1, or the clips of a slice; what was padded is cut off.

        Raises:
            IndexError: if there is no such clip.
            ValueError: if a slice selects no clip.
        """
        if isinstance(index, slice):
            chosen = range(self.batch_size)[index]
            if not chosen:
                raise ValueError(f"{index} selects none of {self.batch_size} clips")
            if chosen == range(self.batch_size):
                return self
            return token_batch.batch([token_batch.take(self, each) for each in chosen])
        place = operator.index(index)
        if not -self.batch_size <= place < self.batch_size:
            raise IndexError(f"clip {place} of a batch of {self.batch_size}")
        return token_batch.take(self, place % self.batch_size)

    def prefix(self, num_codebooks: int) -> "Tokens":
        """Keep the first `num_codebooks` codebooks, 1..K: a coarser coding if codes are nested.

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
            clips=self.clips and tuple(shape.prefix(num_codebooks) for shape in self.clips),
        )

    def crop(self, start: float | None = None, stop: float | None = None) -> "Tokens":
        """Return the frames that overlap `start`..`stop`, kept whole.

        Let a block be the shortest span of whole frames of all codebooks: one frame if the frame
        rates are equal, else a frame of the slowest codebook, or several where that is no whole
        number of frames of the others. Kept are blocks floor(start / block) to ceil(stop / block),
        the end excluded. `num_samples` becomes what they hold of the audio, where a block begins at
        its time in samples, rounded down. A stop at the end of the audio keeps all frames to the
        last. In a batch of different lengths each clip is
        cropped on its own.

        Args:
            start: seconds; None is 0, negative values count from the end of the clip.
            stop: seconds; None is the end of the clip, negative values count from there.

        Raises:
            ValueError: if the span is empty or reversed or not within the clip, no frame overlaps
                it, the tokens have a side, or the frames of the codebooks never begin together.

        >>> tokens = Tokens.uniform(torch.zeros(1, 4, 100, dtype=torch.long), frame_rate=50,
        ...                         codebook_size=1024, sample_rate=16000, num_samples=31900)
        >>> tokens.crop(0.5, 1.01).num_samples  # frames 25 to 50 of 320 samples
        8320
        >>> Tokens.concat([tokens.crop(0, 0.5), tokens.crop(0.5)]) == tokens
        True
        """
        return token_time.crop(self, start, stop)

    def map_codes(self, function: Callable[[Tensor], Tensor]) -> "Tokens":
        """Apply a function to the codes: to `[B, K, T]`, or to each `[B, T_k]`.

        Args:
            function: must keep the shape, type and range of the codes.
        """
        return self.with_codes([function(array) for array in self.arrays], self.num_samples)

    def map_arrays(self, function: Callable[[Tensor], Tensor]) -> "Tokens":
        """Apply a function to the codes, as `map_codes` does, and to each side.

        Args:
            function: must keep shapes, and the type and range of the codes.
        """
        codes = tuple(function(array) for array in self.arrays)
        return replace(
            self,
            codes=codes[0] if isinstance(self.codes, Tensor) else codes,
            side={name: function(value) for name, value in self.side.items()},
        )

    def to(self, device: str | torch.device) -> "Tokens":
        """Move codes and sides to a device."""
        return self.map_arrays(lambda array: array.to(device))

    def numpy(self) -> NDArray[np.int64] | tuple[NDArray[np.int64], ...]:
        """Return the codes as NumPy arrays: `[B, K, T]`, or one `[B, T_k]` per codebook."""
        if isinstance(self.codes, Tensor):
            return self.codes.cpu().numpy()
        return tuple(stream.cpu().numpy() for stream in self.codes)

    def unpad(self, wav: Tensor) -> list[Tensor]:
        """Cut decoded audio to the length of each clip.

        Args:
            wav: `[B, C, T]`, T at least `num_samples`.

        Returns:
            B tensors `[C, lengths[i]]`, views of `wav`.

        Raises:
            ValueError: if `wav` has another number of axes or clips, or is too short.
        """
        if wav.ndim != 3 or len(wav) != self.batch_size or wav.shape[-1] < self.num_samples:
            raise ValueError(
                f"wav must be [{self.batch_size}, C, T] with T at least {self.num_samples}, "
                f"got {list(wav.shape)}"
            )
        return [clip[..., :length] for clip, length in zip(wav, self.lengths, strict=True)]


def stack(*parts: Tokens) -> Tokens:
    """Put the codebooks of several tokenizations of the same audio on top of each other.

    An example is semantic tokens over acoustic ones. The result has the codebooks of all parts in
    the order given, each at its own frame rate, and the sum of their costs.

    Raises:
        ValueError: if there is no part, or the parts differ in batch size, or a clip in duration
            by more than a sample at the lowest sample rate, or two parts have a side of one name.

    >>> acoustic = Tokens.uniform(torch.zeros(1, 8, 75, dtype=torch.long), frame_rate=75,
    ...                           codebook_size=1024, sample_rate=24000, num_samples=24000)
    >>> semantic = Tokens.uniform(torch.zeros(1, 1, 25, dtype=torch.long), frame_rate=25,
    ...                           codebook_size=500, sample_rate=16000, num_samples=16000)
    >>> stack(semantic, acoustic).tokens_per_second
    625.0
    """
    if not parts:
        raise ValueError("stack needs at least one Tokens, got none")
    if len({part.batch_size for part in parts}) > 1:
        raise ValueError(f"batch sizes differ: {[part.batch_size for part in parts]}")
    lowest = min(part.sample_rate for part in parts)
    for lengths in zip(*(part.lengths for part in parts), strict=True):
        durations = [n / part.sample_rate for n, part in zip(lengths, parts, strict=True)]
        # Resampling rounds a length up to whole samples: the same audio may differ by almost one.
        if max(durations) - min(durations) > 1 / lowest:
            raise ValueError(f"parts last {durations} s: they must be equal to a sample")
    side = {name: value for part in parts for name, value in part.side.items()}
    if len(side) < sum(len(part.side) for part in parts):
        raise ValueError(f"the same name stands in the side of two parts: {sorted(side)}")
    finest = max(parts, key=lambda part: part.sample_rate)
    streams = tuple(stream for part in parts for stream in part.streams)
    rates = tuple(rate for part in parts for rate in part.frame_rates)
    same = len({stream.shape for stream in streams}) == 1 and len(set(rates)) == 1
    clips = None
    if any(part.clips for part in parts):
        shapes = zip(finest.lengths, *(part.clip_shapes for part in parts), strict=True)
        clips = tuple(stack_shapes(length, each) for length, *each in shapes)
    return Tokens(
        torch.stack(streams, dim=1) if same else streams,
        frame_rates=rates,
        codebook_sizes=tuple(size for part in parts for size in part.codebook_sizes),
        sample_rate=finest.sample_rate,
        num_samples=finest.num_samples,
        side=side,
        side_bits=mean_side_bits(clips) if clips else math.fsum(part.side_bits for part in parts),
        clips=clips,
    )
