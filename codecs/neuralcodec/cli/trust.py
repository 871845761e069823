"""Checks of the codec, the settings and the weights that a file of tokens names.

A file from an untrusted source must not determine what decoding imports or loads.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralcodec.bitstream import Header, Layout
    from neuralcodec.core.codec import Codec


def check_name(named: str, given: str | None) -> None:
    """Raise ValueError unless the codec that a file names may be imported.

    A codec may be imported if it is built in, is an entry point of an installed distribution, or is
    named by the user too.

    Args:
        named: name of the codec in the file.
        given: name of the codec that the user gave, or None.
    """
    from neuralcodec.core.names import unknown
    from neuralcodec.core.registry import RVQ_SUFFIX, is_registered, names

    if given is not None and given != named:
        raise ValueError(f"the file is of codec {named!r}, not of --codec {given}")
    if given is None and ":" in named:
        raise ValueError(
            f"the file names the codec {named!r}, whose code decoding would import; if you trust "
            f"it, say so with --codec {named}"
        )
    if ":" not in named and not is_registered(named):
        raise unknown("codec", named.removesuffix(RVQ_SUFFIX), names())


def names_files(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings of a codec that may name a file to load.

    These are settings whose type includes a path and, for codecs of other distributions, about
    which nothing is known, all settings whose value is a text.
    """
    from neuralcodec.core.loading import parameters_of
    from neuralcodec.core.registry import REGISTRY, RVQ_SUFFIX

    parameters = parameters_of(name)
    found = [each.name for each in parameters if "Path" in str(each.annotation)]
    if name.removesuffix(RVQ_SUFFIX) not in REGISTRY:
        found += [key for key, value in settings.items() if isinstance(value, str)]
    return found


def decoding_settings(header: "Header", given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a file, updated by those that the user gave.

    Raises:
        ValueError: if the user did not give those that name files.
    """
    from neuralcodec.bitstream.settings import NAMES_FILES

    missing = sorted(set(header.needs) - given.keys())
    if missing:
        raise ValueError(
            f"encoded with {', '.join(missing)}, which no file holds; "
            f"give {' '.join(f'--set {name}=...' for name in missing)}"
        )
    loose = set(names_files(header.codec, header.settings)) & header.settings.keys()
    loose -= NAMES_FILES.keys() | given.keys()
    if loose:
        raise ValueError(
            f"the file sets {', '.join(sorted(loose))}, which may name something to load; "
            f"give it with --set if you trust it"
        )
    return {**header.settings, **given}


def _fits(codec: "Codec", clip: "Layout") -> bool:
    depth = len(clip.codebook_sizes)
    rates = codec.frame_rates[:depth] or clip.frame_rates  # none: they depend on the clip
    return (
        codec.codebook_sizes[:depth] == clip.codebook_sizes
        and len(rates) == depth
        and all(map(math.isclose, rates, clip.frame_rates))
    )


def check_codec(codec: "Codec", header: "Header") -> None:
    """Raise ValueError unless the sample rate, frame rates and sizes of a codec fit a file."""
    if codec.sample_rate == header.sample_rate and all(_fits(codec, c) for c in header.clips):
        return
    first = header.clips[0].books
    books = " + ".join(f"{each.count} codebooks of {each.size} entries" for each in first)
    own = "no codebooks"
    if codec.num_codebooks:
        own = f"{codec.num_codebooks} of {codec.codebook_sizes[0]} entries"
    raise ValueError(
        f"the file holds {books} for audio at {header.sample_rate} Hz; "
        f"{header.codec!r} with these settings has {own} at {codec.sample_rate} Hz, "
        f"or other frame rates"
    )


def _codebooks_digest(codec: "Codec") -> str:
    """Return the digest that files of version 1 hold, which covers the codebooks only."""
    from neuralcodec.core.latents import LatentCodec

    if not isinstance(codec, LatentCodec):
        return ""
    numbers = codec.rvq.codebooks.detach().cpu().numpy().astype("<f4")
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


def check_digest(codec: "Codec", header: "Header") -> None:
    """Raise ValueError unless a codec has the weights with which a file was encoded."""
    if not header.digest:  # of old files, also where a codec has no quantizer of ours
        return
    is_old = header.version == 1
    what = "codebooks" if is_old else "weights"
    digest = _codebooks_digest(codec) if is_old else codec.digest[:16]
    if header.digest != digest:
        raise ValueError(
            f"encoded with {what} {header.digest}, this codec has {digest or 'none'}: trained or "
            f"fitted on other audio, elsewhere, or by another version; --any-weights decodes anyway"
        )
