"""Conversion of audio with any number of channels to the number of channels of a codec."""

import math
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_CANCELS_DB = 30
"""Level in dB by which the sum of channels that cancel is below the loudest channel, at least.

The sum of uncorrelated channels is at least as loud as the loudest one.
"""


class Channels(StrEnum):
    """Ways to encode several channels: mixed down unless the codec has as many, or each alone."""

    MIX = "mix"
    EACH = "each"


def _level_db(wav: "Tensor") -> float:
    power = float(wav.double().square().mean())
    return 10 * math.log10(power) if power else -math.inf


def _check_mix(mixed: "Tensor", wav: "Tensor", name: str) -> None:
    """Raise ValueError if the channels of `wav [C, T]` cancel when they are mixed down."""
    loudest = max(map(_level_db, wav))
    level = _level_db(mixed)
    if level + 20 * math.log10(len(wav)) < loudest - _CANCELS_DB:
        raise ValueError(
            f"the {len(wav)} channels of {name} cancel: the loudest has {loudest:.1f} dB, their "
            f"mix {level:.1f} dB; --channels each codes every channel on its own"
        )


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
    from neuralcodec.core.audio import mix_down

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
    mixed = mix_down(wav)
    _check_mix(mixed, wav, name)
    done = f"mixed down to 1 for {codec}" if channels == 1 else f"mixed down to 1 and {repeated}"
    return [mixed.expand(channels, -1)], (
        f"{name} has {count} channels, {done}; --channels each codes every channel on its own"
    )
