"""What every wrapper asks of its input: numbers of codebooks, tokens, codes and latents."""

import torch
from torch import Tensor

from neuralcodec.core.audio import check_wav
from neuralcodec.core.codec import Codec
from neuralcodec.core.tokens import Tokens


def check_piece(wav: Tensor, *, channels: int) -> None:
    """Raise ValueError unless `wav` is as `check_wav` has it, or `[B, channels, 0]`."""
    if wav.ndim != 3 or wav.shape[1] != channels or wav.shape[-1] > 0:
        check_wav(wav, channels=channels)


def check_depth(num_codebooks: int | None, allowed: range | tuple[int, ...]) -> int:
    """Give a number of codebooks, by default the most, or raise ValueError if it isn't allowed."""
    if num_codebooks is None:
        return max(allowed)
    if type(num_codebooks) is not int or num_codebooks not in allowed:
        these = f"1..{max(allowed)}" if isinstance(allowed, range) else f"one of {[*allowed]}"
        raise ValueError(f"num_codebooks must be {these}, got {num_codebooks}")
    return num_codebooks


def check_tokens(codec: Codec, tokens: Tokens) -> None:
    """Raise ValueError unless tokens have the rates and sizes of the first codebooks of `codec`."""
    depth = tokens.num_codebooks
    got = (tokens.sample_rate, tokens.frame_rates, tokens.codebook_sizes)
    own = (codec.sample_rate, codec.frame_rates[:depth], codec.codebook_sizes[:depth])
    if got != own:
        raise ValueError(
            f"tokens of {got[0]} Hz audio, frame rates {got[1]} and codebook sizes {got[2]} are "
            f"not of {codec.name}: {own[0]} Hz, {own[1]} and {own[2]}"
        )


def codes_of(codec: Codec, tokens: Tokens) -> Tensor:
    """Give the codes `[B, K, T]` of tokens, or raise ValueError if they are not of `codec`."""
    check_tokens(codec, tokens)
    return torch.stack(tokens.streams, dim=1)


def check_frames(frames: int, needed: int, num_samples: int) -> None:
    """Raise ValueError unless there are just as many frames as the samples take."""
    if frames != needed:
        raise ValueError(f"{num_samples} samples are {needed} frames, got {frames}")


def check_cover(frames: int, hop_length: float, num_samples: int) -> None:
    """Raise ValueError unless there are samples, and so many frames cover them."""
    if not 0 < num_samples <= frames * hop_length:
        raise ValueError(f"{frames} frames don't cover {num_samples} samples")


def check_codes(codec: Codec, codes: Tensor) -> None:
    """Raise ValueError unless `codes` are int64 `[B, K, T]` of the first codebooks of `codec`."""
    if codes.ndim != 3 or not 1 <= codes.shape[1] <= codec.num_codebooks:
        raise ValueError(
            f"codes must be [B, 1..{codec.num_codebooks}, frames], got {list(codes.shape)}"
        )
    depth = codes.shape[1]
    rates, sizes = codec.frame_rates[:depth], codec.codebook_sizes[:depth]
    Tokens(codes, rates, sizes, codec.sample_rate, 0)  # refuses other types and values


def check_latents(z: Tensor, dim: int) -> None:
    """Raise ValueError unless `z` is `[B, dim, T]`, float, T >= 1."""
    if z.ndim != 3 or z.shape[1] != dim or 0 in z.shape or not z.is_floating_point():
        raise ValueError(
            f"z must be float [B, {dim}, T] and not empty, got {z.dtype} {list(z.shape)}"
        )
