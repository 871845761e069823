"""`neuralcodec encode | decode | info`: audio to a small file of tokens and back."""

import hashlib
import inspect
import io
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuralcodec.cli.settings import build, parse, text_of

if TYPE_CHECKING:  # commands import what they need when they run: others then start at once
    from torch import Tensor

    from neuralcodec.bitstream import Header, Info
    from neuralcodec.core.codec import Codec

_STANDARD = "-"
"""In place of a file: standard input or output."""

_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Setting of the codec; may be given again."),
]


def _names_files(name: str) -> list[str]:
    """List the settings of a codec whose types tell that they may name a file."""
    from neuralcodec.core.loading import find
    from neuralcodec.core.registry import RVQ_SUFFIX

    parts: list[Any] = [find(name.removesuffix(RVQ_SUFFIX))]
    if name.endswith(RVQ_SUFFIX):
        from neuralcodec.latent import requantized

        parts.append(requantized.load)
    parameters = [each for part in parts for each in inspect.signature(part).parameters.values()]
    return [each.name for each in parameters if "Path" in str(each.annotation)]


def _load(name: str, settings: Mapping[str, Any]) -> "Codec":
    from neuralcodec.core import codec as codecs

    built = build(name, settings)
    if not isinstance(built, codecs.Codec):
        raise ValueError(
            f"{name!r} has no codebooks of its own; {name + codecs.RVQ_SUFFIX!r} puts our "
            f"quantizer in its latents"
        )
    return built


def _digest(codec: "Codec", settings: Mapping[str, Any]) -> str:
    """Hash codebooks that were fitted or given, "" where they are the published ones."""
    from neuralcodec.core.registry import RVQ_SUFFIX

    if not codec.name.endswith(RVQ_SUFFIX) and settings.get("weights") is None:
        return ""
    codebooks = getattr(getattr(codec, "rvq", None), "codebooks", None)
    if codebooks is None:
        return ""
    numbers = codebooks.detach().cpu().numpy().astype("<f4")
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


def _read_audio(source: str) -> "tuple[Tensor, int]":
    from neuralcodec.core import audio

    if source != _STANDARD:
        return audio.read(source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin"
        path.write_bytes(sys.stdin.buffer.read())
        return audio.read(path)


def _put(target: str, contents: bytes) -> None:
    from neuralcodec import bitstream

    if target != _STANDARD:
        bitstream.put(target, contents)
        return
    sys.stdout.buffer.write(contents)
    sys.stdout.buffer.flush()


def _check_target(target: str, endings: Sequence[str] = ()) -> None:
    """See that a file can be written, before the work is done."""
    path = Path(target)
    if target == _STANDARD:
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name!r} in")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file")
    if endings and path.suffix.lower() not in endings:
        raise ValueError(f"can write {' and '.join(endings)}, not {path.name!r}")


def _say(message: str, target: str) -> None:
    """Print a line, to where it doesn't mix with what is written."""
    typer.echo(message, err=target == _STANDARD)


def _within_full_scale(wav: "Tensor") -> "Tensor":
    peak = float(wav.abs().max())
    if peak <= 1:
        return wav
    typer.echo(f"scaled down by the peak of {peak:.4f}, which would be clipped", err=True)
    return wav / peak


def _fit_channels(wav: "Tensor", channels: int) -> "Tensor":
    """Keep `[C, T]`, or mix it down and repeat it."""
    from neuralcodec.core.audio import mix_down

    return wav if wav.shape[0] == channels else mix_down(wav).expand(channels, -1)


def _beam_setting(name: str, beam_width: int | None) -> dict[str, int]:
    """Give the setting that makes a codec encode with a beam."""
    from neuralcodec.core.loading import settings_of
    from neuralcodec.core.registry import RVQ_SUFFIX

    if beam_width is None:
        return {}
    if not name.endswith(RVQ_SUFFIX) and "beam_width" not in settings_of(name):
        raise ValueError(f"codec {name!r} has no beam search: leave --beam-width out")
    return {"beam_width": beam_width}


