"""Digests of what a codec has learned."""

import hashlib
from collections.abc import Mapping

from torch import Tensor


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors with their names, types and shapes, as 64 hex digits.

    The names' order does not matter. Tensors on the meta device count without their values.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach()
        digest.update(f"{name} {value.dtype} {list(value.shape)};".encode())
        if not value.is_meta:
            digest.update(value.cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


def joined(*digests: str) -> str:
    """Return the digest of several digests, in their order."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()
