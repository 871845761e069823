"""Conversion of audio with any number of channels to the number of channels of a codec."""

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Channels(StrEnum):
    """Ways to encode several channels: mixed down unless the codec has as many, or each alone."""

    MIX = "mix"
    EACH = "each"


def _mixed(wav: "Tensor", name: str) -> "Tensor":
    from neuralcodec.core.audio import mix_down

    try:
        return mix_down(wav)
    except ValueError as error:
        raise ValueError(
            f"{name}: {error}: --channels each codes every channel on its own"
        ) from error


def fit(
    wav: "Tensor", channels: int, mode: Channels, name: str, codec: str
) -> tuple[list["Tensor"], str]:
    """Return audio as clips with the number of channels of a codec, and how it was changed.

    Args:
        wav: audio `[C, T]`.
        channels: number of channels of the codec.
        mode: whether other numbers of channels are mixed down to one, or every channel becomes a
            clip. A single channel is repeated if the codec has several.
        name: name of the audio, for messages.
        codec: name of the codec, for messages.

    Returns:
        Clips `[channels, T]`: one, or one per channel; and a sentence that states the change, ""
        if there is none.

    Raises:
        ValueError: if the channels cancel when they are mixed down.
    """
    count = len(wav)
    repeated = f"repeated for the {channels} of {codec}"
    if mode is Channels.EACH and count > 1:
        clips = [channel.expand(channels, -1) for channel in wav]
        said = f"each of the {count} channels of {name} is {repeated}"
        return clips, said if channels > 1 else ""
    if count == channels:
        return [wav], ""
    if count == 1:
        return [wav.expand(channels, -1)], f"{name} has 1 channel, {repeated}"
    mixed = _mixed(wav, name)
    done = f"mixed down to 1 for {codec}" if channels == 1 else f"mixed down to 1 and {repeated}"
    return [mixed.expand(channels, -1)], (
        f"{name} has {count} channels, {done}; --channels each codes every channel on its own"
    )