def encode(
    source: Annotated[str, typer.Argument(metavar="IN", help="Audio file; - reads stdin.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="File to write; - for stdout.")],
    codec: Annotated[str, typer.Option(help="Name, as `neuralcodec list` has it, or NAME+rvq.")],
    num_codebooks: Annotated[int | None, typer.Option(help="How many of the first; all.")] = None,
    beam_width: Annotated[
        int | None, typer.Option(help="Of a beam search; more is better.")
    ] = None,
    setting: _Set = None,
) -> None:
    """Encode audio of any rate and channels to a file of tokens."""
    from neuralcodec import bitstream
    from neuralcodec.core import audio, chunks

    given = parse(setting)
    _check_target(target)
    built = _load(codec, {**given, **_beam_setting(codec, beam_width)})
    settings, needs = bitstream.carried(given, _names_files(codec))
    wav, rate = _read_audio(source)
    origin = bitstream.Origin(rate, *wav.shape)
    wav = audio.resample(_fit_channels(wav, built.channels), rate, built.sample_rate)
    tokens = chunks.encode(built, _within_full_scale(wav)[None], num_codebooks=num_codebooks)
    contents = bitstream.dumps(
        tokens,
        codec=codec,
        settings=settings,
        needs=needs,
        origin=origin,
        digest=_digest(built, given),
    )
    _put(target, contents)
    _say(
        f"{codec}: {tokens.duration:.2f} s, {tokens.num_codebooks} codebooks, "
        f"{tokens.num_tokens} tokens in {len(contents)} bytes, "
        f"{len(contents) * 8 / tokens.duration / 1000:.3f} kbit/s",
        target,
    )


def _decoding_settings(header: "Header", given: Mapping[str, Any]) -> dict[str, Any]:
    """Join the settings in a file with the user's, who must give those that name files."""
    from neuralcodec.bitstream.settings import NAMES_FILES

    missing = sorted(set(header.needs) - given.keys())
    if missing:
        raise ValueError(
            f"encoded with {', '.join(missing)} that a file doesn't carry; "
            f"give {' '.join(f'--set {name}=...' for name in missing)}"
        )
    loose = set(_names_files(header.codec)) & header.settings.keys() - NAMES_FILES.keys()
    if loose - given.keys():
        raise ValueError(
            f"the file sets {', '.join(sorted(loose))}, which may name something to load; "
            f"give it with --set if you trust it"
        )
    return {**header.settings, **given}


def _check_codec(codec: "Codec", header: "Header") -> None:
    """Raise ValueError unless a codec's rates and sizes are those of a file."""
    depth = header.num_codebooks
    rates = codec.frame_rates[:depth] or header.frame_rates  # none: they depend on the clip
    same = (
        codec.sample_rate == header.sample_rate
        and codec.codebook_sizes[:depth] == header.codebook_sizes
        and len(rates) == depth
        and all(map(math.isclose, rates, header.frame_rates))
    )
    if not same:
        raise ValueError(
            f"the file holds {_books(header)} for audio at {header.sample_rate} Hz; "
            f"{header.codec!r} with these settings has {codec.num_codebooks} of "
            f"{codec.codebook_sizes[0]} entries at {codec.sample_rate} Hz, or other frame rates"
        )


def _write_audio(target: str, wav: "Tensor", sample_rate: int, subtype: str) -> None:
    from neuralcodec.core import audio

    ending = ".wav" if target == _STANDARD else Path(target).suffix.lower()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"audio{ending}"
        wav = wav if subtype == "FLOAT" else _within_full_scale(wav)
        audio.write(path, wav, sample_rate, subtype=subtype)
        _put(target, path.read_bytes())


def decode(
    source: Annotated[str, typer.Argument(metavar="IN", help="File of tokens; - reads stdin.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help=".wav or .flac; - writes WAV.")],
    setting: _Set = None,
    codec_rate: Annotated[
        bool, typer.Option("--codec-rate", help="Leave rate and channels as the codec has them.")
    ] = False,
    subtype: Annotated[str, typer.Option(help="PCM_16, PCM_24, or FLOAT in WAV.")] = "PCM_16",
    any_codebooks: Annotated[
        bool, typer.Option("--any-codebooks", help="Take codebooks that were fitted otherwise.")
    ] = False,
) -> None:
    """Decode a file of tokens to audio of the original's rate and length."""
    from neuralcodec import bitstream
    from neuralcodec.core import audio, chunks

    given = parse(setting)
    _check_target(target, (".flac", ".wav"))
    recording = bitstream.read(sys.stdin.buffer if source == _STANDARD else source)
    header, origin = recording.header, recording.header.origin
    settings = _decoding_settings(header, given)
    codec = _load(header.codec, settings)
    _check_codec(codec, header)
    digest = _digest(codec, settings)
    if header.digest not in ("", digest) and not any_codebooks:
        raise ValueError(
            f"encoded with codebooks {header.digest}, this codec has {digest or 'others'}: fitted "
            f"on other audio, elsewhere or by another version; --any-codebooks decodes anyway"
        )
    wav = chunks.decode(codec, recording.tokens)[0].detach().cpu()
    rate = codec.sample_rate
    if origin and not codec_rate:
        wav = audio.mix_down(wav) if origin.channels == 1 else wav
        wav = audio.resample(wav, rate, origin.sample_rate)
        wav, rate = audio.fit_length(wav, origin.num_samples), origin.sample_rate
    _write_audio(target, wav, rate, subtype)
    _say(f"{header.codec}: {wav.shape[-1] / rate:.2f} s at {rate} Hz", target)


def _books(header: "Header") -> str:
    return " + ".join(f"{each.count} codebooks of {each.size} entries" for each in header.books)


def _lines(found: "Info") -> list[tuple[str, str]]:
    header, origin = found.header, found.header.origin
    payload = sum(map(header.block_bytes, range(header.num_blocks)))
    checks = found.num_bytes - found.header_bytes - header.side_bytes - payload
    lines = [
        ("codec", header.codec),
        ("settings", " ".join(f"{key}={text_of(value)}" for key, value in header.settings.items())),
        ("needs", " ".join(f"--set {name}=..." for name in header.needs)),
        ("quantizer", header.digest),
        (
            "audio",
            f"{header.duration:.3f} s, {header.num_samples} samples, {header.sample_rate} Hz",
        ),
        ("original", ""),
    ]
    if origin:
        channels = f"{origin.channels} channel{'s' * (origin.channels > 1)}"
        original = f"{origin.num_samples} samples, {origin.sample_rate} Hz, {channels}"
        lines[-1] = ("original", original)
    lines += [
        (
            "codebooks",
            f"{each.count} of {each.size} entries ({each.width} bits), "
            f"{each.frame_rate:.6g} frames/s, {each.frames} frames",
        )
        for each in header.books
    ]
    lines += [
        ("beside", f"{each.name} {list(each.shape)}, {each.num_bytes} bytes")
        for each in header.side
    ]
    return [
        *lines,
        ("tokens/s", f"{math.fsum(header.frame_rates):.6g}"),
        ("nominal", f"{header.bitrate_kbps:.4g} kbit/s"),
        ("measured", f"{found.measured_kbps:.4g} kbit/s, of the whole file"),
        (
            "bytes",
            f"{found.num_bytes}: header {found.header_bytes}, codes {payload} in "
            f"{header.num_blocks} block{'s' * (header.num_blocks > 1)}, beside "
            f"{header.side_bytes}, checksums {checks}",
        ),
    ]


def info(
    source: Annotated[str, typer.Argument(metavar="FILE", help="File of tokens; - reads stdin.")],
) -> None:
    """Show what a file of tokens says of itself; its codes stay unread."""
    from neuralcodec import bitstream

    found = bitstream.info(io.BytesIO(sys.stdin.buffer.read()) if source == _STANDARD else source)
    for key, value in _lines(found):
        if value:
            typer.echo(f"{key:10}  {value}")
