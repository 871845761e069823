"""Native encode and decode calls of the packages that our codecs wrap.

The peer of a codec is the wrapper's own network, with weight normalisation folded in, called as
its package documents, in inference mode. The remaining difference is the cost of the wrapper.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]


@dataclass(frozen=True)
class Package:
    """The package's own calls for one batch: encoding of `wav`, and decoding of its codes."""

    encode: Call
    decode: Call


def _encodec(codec: Any, wav: Tensor) -> Package:
    return _encodec_at(codec, wav, codec.num_codebooks)


def _encodec_at(codec: Any, wav: Tensor, depth: int) -> Package:
    network = codec.network
    kbps = depth * math.log2(codec.codebook_sizes[0]) * network.frame_rate / 1000
    network.set_target_bandwidth(kbps)
    frames = network.encode(wav)
    return Package(lambda: network.encode(wav), lambda: network.decode(frames))


def _dac(codec: Any, wav: Tensor) -> Package:
    network = codec.network

    def encode() -> Any:
        return network.encode(network.preprocess(wav, codec.sample_rate))

    codes = encode()[1]
    return Package(encode, lambda: network.decode(network.quantizer.from_codes(codes)[0]))


def _snac(codec: Any, wav: Tensor) -> Package:
    network = codec.network
    codes = network.encode(wav)
    return Package(lambda: network.encode(wav), lambda: network.decode(codes))


def _huggingface(codec: Any, wav: Tensor) -> Package:
    network = codec.network
    codes = network.encode(wav).audio_codes
    return Package(lambda: network.encode(wav), lambda: network.decode(codes))


def _mimi(codec: Any, wav: Tensor) -> Package:
    network, depth = codec.network, codec.num_codebooks
    codes = network.encode(wav, num_quantizers=depth).audio_codes
    return Package(lambda: network.encode(wav, num_quantizers=depth), lambda: network.decode(codes))


def _vocos(codec: Any, wav: Tensor) -> Package:
    network = codec.network
    if codec.name == "vocos_mel_24khz":
        mel = network.feature_extractor(wav[:, 0])
        return Package(lambda: network.feature_extractor(wav[:, 0]), lambda: network.decode(mel))
    vocos, below = network["vocos"], _encodec_at(codec.encodec, wav, codec.num_codebooks)
    codes = below.encode()[0][0]
    bandwidth_id = torch.tensor([codec.depths.index(codec.num_codebooks)])

    def decode() -> object:
        return vocos.decode(vocos.feature_extractor(codes), bandwidth_id=bandwidth_id)

    return Package(below.encode, decode)


_FAMILIES: dict[str, Callable[[Any, Tensor], Package]] = {
    "encodec": _encodec,
    "dac": _dac,
    "snac": _snac,
    "mimi": _mimi,
    "xcodec": _huggingface,
    "vocos": _vocos,
}


def package(codec: Any, wav: Tensor) -> Package | None:
    """Return the package's own calls for a codec, or None if it has none.

    Args:
        codec: one of our codecs.
        wav: `[B, C, T]` at its sample rate.
    """
    family = _FAMILIES.get(codec.name.partition("_")[0])
    if family is None:
        return None
    with torch.inference_mode():
        return family(codec, wav)
