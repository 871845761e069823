"""The published files that the codecs load: where they are, under which licence, their checksum.

A file of the Hugging Face hub is named at a commit. Checksums are in full or as many leading digits
as are known. Lyra's were computed on its files; the others are those that publishers and several
projects' lists of pinned files give, and have not been held against a download of ours. Where none
could be found there is None, and the first download is trusted; see `checksums`.
"""

from dataclasses import dataclass

HUB = "https://huggingface.co"
"""Where the Hugging Face hub is, unless the environment's HF_ENDPOINT says otherwise."""


@dataclass(frozen=True)
class Checkpoint:
    """A published file.

    Attributes:
        path: where it lies within a folder of weights, such as "lyra/lyragan.tflite".
        url: where it is published, at a pinned revision.
        sha256: of its content in hex digits, or as many leading ones as are published; None where
            none is known.
        licence: of the weights.
    """

    path: str
    url: str
    sha256: str | None
    licence: str


def _encodec(file: str, sha256: str) -> Checkpoint:
    # The package's release 0.1.1, which names these files, is CC-BY-NC-4.0 as a whole; the
    # repository's code became MIT later.
    url = f"https://dl.fbaipublicfiles.com/encodec/v0/{file}"
    return Checkpoint(f"encodec/{file}", url, sha256, "CC-BY-NC-4.0")


def _dac(model: str, tag: str, file: str, sha256: str) -> Checkpoint:
    url = f"https://github.com/descriptinc/descript-audio-codec/releases/download/{tag}/{file}"
    # its name is the one in the cache of the package: the published ones don't tell the models
    return Checkpoint(f"dac/weights_{model}_8kbps_{tag}.pth", url, sha256, "MIT")


def _lyra(file: str, sha256: str) -> Checkpoint:
    url = f"https://raw.githubusercontent.com/google/lyra/v1.3.2/lyra/model_coeffs/{file}"
    return Checkpoint(f"lyra/{file}", url, sha256, "Apache-2.0")


def _hub(
    name: str, model: str, revision: str, licence: str, config: str, weights: str, *sums: str | None
) -> dict[str, Checkpoint]:
    """Give the configuration and the weights of a hub model; `sums` in this order."""
    url = f"{HUB}/{model}/resolve/{revision}"
    return {
        key: Checkpoint(f"{model}/{file}", f"{url}/{file}", sha256, licence)
        for key, file, sha256 in zip((f"{name}_config", name), (config, weights), sums, strict=True)
    }


def _vocos(name: str, revision: str, *sums: str | None) -> dict[str, Checkpoint]:
    model = f"charactr/{name.replace('_', '-')}"
    return _hub(name, model, revision, "MIT", "config.yaml", "pytorch_model.bin", *sums)


def _snac(name: str, revision: str, *sums: str | None) -> dict[str, Checkpoint]:
    model = f"hubertsiuzdak/{name}"
    return _hub(name, model, revision, "MIT", "config.json", "pytorch_model.bin", *sums)


CHECKPOINTS: dict[str, Checkpoint] = {
    "encodec_24khz": _encodec(
        "encodec_24khz-d7cc33bc.th",
        "d7cc33bcf1aad7f2dad9836f36431530744abeace3ca033005e3290ed4fa47bf",
    ),
    "encodec_48khz": _encodec("encodec_48khz-7e698e3e.th", "7e698e3e"),  # all that the name tells
    "dac_44khz": _dac(
        "44khz",
        "0.0.1",
        "weights.pth",
        "a88eed82a7024ccc1facdb1e605c4c2f99281c8118c22c9895ffa846d8fb61aa",
    ),
    "dac_24khz": _dac(
        "24khz",
        "0.0.4",
        "weights_24khz.pth",
        "44bad592fc393e03eb0be7a5120b7d487fe9612fa41269dc03fca3d4b87e20ad",
    ),
    "dac_16khz": _dac(
        "16khz",
        "0.0.5",
        "weights_16khz.pth",
        "95ab7176b67137d4d4c6c54b8d6ef3cea797faec228cb03ad084badcad570b4d",
    ),
    **_vocos(
        "vocos_mel_24khz",
        "0feb3fdd929bcd6649e0e7c5a688cf7dd012ef21",
        "da9033922f969a47f0c160010226919e59f27761fd5066f3828d46de6650b0fc",
        "97ec976ad1fd67a33ab2682d29c0ac7df85234fae875aefcc5fb215681a91b2a",
    ),
    **_vocos("vocos_encodec_24khz", "4e61d082c08045a4c11e5b148ad93b1d0c591a14", None, None),
    "lyra_encoder": _lyra(
        "soundstream_encoder.tflite",
        "237da0b16226fb0a68d49551c81bebf614e42142af72764448359f68581e88f1",
    ),
    "lyra_quantizer": _lyra(
        "quantizer.tflite", "841ee05989687d32d1f616a8ad1419fc7eda37599d3c05c7cf5a0d60ccf8ac5c"
    ),
    "lyra_decoder": _lyra(
        "lyragan.tflite", "50e7839cda4f30599a3a34cfaddcd9c98449b049eee884e1a74295780448ad06"
    ),
    **_hub(
        "mimi",
        "kyutai/mimi",
        "89091b3e466eb6a9d11e537bf26b144f194978f7",
        "CC-BY-4.0",
        "config.json",
        "model.safetensors",
        "aca6f44b04f7bc2e7466b71597d2d51e463ed1cf3cd7025d8848595580546c36",
        "bac7e85083dcded655d24eaadde7e6eea34c0da1b35fa2d284e641bd2b942a5e",
    ),
    **_hub(
        "xcodec",
        "hf-audio/xcodec-hubert-librispeech",
        "main",  # no commit of it is named anywhere that we could look
        "see its model card",
        "config.json",
        "model.safetensors",
        None,
        None,
    ),
    **_snac(
        "snac_24khz",
        "d73ad176a12188fcf4f360ba3bf2c2fbbe8f58ec",
        "e119b9366d4f5e73c6ca5f31137c4ff361578bbb132953a5203afe037c4012be",
        "4b8164cc6606bfa627f1a784734c1e539891518f1191ed9194fe1e3b9b4bff40",
    ),
    **_snac(
        "snac_32khz",
        "c84c6ac842dc7a44a6fb0f3b576ce94b48a7780f",
        None,
        "bfee2f057c1e287443786bedab377b5176b430e911417683977b7af71ea3ba65",
    ),
    **_snac(
        "snac_44khz",
        "873ebef9718b89660340c6f55a2b515e98cfa1d9",
        None,
        "b0a676cbdc8d1cc53186f6d777bc956fb7932ceacdc657a4c3741646e9e7ead0",
    ),
}
"""Every published file by name."""
