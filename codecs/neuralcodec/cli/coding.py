"""The commands `neuralcodec encode | decode | info`: audio to a file of tokens and back."""

import io
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuralcodec.cli.channels import Channels, fit
from neuralcodec.cli.settings import build, codec_names, parse, text_of

if TYPE_CHECKING:  # commands import what they need when they run, so that others start quickly
    from torch import Tensor

    from neuralcodec.bitstream import Header, Info, Recording
    from neuralcodec.core.codec import Codec

_STANDARD = "-"
"""Argument that stands for standard input or output."""

_DEFAULT = "tiny_50hz"
"""Default codec, whose weights are part of the package."""

_LOST = 3
"""Exit status of `decode --repair` where audio was written, but some of it is lost."""

_FADE_SECONDS = 0.005
"""Length of the fades at both ends of lost audio, within it."""

_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Setting of the codec; may be repeated."),
]
_Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")]


def _inputs(source: str, settings: Mapping[str, Any]) -> list[str | int]:
    """Return the files that a command reads: its input, and those that settings name."""
    named: list[str | int] = [
        value for value in settings.values() if isinstance(value, str) and Path(value).is_file()
    ]
    if source != _STANDARD:
        return [source, *named]
    try:
        return [sys.stdin.fileno(), *named]
    except io.UnsupportedOperation:  # the standard input of a test is not a file
        return named


def _output(
    target: str,
    inputs: Sequence[str | int],
    force: bool,
    *,
    ours: Callable[[Path], bool] | None = None,
    endings: Sequence[str] = (),
) -> Path | None:
    """Return the path of a file that can be written, or None for standard output.

    Raises:
        ValueError: if the file name has another ending than those in `endings`.
        ValueError, OSError: as `neuralcodec.core.files.check_output`.
    """
    from neuralcodec.core.files import check_output

    if target == _STANDARD:
        return None
    if endings and Path(target).suffix.lower() not in endings:
        raise ValueError(f"can write {' and '.join(endings)}, not {Path(target).name!r}")
    return check_output(target, inputs, force=force, ours=ours)


def _put(target: Path | None, contents: bytes) -> None:
    from neuralcodec.core.files import put

    put(sys.stdout.buffer if target is None else target, contents)
    sys.stdout.buffer.flush()


def _say(message: str, target: Path | None) -> None:
    """Print a line, to standard error if the output is on standard output."""
    typer.echo(message, err=target is None)


