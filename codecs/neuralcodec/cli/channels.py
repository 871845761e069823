"""Audio of any number of channels for a codec that has its own number of them."""

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Channels(StrEnum):
    """What encoding does with channels that the codec does not have."""

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
    """Return audio as clips of the channels that a codec has, and what was done to it.

    Args:
        wav: `[C, T]`.
        channels: of the codec.
        mode: whether other numbers of channels are mixed down to one, or every channel becomes a
            clip. One channel is repeated where the codec has several.
        name: of the audio, for messages.
        codec: its name, for messages.

    Returns:
        Clips `[channels, T]`: one, or one per channel; and a sentence, "" if nothing was changed.

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
