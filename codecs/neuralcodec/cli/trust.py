"""What decoding believes of a file: its codec's name, its settings, and which weights it needs.

A file from somebody else must not decide what is imported or loaded here.
"""

import hashlib
import inspect
import math
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from neuralcodec.bitstream import Header, Layout
    from neuralcodec.core.codec import Codec

_CODECS = "neuralcodec.codecs"
"""Group of the entry points of codecs."""


def _is_built_in(name: str) -> bool:
    from neuralcodec.core.codec import RVQ_SUFFIX
    from neuralcodec.core.registry import REGISTRY

    return name.removesuffix(RVQ_SUFFIX) in REGISTRY


def check_name(named: str, given: str | None) -> None:
    """Raise ValueError unless the codec that a file names may be imported.

    That is one that is built in or an entry point of an installed distribution, or that the user
    names too.

    Args:
        named: by the file.
        given: by the user; None for none.
    """
    from neuralcodec.core.codec import RVQ_SUFFIX
    from neuralcodec.core.names import unknown
    from neuralcodec.core.registry import REGISTRY

    if given is not None and given != named:
        raise ValueError(f"the file is of codec {named!r}, not of --codec {given}")
    if given is None and ":" in named:
        raise ValueError(
            f"the file names the codec {named!r}, whose code decoding would import; if you trust "
            f"it, say so with --codec {named}"
        )
    plain = named.removesuffix(RVQ_SUFFIX)
    known = {*REGISTRY, *(point.name for point in entry_points(group=_CODECS))}
    if ":" not in named and plain not in known:
        raise unknown("codec", plain, known)


def names_files(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the settings of a codec that may name something to load.

    Those whose type has a path; and for codecs of other distributions all texts, since nothing is
    known of them.
    """
    from neuralcodec.core.codec import RVQ_SUFFIX, find

    makers: list[Any] = [find(name.removesuffix(RVQ_SUFFIX))]
    if name.endswith(RVQ_SUFFIX):
        from neuralcodec.latent import requantized

        makers.append(requantized.load)
    parameters = [each for make in makers for each in inspect.signature(make).parameters.values()]
    found = [each.name for each in parameters if "Path" in str(each.annotation)]
    if not _is_built_in(name):
        found += [key for key, value in settings.items() if isinstance(value, str)]
    return found


def decoding_settings(header: "Header", given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a file joined with the user's.

    Raises:
        ValueError: if the user does not give those that name files.
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
    """Raise ValueError unless the rates and sizes of a codec are those of a file."""
    if codec.sample_rate == header.sample_rate and all(_fits(codec, c) for c in header.clips):
        return
    first = header.clips[0].books
    books = " + ".join(f"{each.count} codebooks of {each.size} entries" for each in first)
    raise ValueError(
        f"the file holds {books} for audio at {header.sample_rate} Hz; "
        f"{header.codec!r} with these settings has {codec.num_codebooks} of "
        f"{codec.codebook_sizes[0]} entries at {codec.sample_rate} Hz, or other frame rates"
    )


def _codebooks_digest(codec: "Codec") -> str:
    """Return the digest in files of version 1: of the codebooks alone."""
    codebooks = getattr(getattr(codec, "rvq", None), "codebooks", None)
    if codebooks is None:
        return ""
    numbers = codebooks.detach().cpu().numpy().astype("<f4")
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


def _learned(codec: Any, path: str = "") -> "dict[str, Tensor]":
    """Return the weights of networks and the codebooks of a codec, and of one within it."""
    network, rvq = getattr(codec, "network", None), getattr(codec, "rvq", None)
    found = dict(network.state_dict(prefix=f"{path}network.")) if network is not None else {}
    if rvq is not None:
        found[f"{path}codebooks"] = rvq.codebooks
    inner = getattr(codec, "codec", None)
    return found if inner is None else found | _learned(inner, f"{path}codec.")


def digest_of(codec: "Codec") -> str:
    """Return the digest of all that a codec has learned, 64 hex digits; "" for nothing."""
    declared: str | None = getattr(codec, "digest", None)
    if declared is not None:
        return declared
    learned = _learned(codec)
    digest = hashlib.sha256()
    for name in sorted(learned):
        value = learned[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)};".encode())
        digest.update(value.view(-1).numpy().tobytes())
    return digest.hexdigest() if learned else ""


def check_digest(codec: "Codec", header: "Header") -> None:
    """Raise ValueError unless a codec has learned what the one that wrote a file had."""
    is_old = header.version == 1
    what = "codebooks" if is_old else "weights"
    digest = _codebooks_digest(codec) if is_old else digest_of(codec)[:16]
    if header.digest not in ("", digest):
        raise ValueError(
            f"encoded with {what} {header.digest}, this codec has {digest or 'none'}: trained or "
            f"fitted on other audio, elsewhere, or by another version; --any-weights decodes anyway"
        )
