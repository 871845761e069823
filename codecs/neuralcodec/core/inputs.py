"""Checks of what a codec is given: audio, numbers of codebooks, latents and codes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from neuralcodec.core.audio import check_tensor, check_wav


def as_batch(wav: Tensor, channels: int) -> Tensor:
    """Return audio `[T]`, `[C, T]` or `[B, C, T]` as a checked batch `[B, C, T]`.

    Raises:
        ValueError: if it is no float tensor of such a shape, is empty, not finite, or far
            outside ±1 (see `check_wav`).
    """
    check_tensor(wav, "wav", f"[B, {channels}, T]")
    batch = wav[(None,) * (3 - wav.ndim)] if wav.ndim in (1, 2) else wav
    check_wav(batch, channels=channels)
    return batch


def _as_lengths(lengths: Sequence[int] | Tensor, batch: Tensor) -> list[int]:
    given = lengths.tolist() if isinstance(lengths, Tensor) else [int(each) for each in lengths]
    longest = batch.shape[-1]
    if len(given) != len(batch) or not all(1 <= each <= longest for each in given):
        raise ValueError(
            f"lengths must be {len(batch)} numbers of samples in 1..{longest}, one per clip, "
            f"got {given}"
        )
    return given


def as_clips(
    wav: Tensor | Sequence[Tensor], lengths: Sequence[int] | Tensor | None, channels: int
) -> Tensor | list[Tensor]:
    """Return audio as one batch `[B, C, T]`, or as clips `[1, C, T_i]` where lengths differ.

    Args:
        wav: a batch as for `as_batch`, or a sequence of clips `[T]`, `[C, T]` or `[1, C, T]`.
        lengths: samples of each clip of a padded batch; None if all are full.
        channels: of the audio.

    Raises:
        ValueError: as `as_batch`; if there is no clip, a clip of a sequence is a batch of several,
            or `lengths` does not fit the batch or stands beside a sequence.
    """
    if isinstance(wav, list | tuple):
        if lengths is not None:
            raise ValueError("lengths belong to a padded batch [B, C, T]; a list has its own")
        if not wav:
            raise ValueError("wav must hold at least one clip, got an empty list")
        clips = [as_batch(clip, channels) for clip in wav]
        if any(len(clip) > 1 for clip in clips):
            sizes = [len(clip) for clip in clips]
            raise ValueError(f"clips of a list must be [C, T], got batches of {sizes} clips")
    else:
        check_tensor(wav, "wav", "[B, C, T] or a list of them")
        assert isinstance(wav, Tensor)
        batch = as_batch(wav, channels)
        if lengths is None:
            return batch
        given = _as_lengths(lengths, batch)
        clips = [batch[i : i + 1, :, :length] for i, length in enumerate(given)]
    if len({clip.shape[-1] for clip in clips}) == 1:
        return torch.cat([clip.to(clips[0].device) for clip in clips])
    return clips


def equal_groups(keys: Sequence[object]) -> list[list[int]]:
    """Return the positions of equal keys, one list per key, in the order of first appearance.

    >>> equal_groups([3, 5, 3])
    [[0, 2], [1]]
    """
    groups: dict[object, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    return list(groups.values())


def check_depth(num_codebooks: int | None, allowed: Sequence[int]) -> int:
    """Return a number of codebooks, by default the largest.

    Raises:
        ValueError: if it is not one of `allowed`; names those.
    """
    if num_codebooks is None:
        return max(allowed)
    if type(num_codebooks) is not int or num_codebooks not in allowed:
        if len(allowed) == 1:
            these = str(allowed[0])
        elif list(allowed) == list(range(1, len(allowed) + 1)):
            these = f"1..{max(allowed)}"
        else:
            these = f"one of {[*allowed]}"
        raise ValueError(f"num_codebooks must be {these}, got {num_codebooks}")
    return num_codebooks


def check_beam(beam_width: int) -> int:
    """Return the width of a beam search, or raise ValueError if it is below 1."""
    if type(beam_width) is not int or beam_width < 1:
        raise ValueError(f"beam_width must be at least 1, got {beam_width}")
    return beam_width


def check_cover(frames: int, hop_length: float, num_samples: int) -> None:
    """Raise ValueError unless there are samples, and so many frames cover them."""
    if not 0 < num_samples <= frames * hop_length:
        raise ValueError(f"{frames} frames don't cover {num_samples} samples")


def check_frames(frames: int, needed: int, num_samples: int) -> None:
    """Raise ValueError unless there are exactly as many frames as the samples take."""
    if frames != needed:
        raise ValueError(f"{num_samples} samples are {needed} frames, got {frames}")


def check_latents(z: Tensor, dim: int) -> None:
    """Raise ValueError unless `z` is `[B, dim, T]`, float, T >= 1."""
    check_tensor(z, "z", f"[B, {dim}, T]")
    if z.ndim != 3 or z.shape[1] != dim or 0 in z.shape or not z.is_floating_point():
        raise ValueError(
            f"z must be float [B, {dim}, T] and not empty, got {z.dtype} {list(z.shape)}"
        )


def check_device(name: str, device_types: Sequence[str], device: str | int | torch.device) -> None:
    """Raise ValueError unless a codec can compute on a device.

    Args:
        name: of the codec.
        device_types: types of devices on which it runs; empty for any.
        device: a device or its name; torch must have it here.
    """
    try:
        kind = torch.device(device).type
        if device_types and kind not in device_types:
            raise ValueError(f"{name} runs on {' and '.join(device_types)} only, not on {device}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # by type of device
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {str(device)!r} can't be used here: {reason}") from error


def device_of(
    arguments: tuple[object, ...], keywords: Mapping[str, object]
) -> str | int | torch.device | None:
    """Return the device among the arguments of `nn.Module.to`, None if there is none."""
    given = keywords.get("device", arguments[0] if arguments else None)
    if isinstance(given, Tensor):
        return given.device
    return given if isinstance(given, str | int | torch.device) else None