def _read_audio(source: str) -> "tuple[Tensor, int]":
    from neuralcodec.bitstream import is_recording
    from neuralcodec.core import audio

    if source != _STANDARD:
        if Path(source).is_file() and is_recording(source):
            raise ValueError(f"{source} is a file of tokens; `neuralcodec decode` makes it audio")
        return audio.read(source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin"
        path.write_bytes(sys.stdin.buffer.read())
        return audio.read(path)


def _within_full_scale(wav: "Tensor") -> "Tensor":
    peak = float(wav.abs().max())
    if peak <= 1:
        return wav
    typer.echo(f"scaled down by the peak of {peak:.4f}, which would be clipped", err=True)
    return wav / peak


def _beam_setting(name: str, beam_width: int | None) -> dict[str, int]:
    """Return the setting of a beam search; raise ValueError if the codec has none."""
    from neuralcodec.core.loading import settings_of
    from neuralcodec.core.registry import RVQ_SUFFIX

    if beam_width is None:
        return {}
    if not name.endswith(RVQ_SUFFIX) and "beam_width" not in settings_of(name):
        raise ValueError(f"codec {name!r} has no beam search: leave --beam-width out")
    return {"beam_width": beam_width}


def encode(
    source: Annotated[str, typer.Argument(metavar="IN", help="Audio file, or - for stdin.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="File to write, or - for stdout.")],
    codec: Annotated[
        str,
        typer.Option(
            help="Name, as in `neuralcodec list`, or NAME+rvq.", autocompletion=codec_names
        ),
    ] = _DEFAULT,
    num_codebooks: Annotated[
        int | None, typer.Option(help="Number of codebooks to use; default all.")
    ] = None,
    beam_width: Annotated[
        int | None, typer.Option(help="Width of a beam search, which is slower but better.")
    ] = None,
    channels: Annotated[
        Channels,
        typer.Option(help="Mix the channels down, or code each channel on its own."),
    ] = Channels.MIX,
    setting: _Set = None,
    force: _Force = False,
) -> None:
    """Encode audio of any sample rate and number of channels to a file of tokens.

    An existing file of tokens is replaced, other files only with --force, and the input never.
    """
    from neuralcodec import bitstream
    from neuralcodec.cli.trust import names_files
    from neuralcodec.core import audio, chunks

    given = parse(setting)
    path = _output(target, _inputs(source, given), force, ours=bitstream.is_recording)
    built = build(codec, {**given, **_beam_setting(codec, beam_width)})
    settings, needs = bitstream.carried(given, names_files(codec, given))
    wav, rate = _read_audio(source)
    origin = bitstream.Origin(rate, *wav.shape)
    name = "standard input" if source == _STANDARD else Path(source).name
    clips, said = fit(wav, built.channels, channels, name, codec)
    if said:
        typer.echo(said, err=True)
    wav = audio.resample(_stack(clips), rate, built.sample_rate)  # [clips, channels, T]
    # One at a time, so that memory does not grow with their number.
    tokens = [
        chunks.encode(built, clip[None], num_codebooks=num_codebooks)
        for clip in _within_full_scale(wav)
    ]
    contents = bitstream.dumps(
        tokens,
        codec=codec,
        settings=settings,
        needs=needs,
        origin=origin,
        digest=built.digest,
    )
    _put(path, contents)
    seconds = tokens[0].duration
    apart = f"{len(tokens)} channels, " if len(tokens) > 1 else ""
    _say(
        f"{codec}: {seconds:.2f} s, {apart}{tokens[0].num_codebooks} codebooks, "
        f"{sum(each.num_tokens for each in tokens)} tokens in {len(contents)} bytes, "
        f"{len(contents) * 8 / seconds / 1000:.3f} kbit/s",
        path,
    )


def _stack(clips: "list[Tensor]") -> "Tensor":
    import torch

    return torch.stack(clips)


def _decode(codec: "Codec", recording: "Recording", codec_rate: bool) -> "tuple[Tensor, int]":
    """Return the decoded audio `[C, T]` and its sample rate in Hz."""
    import torch

    from neuralcodec.core import audio, chunks

    clips = [chunks.decode(codec, clip)[0].detach().cpu() for clip in recording.clips]
    if len(clips) > 1:  # each clip is one channel, repeated if the codec has several
        clips = [audio.mix_down(clip) for clip in clips]
    wav, rate, origin = torch.cat(clips), codec.sample_rate, recording.header.origin
    if origin and not codec_rate:
        wav = audio.mix_down(wav) if origin.channels == 1 else wav
        wav = audio.resample(wav, rate, origin.sample_rate)
        wav, rate = audio.fit_length(wav, origin.num_samples), origin.sample_rate
    return wav, rate


def _silenced(wav: "Tensor", spans: "Sequence[tuple[float, float]]", rate: int) -> "Tensor":
    """Return `wav [C, T]` with silence in spans, in seconds, which include a short fade."""
    import torch

    gain = torch.ones(wav.shape[-1])
    for start, stop in spans:
        first, last = math.floor(start * rate), math.ceil(stop * rate)
        gain[first:last] = 0
        fade = torch.linspace(1, 0, min(round(_FADE_SECONDS * rate), (last - first) // 2))
        if first > 0:
            gain[first : first + len(fade)] = fade
        if last < len(gain):
            gain[last - len(fade) : last] = fade.flip(0)
    return wav * gain


def _report_damage(recording: "Recording", target: str) -> None:
    for fault in recording.damage:
        typer.echo(fault, err=True)
    spans = ", ".join(f"{start:.2f}-{stop:.2f} s" for start, stop in recording.lost)
    total = math.fsum(stop - start for start, stop in recording.lost)
    if recording.lost:
        duration = recording.header.duration
        typer.echo(
            f"lost: {spans}; {total:.2f} of {duration:.2f} s are silent in {target}", err=True
        )


def _write_audio(
    target: Path | None, ending: str, wav: "Tensor", sample_rate: int, subtype: str
) -> None:
    from neuralcodec.core import audio

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"audio{ending}"
        wav = wav if subtype == "FLOAT" else _within_full_scale(wav)
        audio.write(path, wav, sample_rate, subtype=subtype)
        _put(target, path.read_bytes())


def decode(
    source: Annotated[str, typer.Argument(metavar="IN", help="File of tokens, or - for stdin.")],
    target: Annotated[
        str, typer.Argument(metavar="OUT", help="File .wav or .flac, or - for WAV on stdout.")
    ],
    setting: _Set = None,
    codec: Annotated[
        str | None,
        typer.Option(help="Codec that IN names, to confirm that its code may be imported."),
    ] = None,
    codec_rate: Annotated[
        bool, typer.Option("--codec-rate", help="Keep the codec's sample rate and channels.")
    ] = False,
    subtype: Annotated[
        str, typer.Option(help="Sample format: PCM_16, PCM_24, or FLOAT in WAV.")
    ] = "PCM_16",
    any_weights: Annotated[
        bool, typer.Option("--any-weights", help="Decode even if IN was made with other weights.")
    ] = False,
    any_codebooks: Annotated[bool, typer.Option("--any-codebooks", hidden=True)] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Decode intact parts; exit status 3 if audio is lost."),
    ] = False,
    force: _Force = False,
) -> None:
    """Decode a file of tokens to audio with the original's sample rate, channels and length.

    An existing file OUT is replaced only with --force, and IN never.
    """
    from neuralcodec import bitstream
    from neuralcodec.cli import trust

    given = parse(setting)
    path = _output(target, _inputs(source, given), force, endings=(".flac", ".wav"))
    data = sys.stdin.buffer if source == _STANDARD else source
    recording = bitstream.read(data, repair=repair)
    header = recording.header
    trust.check_name(header.codec, codec)
    built = build(header.codec, trust.decoding_settings(header, given))
    trust.check_codec(built, header)
    if not (any_weights or any_codebooks):
        trust.check_digest(built, header)
    wav, rate = _decode(built, recording, codec_rate)
    if recording.lost:
        wav = _silenced(wav, recording.lost, rate)
    ending = ".wav" if path is None else Path(target).suffix.lower()
    _write_audio(path, ending, wav, rate, subtype)
    _say(f"{header.codec}: {wav.shape[-1] / rate:.2f} s at {rate} Hz", path)
    _report_damage(recording, "the output" if path is None else target)
    if recording.lost:
        raise typer.Exit(_LOST)


def _codebook_lines(header: "Header") -> list[tuple[str, str]]:
    lines = []
    for place, clip in enumerate(header.clips, 1):
        where = f"channel {place}: " if len(header.clips) > 1 else ""
        lines += [
            (
                "codebooks",
                f"{where}{each.count} of {each.size} entries ({each.width} bits), "
                f"{each.frame_rate:.6g} frames/s, {each.frames} frames",
            )
            for each in clip.books
        ]
        lines += [
            ("side", f"{where}{each.name} {list(each.shape)}, {each.num_bytes} bytes")
            for each in clip.side
        ]
    return lines


def _lines(found: "Info") -> list[tuple[str, str]]:
    header, origin = found.header, found.header.origin
    payload = sum(map(header.block_bytes, range(header.num_blocks)))
    checks = found.num_bytes - found.header_bytes - header.side_bytes - payload
    original = ""
    if origin:
        channels = f"{origin.channels} channel{'s' * (origin.channels > 1)}"
        channels += ", each coded on its own" if len(header.clips) > 1 else ""
        original = f"{origin.num_samples} samples, {origin.sample_rate} Hz, {channels}"
    return [
        ("format", f"version {header.version}"),
        ("codec", header.codec),
        ("settings", " ".join(f"{key}={text_of(value)}" for key, value in header.settings.items())),
        ("needs", " ".join(f"--set {name}=..." for name in header.needs)),
        ("weights" if header.version > 1 else "codebooks", header.digest),
        (
            "audio",
            f"{header.duration:.3f} s, {header.num_samples} samples, {header.sample_rate} Hz",
        ),
        ("original", original),
        *_codebook_lines(header),
        ("tokens/s", f"{math.fsum(header.frame_rates):.6g}"),
        ("nominal", f"{header.bitrate_kbps:.4g} kbit/s"),
        ("measured", f"{found.measured_kbps:.4g} kbit/s, of the whole file"),
        (
            "bytes",
            f"{found.num_bytes}: header {found.header_bytes}, codes {payload} in "
            f"{header.num_blocks} block{'s' * (header.num_blocks > 1)}, side "
            f"{header.side_bytes}, checksums {checks}",
        ),
    ]


def info(
    source: Annotated[str, typer.Argument(metavar="FILE", help="File of tokens, or - for stdin.")],
) -> None:
    """Show the header of a file of tokens and its sizes; the codes are not read."""
    from neuralcodec import bitstream

    found = bitstream.info(io.BytesIO(sys.stdin.buffer.read()) if source == _STANDARD else source)
    for key, value in _lines(found):
        if value:
            typer.echo(f"{key:10}  {value}")
