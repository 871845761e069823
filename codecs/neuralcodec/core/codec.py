"""The codec class: audio to tokens and back.

`Codec` is what the whole program knows of a codec. It declares the rates, sizes and limits, and
does once what every codec needs: it checks input, moves it between devices, computes without
gradients and in full precision, handles batches of clips of different lengths and builds `Tokens`.
A codec of one's own fills in two methods, `_encode` and `_decode`, or, with access to the latents
on both sides of its quantizer, those of `neuralcodec.core.latents.LatentCodec`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from neuralcodec.core.audio import check_tensor, fit_length
from neuralcodec.core.cards import card, codec_line
from neuralcodec.core.inputs import as_clips, check_depth, equal_groups
from neuralcodec.core.module import AudioModule, tensors_of
from neuralcodec.core.streaming import Layer, Stream
from neuralcodec.core.tokens import Tokens

R = TypeVar("R", bound=nn.Module)


class Codec(AudioModule, ABC):
    """Audio to tokens and back: an `nn.Module`.

    Attributes:
        name: as in the registry.
        sample_rate: of the audio that `encode` takes and `decode` returns, Hz.
        channels: of the audio.
        frame_rates: Hz, one per codebook; empty where they depend on the clip (variable bitrate).
        codebook_sizes: entries, one per codebook; empty for a latent codec without a quantizer.
        is_causal: whether a token depends on no audio later than its own frame.
        is_streaming: whether `stream` and `decode_stream` work.
        hop_length: samples per frame; None where that is no whole number or frames have no fixed
            length.
        encode_context: frames before and after a frame that its codes depend on; None if unknown
            or unlimited.
        decode_context: frames before and after a frame that its audio depends on; likewise.
        delay_samples: samples by which the audio of the underlying model is late, negative where
            it is early; `decode` compensates for it.
        beam_width: of the search for codes; 1 is greedy.
        digest: SHA-256 of the weights and codebooks that it was built with, 64 hex digits; "" if
            it has learned nothing.
        has_codebooks: whether codecs of this class have codebooks of their own.
    """

    frame_rates: tuple[float, ...] = ()
    codebook_sizes: tuple[int, ...] = ()
    is_causal: bool = False
    is_streaming: bool = False
    hop_length: int | None = None
    encode_context: int | None = None
    decode_context: int | None = None
    delay_samples: int = 0
    beam_width: int = 1
    digest: str = ""
    has_codebooks: ClassVar[bool] = True

    @property
    def num_codebooks(self) -> int:
        """K, the largest number of codebooks that `encode` takes."""
        return len(self.codebook_sizes)

    @property
    def depths(self) -> Sequence[int]:
        """Numbers of codebooks that it can encode to and decode from, rising; by default 1..K."""
        return range(1, self.num_codebooks + 1)

    @property
    def nested(self) -> bool:
        """Whether the first k codebooks of any codes are the codes for k codebooks.

        A beam search does not give such codes: it looks for the best ones of each depth.
        """
        return self.beam_width == 1

    @property
    def is_chunkable(self) -> bool:
        """Whether long audio can be coded in overlapping chunks: its contexts are known."""
        return None not in (self.hop_length, self.encode_context, self.decode_context)

    def check_depth(self, num_codebooks: int | None) -> int:
        """Return the number of codebooks to use, by default the largest.

        Raises:
            ValueError: if it is not one of `depths`.
        """
        return check_depth(num_codebooks, self.depths)

    def encode(
        self,
        wav: Tensor | Sequence[Tensor],
        num_codebooks: int | None = None,
        *,
        lengths: Sequence[int] | Tensor | None = None,
    ) -> Tokens:
        """Encode audio with the first `num_codebooks` codebooks.

        Clips of different lengths are encoded each on its own, so that their codes do not depend
        on the batch.

        Args:
            wav: `[B, C, T]`, `[C, T]` or `[T]`, float in [-1, 1], on any device; or a sequence of
                clips `[C, T_i]` of different lengths.
            num_codebooks: one of `depths`; default the largest.
            lengths: samples of each clip, where the clips of `[B, C, T]` are padded.

        Returns:
            Tokens: on the device of `wav`.

        Raises:
            ValueError: if the audio has another shape or type, is empty, not finite or far outside
                ±1, or `num_codebooks` is not one of `depths`.
        """
        self._check_codebooks()
        depth = self.check_depth(num_codebooks)
        clips = as_clips(wav, lengths, self.channels)
        if isinstance(clips, Tensor):
            return self._encode_batch(clips, depth)
        parts: dict[int, Tokens] = {}
        for group in equal_groups([clip.shape[-1] for clip in clips]):
            batch = torch.cat([clips[position].to(clips[0].device) for position in group])
            parts |= zip(group, self._encode_batch(batch, depth), strict=True)
        return Tokens.batch([parts[position] for position in range(len(clips))])

    def decode(self, tokens: Tokens) -> Tensor:
        """Decode tokens of any of `depths` codebooks.

        Args:
            tokens: of this codec; `tokens(codes)` makes them from bare codes.

        Returns:
            wav `[B, C, num_samples]` of the length that was encoded, on the device of the tokens.
            Clips of different lengths are followed by zeros: `tokens.unpad(wav)` cuts them off.

        Raises:
            ValueError: if the tokens are of another codec, or their frames don't fit their length.
        """
        self.check_tokens(tokens)
        if tokens.clips is None:
            return self._decode_batch(tokens)
        parts: dict[int, Tensor] = {}
        for group in equal_groups(tokens.clips):
            batch = Tokens.batch([tokens[position] for position in group])
            parts |= zip(group, torch.split(self._decode_batch(batch), 1), strict=True)
        length = tokens.num_samples
        return torch.cat([fit_length(parts[position], length) for position in range(len(tokens))])

    def tokens(self, codes: Tensor | tuple[Tensor, ...], num_samples: int | None = None) -> Tokens:
        """Return codes, such as a language model writes them, as tokens of this codec.

        Args:
            codes: `[B, K, T]` int64, or a tuple of `[B, T_k]` for codebooks of different frame
                rates, of the first K codebooks.
            num_samples: of the audio; default as many as the frames span.

        Raises:
            ValueError: if the codes have another shape or type, or values that the codebooks lack.
        """
        if isinstance(codes, tuple):
            depth = len(codes)
        else:
            check_tensor(codes, "codes", "[B, K, T]")
            depth = codes.shape[1] if codes.ndim == 3 else 0
        if not 1 <= depth <= self.num_codebooks:
            shape = "a tuple" if isinstance(codes, tuple) else list(codes.shape)
            raise ValueError(f"codes must be [B, 1..{self.num_codebooks}, frames], got {shape}")
        if not self.frame_rates:
            raise ValueError(f"{self.name} has no frames of a fixed length: decode needs its side")
        tokens = Tokens(
            codes,
            frame_rates=self.frame_rates[:depth],
            codebook_sizes=self.codebook_sizes[:depth],
            sample_rate=self.sample_rate,
            num_samples=num_samples or 0,
        )
        if num_samples is None:
            spanned = int(tokens.padded_duration * self.sample_rate + 1e-6)
            return replace(tokens, num_samples=spanned)
        return tokens

    def check_tokens(self, tokens: Tokens) -> None:
        """Raise ValueError unless these are tokens of the first codebooks of this codec."""
        self._check_codebooks()
        if not isinstance(tokens, Tokens):
            raise ValueError(
                f"decode takes Tokens, got {type(tokens).__name__}; "
                f"codec.tokens(codes) makes them from codes [B, K, T]"
            )
        depth = tokens.num_codebooks
        got = (tokens.sample_rate, tokens.frame_rates, tokens.codebook_sizes)
        rates = self.frame_rates[:depth] or tokens.frame_rates  # none: they depend on the clip
        own = (self.sample_rate, rates, self.codebook_sizes[:depth])
        if got != own:
            raise ValueError(
                f"tokens of {got[0]} Hz audio, frame rates {got[1]} and codebook sizes {got[2]} "
                f"are not of {self.name}: {own[0]} Hz, {own[1]} and {own[2]}"
            )
        self.check_depth(depth)

    def stream(self, num_codebooks: int | None = None) -> Stream:
        """Begin to encode audio as it comes, with the first `num_codebooks` codebooks.

        The codes of all pieces, joined, are those of `encode`. Sums are rounded in another order,
        so where two entries are about equally near the other one may be taken.

        Returns:
            Stream: `push(wav [B, C, T])`, any T, returns the codes `[B, K, frames]` that are
            certain by then; `finish()` returns the rest.

        Raises:
            ValueError: if the codec has no streams, or `num_codebooks` is not one of `depths`.
        """
        self._check_streaming()
        depth = self.check_depth(num_codebooks)
        return Stream(self._encode_layer(depth), self, "wav")

    def decode_stream(self) -> Stream:
        """Begin to decode codes as they come, of any one number of codebooks.

        Returns:
            Stream: `push(codes [B, K, frames])` returns the wav `[B, C, T]` that is certain by
            then; `finish()` returns the rest. Joined, and cut to the length, it is `decode`'s.

        Raises:
            ValueError: if the codec has no streams.
        """
        self._check_streaming()
        return Stream(self._decode_layer(), self, "codes")

    def __repr__(self) -> str:
        return codec_line(self)

    def _repr_html_(self) -> str:
        return card(self)

    @abstractmethod
    def _encode(self, wav: Tensor, depth: int) -> Tokens:
        """Encode a checked batch `[B, C, T]` on the codec's device with `depth` codebooks."""

    @abstractmethod
    def _decode(self, tokens: Tokens) -> Tensor:
        """Decode checked tokens of equally long clips to wav `[B, C, num_samples or more]`."""

    def _encode_layer(self, depth: int) -> Layer:
        raise NotImplementedError(f"{type(self).__name__} is streaming and lacks _encode_layer")

    def _decode_layer(self) -> Layer:
        raise NotImplementedError(f"{type(self).__name__} is streaming and lacks _decode_layer")

    def _encode_batch(self, wav: Tensor, depth: int) -> Tokens:
        with torch.inference_mode(), self._computing():
            tokens = self._encode(self._inward(wav), depth)
        # copied out here: autograd refuses to work on tensors of inference mode
        return tokens.map_arrays(lambda each: each.to(wav.device, copy=True))

    def _decode_batch(self, tokens: Tokens) -> Tensor:
        device = tokens.device
        with torch.inference_mode(), self._computing():
            wav = self._decode(tokens.map_arrays(self._inward))
        if wav.shape[-1] < tokens.num_samples:
            raise ValueError(
                f"the codes decode to {wav.shape[-1]} samples, {tokens.num_samples} were encoded"
            )
        return wav[..., : tokens.num_samples].to(device, copy=True)

    def _converted(self, convert: Callable[[Any], R], network: Any) -> R:
        """Return the quantizer that `convert` makes of a network of a package, made once.

        It is kept beside the modules, not among them: its codebooks are the network's, and a state
        dict with both would say them twice. It is made anew where the codec has moved since.
        """
        held = self.__dict__.get("_held_rvq")
        if held is None or next(tensors_of(held)).device != self.device:
            with torch.inference_mode(False):  # or codebooks made within it could not be changed
                held = convert(network).to(self.device)
            self.__dict__["_held_rvq"] = held
        return held

    def _check_codebooks(self) -> None:
        if not self.num_codebooks:
            raise ValueError(
                f"{self.name} has no codebooks, only latents: neuralcodec.load('{self.name}+rvq') "
                f"fits a residual vector quantizer on them"
            )

    def _check_streaming(self) -> None:
        self._check_codebooks()
        if not self.is_streaming:
            raise ValueError(
                f"{self.name} has no streams; neuralcodec.core.chunks codes long audio in chunks"
            )
