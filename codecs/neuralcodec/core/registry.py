"""The registry of codecs: for each name its module and class, its requirements and its rates.

The rates are listed here so that they can be shown without weights and without importing a model.
A test checks that they equal those of the built codec.

To add a codec, write its class in one file and add one entry here. A codec of another distribution
is found by an entry point of the group `neuralcodec.codecs`, or is named as `module:Class`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from neuralcodec.core import plugins
from neuralcodec.core.names import unknown
from neuralcodec.core.rates import nominal_rates

RVQ_SUFFIX = "+rvq"
"""Suffix to the name of a latent codec that adds our residual vector quantizer of its latents."""


@dataclass(frozen=True)
class Facts:
    """The properties of a codec that are known before it is built and do not depend on settings.

    Attributes:
        sample_rate: Hz.
        channels: number of audio channels.
        frame_rates: Hz, one per codebook; one for the latents of a codec without codebooks.
        codebook_sizes: entries, one per codebook; empty for a latent codec without codebooks.
        is_causal: whether a token depends on no audio later than its own frame.
        dim: width of the latents; None where the codec gives no access to them.
        depths: numbers of codebooks that the codec can encode to; empty for 1..K.
    """

    sample_rate: int
    channels: int
    frame_rates: tuple[float, ...]
    codebook_sizes: tuple[int, ...]
    is_causal: bool
    dim: int | None = None
    depths: tuple[int, ...] = ()

    @property
    def bitrates_kbps(self) -> tuple[float, ...]:
        """Nominal bitrate in kbit/s at each number of codebooks, in rising order."""
        depths = self.depths or range(1, len(self.codebook_sizes) + 1)
        return tuple(
            nominal_rates(self.frame_rates[:depth], self.codebook_sizes[:depth])[1]
            for depth in depths
        )


@dataclass(frozen=True)
class Entry:
    """The implementation of a codec and its requirements.

    Attributes:
        module: module of the class, imported when the codec is first used.
        attribute: name of the class.
        extra: pip extra that installs the packages it needs; None if the base install does.
        summary: description in one line.
        package: import name of the package that it wraps; None if the base install has it.
        fixed: settings of the class that this name determines.
        facts: its rates; None where they depend on settings.
        checkpoints: names in `neuralcodec.weights.CHECKPOINTS` of the files that it loads.
    """

    module: str
    attribute: str
    extra: str | None
    summary: str
    package: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    facts: Facts | None = None
    checkpoints: tuple[str, ...] = ()


_CLASSICAL = "neuralcodec.wrappers.classical.ffmpeg"
_ENCODEC = "neuralcodec.wrappers.encodec.codec"
_DAC = "neuralcodec.wrappers.dac"
_VOCOS = "neuralcodec.wrappers.vocos.codec"
_HUGGINGFACE = "neuralcodec.wrappers.transformers.codec"
_MIMI = "neuralcodec.wrappers.transformers.mimi"
_SNAC = "neuralcodec.wrappers.snac"


def _dac(model: str, sample_rate: int, hop_length: int, depth: int) -> Entry:
    return Entry(
        _DAC,
        "Dac",
        "codecs",
        f"DAC at {sample_rate / 1000:g} kHz (Kumar et al. 2023)",
        package="dac",
        fixed={"model": model},
        facts=Facts(
            sample_rate, 1, (sample_rate / hop_length,) * depth, (1024,) * depth, False, dim=1024
        ),
        checkpoints=(f"dac_{model}",),
    )


def _snac(
    model: str, sample_rate: int, hop_length: int, strides: tuple[int, ...], dim: int
) -> Entry:
    rates = tuple(sample_rate / hop_length / stride for stride in strides)
    return Entry(
        _SNAC,
        "Snac",
        "codecs",
        f"SNAC at {sample_rate / 1000:g} kHz, one frame rate per codebook (Siuzdak et al. 2024)",
        package="snac",
        fixed={"model": model},
        facts=Facts(sample_rate, 1, rates, (4096,) * len(strides), False, dim=dim),
        checkpoints=(f"snac_{model}_config", f"snac_{model}"),
    )


def _tiny(frame_rate: float, dim: int) -> Entry:
    return Entry(
        "neuralcodec.tiny.codec",
        "Tiny",
        None,
        f"tiny codec at {frame_rate:g} Hz, trained on speech; weights included",
        fixed={"model": f"{frame_rate:g}hz"},
        facts=Facts(16000, 1, (frame_rate,) * 8, (1024,) * 8, False, dim=dim),
    )


REGISTRY: dict[str, Entry] = {
    "tiny_25hz": _tiny(25.0, 128),
    "tiny_50hz": _tiny(50.0, 64),
    "tiny_100hz": _tiny(100.0, 32),
    "encodec_24khz": Entry(
        _ENCODEC,
        "Encodec24khz",
        "codecs",
        "EnCodec at 24 kHz (Defossez et al. 2022)",
        package="encodec",
        facts=Facts(24000, 1, (75.0,) * 32, (1024,) * 32, True, dim=128),
        checkpoints=("encodec_24khz",),
    ),
    "encodec_48khz": Entry(
        _ENCODEC,
        "Encodec48khz",
        "codecs",
        "EnCodec at 48 kHz, stereo, in segments of 1 s",
        package="encodec",
        facts=Facts(48000, 2, (150 / 0.99,) * 16, (1024,) * 16, False),
        checkpoints=("encodec_48khz",),
    ),
    "dac_44khz": _dac("44khz", 44100, 512, 9),
    "dac_24khz": _dac("24khz", 24000, 320, 32),
    "dac_16khz": _dac("16khz", 16000, 320, 12),
    "vocos_encodec_24khz": Entry(
        _VOCOS,
        "VocosEncodec",
        "codecs",
        "tokens of EnCodec, decoded by Vocos (Siuzdak 2023)",
        package="vocos",
        facts=Facts(24000, 1, (75.0,) * 16, (1024,) * 16, False, dim=128, depths=(2, 4, 8, 16)),
        checkpoints=("encodec_24khz", "vocos_encodec_24khz_config", "vocos_encodec_24khz"),
    ),
    "vocos_mel_24khz": Entry(
        _VOCOS,
        "VocosMel",
        "codecs",
        "log-mel frames, decoded by Vocos",
        package="vocos",
        facts=Facts(24000, 1, (93.75,), (), False, dim=100),
        checkpoints=("vocos_mel_24khz_config", "vocos_mel_24khz"),
    ),
    "lyra_v2": Entry(
        "neuralcodec.wrappers.lyra",
        "Lyra",
        "codecs",
        "SoundStream as in Lyra v2 (Zeghidour et al. 2021), speech",
        package="ai_edge_litert",
        facts=Facts(16000, 1, (50.0,) * 46, (16,) * 46, True, dim=64),
        checkpoints=("lyra_encoder", "lyra_quantizer", "lyra_decoder"),
    ),
    "mimi": Entry(
        _MIMI,
        "Mimi",
        "codecs",
        "Mimi, the codec of Moshi (Defossez et al. 2024)",
        package="transformers",
        facts=Facts(24000, 1, (12.5,) * 32, (2048,) * 32, True, dim=512),
        checkpoints=("mimi_config", "mimi"),
    ),
    "xcodec": Entry(
        _HUGGINGFACE,
        "XCodec",
        "codecs",
        "X-Codec, acoustic and semantic features in one code (Ye et al. 2024)",
        package="transformers",
        facts=Facts(16000, 1, (50.0,) * 8, (1024,) * 8, False, dim=1024),
        checkpoints=("xcodec_config", "xcodec"),
    ),
    "huggingface": Entry(
        _HUGGINGFACE,
        "HuggingFace",
        "codecs",
        "EnCodec, DAC, Mimi or X-Codec, given the name or folder of a transformers model",
        package="transformers",
    ),
    "snac_24khz": _snac("24khz", 24000, 512, (4, 2, 1), 768),
    "snac_32khz": _snac("32khz", 32000, 384, (8, 4, 2, 1), 1024),
    "snac_44khz": _snac("44khz", 44100, 384, (8, 4, 2, 1), 1024),
    "mdct": Entry(
        "neuralcodec.latent.mdct", "Mdct", None, "sine-window MDCT, exact without a quantizer"
    ),
    "mel": Entry("neuralcodec.latent.mel", "Mel", None, "log-mel frames, Griffin-Lim"),
    "opus": Entry(_CLASSICAL, "Opus", None, "Opus (RFC 6716), variable bitrate"),
    "mp3": Entry(_CLASSICAL, "Mp3", None, "MPEG layer III (LAME)"),
    "aac": Entry(_CLASSICAL, "Aac", None, "AAC-LC (FFmpeg)"),
    "codec2": Entry(
        "neuralcodec.wrappers.classical.codec2",
        "Codec2",
        None,
        "Codec 2 of Debian, 0.7-3.2 kbit/s, speech",
    ),
    "pcm": Entry("neuralcodec.wrappers.classical.pcm", "Pcm", None, "uniform samples of 1-16 bits"),
}
"""The entries of all built-in codecs by name."""

LatentName = Literal[
    "tiny_25hz",
    "tiny_50hz",
    "tiny_100hz",
    "encodec_24khz",
    "dac_44khz",
    "dac_24khz",
    "dac_16khz",
    "vocos_encodec_24khz",
    "vocos_mel_24khz",
    "lyra_v2",
    "mimi",
    "xcodec",
    "huggingface",
    "snac_24khz",
    "snac_32khz",
    "snac_44khz",
    "mdct",
    "mel",
    "tiny_25hz+rvq",
    "tiny_50hz+rvq",
    "tiny_100hz+rvq",
    "encodec_24khz+rvq",
    "dac_44khz+rvq",
    "dac_24khz+rvq",
    "dac_16khz+rvq",
    "vocos_encodec_24khz+rvq",
    "vocos_mel_24khz+rvq",
    "lyra_v2+rvq",
    "mimi+rvq",
    "xcodec+rvq",
    "huggingface+rvq",
    "snac_24khz+rvq",
    "snac_32khz+rvq",
    "snac_44khz+rvq",
    "mdct+rvq",
    "mel+rvq",
]
"""Names of latent codecs, from which a type checker infers what `load` returns."""


def plugin_of(name: str) -> plugins.Plugin:
    """Return the codec of another distribution: an installed entry point, or `module:Class`.

    Raises:
        ValueError: if there is no such codec; the message gives the nearest name.
    """
    plugin = plugins.find(plugins.CODECS, name)
    if plugin is None:
        raise unknown("codec", name, names())
    return plugin


def entry_of(name: str) -> Entry:
    """Return the entry of a codec: built in, an installed entry point, or `module:Class`.

    Raises:
        ValueError: if there is no such codec; the message gives the nearest name.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    plugin = plugin_of(name)
    return Entry(plugin.module, plugin.attribute, None, f"of {plugin.package or plugin.module}")


def names() -> list[str]:
    """Return the names of all codecs, the built-in ones first."""
    return [*REGISTRY, *(n for n in plugins.installed(plugins.CODECS) if n not in REGISTRY)]


def is_registered(name: str) -> bool:
    """Return whether a name, with or without "+rvq", is built in or an installed entry point."""
    plain = name.removesuffix(RVQ_SUFFIX)
    return plain in REGISTRY or plain in plugins.installed(plugins.CODECS)
