"""Create the starter set in `codecs/neuralcodec/data/starter` from recordings in Debian packages.

    apt-get install asterisk-core-sounds-en-g722 asterisk-core-sounds-fr-g722 \
        asterisk-core-sounds-it-g722 sonic-pi-samples
    python experiments/make_starter_set.py / codecs/neuralcodec/data/starter

Without root privileges, run `apt-get download` for the four packages, unpack each with
`dpkg -x PACKAGE.deb ROOT`, and pass ROOT instead of `/`. The same packages and the same version of
libsndfile produce identical files.

Speech is decoded from 16 kHz G.722. Of stereo music and sounds only the left channel is kept, since
the mean of both channels would cancel much of the wide recordings. Levels are not changed.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import av
import torch
from torch import Tensor

from neuralcodec.core import audio
from neuralcodec.data import Credit

PROMPTS = "usr/share/asterisk/sounds"
SAMPLES = "usr/share/sonic-pi/samples"
MANIFEST_HEADER = "file split kind transcript speaker seconds sample_rate".split()
FADE_SECONDS = 0.01  # fade-out at a cut
G722_RATE = 16_000
G722_PACKET = 160  # bytes, 20 ms

BY = "CC BY 3.0 https://creativecommons.org/licenses/by/3.0/"
BY_SA = "CC BY-SA 3.0 https://creativecommons.org/licenses/by-sa/3.0/"
CC0 = "CC0 1.0 https://creativecommons.org/publicdomain/zero/1.0/"


@dataclass(frozen=True)
class Voice:
    """A speaker of asterisk-core-sounds, with the notice that the licence requires to be kept."""

    folder: str
    language: str
    author: str
    notice: str
    licence: str


ALLISON = Voice(
    folder="en_US_f_Allison",
    language="en",
    author="Allison Smith",
    notice="Copyright 2003-2010 Allison Smith (http://www.theivrvoice.com)",
    licence=BY_SA,
)
JUNE = Voice(
    folder="fr_CA_f_June",
    language="fr",
    author="June Wallack",
    notice="Copyright 2006-2008 June Wallack (http://www.junewallack.com)",
    licence=BY_SA,
)
CARLO = Voice(
    folder="it_IT_m_Carlo",
    language="it",
    author="Carlo Flora",
    notice="Copyright 2012 Carlo Flora (http://www.segreterietelefoniche.it)",
    licence=BY,
)

TEST_PROMPTS = {
    "queue-periodic-announce": (
        "All of our representatives are currently busy. Please stay on the line and your call "
        "will be answered by the next available representative."
    ),
    "ss-noservice": (
        "The number you have dialed is not in service. Please check the number and try again."
    ),
    "vm-instructions": (
        "To look into your messages, press one now. You may quit voicemail at any time by pressing "
        "the pound key."
    ),
    "vm-newuser": (
        "Welcome to Comedian Mail. First, I will guide you through a short setup process."
    ),
    "vm-nobox": "You cannot reply to this message because the sender does not have a mailbox.",
}
FIT_PROMPTS = {
    JUNE: (
        "agent-newlocation demo-abouttotry demo-nogo followme/status"
        " privacy-prompt tt-allbusy vm-record-prepend"
    ).split(),
    CARLO: (
        "confbridge-lock-extended demo-moreinfo demo-nogo dictate/both_help"
        " queue-periodic-announce tt-allbusy vm-tempgreeting2 vm-whichbox"
    ).split(),
}


@dataclass(frozen=True)
class Sampled:
    """A clip of music or sound: one sample, or several concatenated samples of one kind.

    Attributes:
        name: name of the clip.
        origins: by sample, its identifier at freesound.org, "author/number".
        seconds: duration to cut the clip to; None for the whole clip.
    """

    name: str
    origins: dict[str, str]
    seconds: float | None = None


def single(name: str, origin: str, seconds: float | None = None) -> Sampled:
    """Return the description of a clip that consists of the sample `name`."""
    return Sampled(name, {name: origin}, seconds)


ROBOTS = {
    "mehackit_robot6": "hullum/415565",
    "mehackit_robot4": "hullum/415567",
    "mehackit_robot5": "hullum/415564",
}
DRUMS = {
    "drum_bass_hard": "menegass/100051",
    "drum_snare_hard": "menegass/100058",
    "drum_tom_hi_hard": "menegass/100062",
    "drum_tom_lo_hard": "menegass/100064",
    "drum_cymbal_open": "menegass/100055",
    "drum_snare_soft": "menegass/100059",
}
TABLA = {
    "tabla_ghe5": "dio_333/130410",
    "tabla_na_o": "dio_333/130422",
    "tabla_tun3": "dio_333/130420",
    "tabla_ghe8": "dio_333/130414",
}
SAMPLED = {
    ("test", "music"): (
        single("drum_roll", "Heigh-hoo/19433", 5.0),
        single("guit_e_fifths", "Sub-d/46990", 5.0),
        single("loop_garzul", "Garzul/213524", 5.0),
        single("loop_safari", "nemaavla/318759", 6.0),
    ),
    ("test", "sound"): (
        single("ambi_sauna", "hullum/415551", 5.0),
        single("loop_3d_printer", "hullum/415571", 5.0),
        Sampled("robots", ROBOTS),
    ),
    ("fit", "music"): (
        single("ambi_drone", "Autistic%20Lucario/195341"),
        single("ambi_glass_hum", "kaligari/35391", 7.0),
        single("ambi_glass_rub", "ani_music/198403"),
        single("ambi_haunted_hum", "kaligari/35392", 5.0),
        single("bass_voxy_c", "ani_music/165325"),
        Sampled("drums", DRUMS),
        single("guit_e_slide", "Suva/2410", 2.5),
        single("guit_harmonics", "BStateham/141524", 3.0),
        single("loop_compus", "godspine/212288"),
        single("loop_mika", "mika55/188551", 5.0),
        Sampled("tabla", TABLA),
    ),
    ("fit", "sound"): (
        single("ambi_dark_woosh", "EcoDTR/27281"),
        single("misc_cineboom", "Northern_Monkey/177242", 5.5),
    ),
}


@dataclass(frozen=True)
class Made:
    """A finished clip, with one credit for each recording in it."""

    split: str
    kind: str
    wav: Tensor  # [1, T]
    sample_rate: int
    credits: tuple[Credit, ...]
    transcript: str = ""
    speaker: str = ""


def read_g722(path: Path) -> Tensor:
    """Decode a headerless 64 kbit/s G.722 file to `[1, T]` at 16 kHz."""
    decoder = av.AudioCodecContext.create("g722", "r")
    decoder.sample_rate = G722_RATE
    decoder.layout = "mono"
    data = path.read_bytes()
    blocks = [
        torch.from_numpy(frame.to_ndarray().reshape(1, -1))
        for start in range(0, len(data), G722_PACKET)
        for frame in decoder.decode(av.Packet(data[start : start + G722_PACKET]))
    ]
    return torch.cat(blocks, dim=1).float() / 32768


def make_prompt(root: Path, split: str, voice: Voice, name: str, transcript: str = "") -> Made:
    """Return the clip of one prompt of asterisk-core-sounds."""
    source = f"{PROMPTS}/{voice.folder}/{name}.g722"
    credit = Credit(
        file=f"{split}/speech_{voice.language}_{name.replace('/', '_')}.flac",
        source=f"asterisk-core-sounds-{voice.language}-g722: {source}",
        author=voice.author,
        origin=voice.notice,
        licence=voice.licence,
        changes="decoded from G.722 to FLAC",
    )
    wav = read_g722(root / source)
    speaker = f"{voice.author} ({voice.language})"
    return Made(split, "speech", wav, G722_RATE, (credit,), transcript, speaker)


def _cut(wav: Tensor, length: int, fade: int) -> Tensor:
    gain = torch.ones(length)
    gain[length - fade :] = torch.linspace(1, 0, fade)
    return wav[:, :length] * gain


def make_sampled(root: Path, split: str, kind: str, recipe: Sampled) -> Made:
    """Return a clip of sonic-pi-samples.

    Raises:
        ValueError: if an origin is not in the package's own list, or the sample rates differ.
    """
    known = (root / SAMPLES / "README.md").read_text(encoding="utf-8")
    for origin in recipe.origins.values():
        if f"freesound.org/people/{origin.replace('/', '/sounds/')}/" not in known:
            raise ValueError(f"{origin} is no origin in {SAMPLES}/README.md")
    read = [audio.read(root / SAMPLES / f"{sample}.flac") for sample in recipe.origins]
    (sample_rate,) = {rate for _, rate in read}
    wav = torch.cat([wav[:1] for wav, _ in read], dim=1)
    common = []
    if len(read) > 1:
        common.append(f"laid end to end with the {len(read) - 1} other(s) of this file")
    if recipe.seconds is not None:
        wav = _cut(wav, round(recipe.seconds * sample_rate), round(FADE_SECONDS * sample_rate))
        common.append(f"cut at {recipe.seconds:g} s with a fade of {FADE_SECONDS * 1000:g} ms")
    credits_ = tuple(
        Credit(
            file=f"{split}/{kind}_{recipe.name}.flac",
            source=f"sonic-pi-samples: {SAMPLES}/{sample}.flac",
            author=origin.split("/")[0].replace("%20", " "),
            origin=f"https://freesound.org/people/{origin.replace('/', '/sounds/')}/",
            licence=CC0,
            changes="; ".join((["left channel"] if len(channels) > 1 else []) + common) or "none",
        )
        for (sample, origin), (channels, _) in zip(recipe.origins.items(), read, strict=True)
    )
    return Made(split, kind, wav, sample_rate, credits_)


def make(root: Path) -> Iterator[Made]:
    """Yield all clips of the set from the packages unpacked under `root`."""
    for voice, names in FIT_PROMPTS.items():
        for name in names:
            yield make_prompt(root, "fit", voice, name)
    for name, transcript in TEST_PROMPTS.items():
        yield make_prompt(root, "test", ALLISON, name, transcript)
    for (split, kind), recipes in SAMPLED.items():
        for recipe in recipes:
            yield make_sampled(root, split, kind, recipe)


def _write_csv(path: Path, header: list[str], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main() -> None:
    """Write the clips, manifest.csv and CREDITS.csv, and print properties of each clip."""
    parser = argparse.ArgumentParser(description="Make the starter set from Debian packages.")
    parser.add_argument("root", type=Path, help="where the packages are unpacked: / if installed")
    parser.add_argument("out", type=Path, help="folder to write; other clips in it stay")
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    credits_: list[Credit] = []
    for clip in sorted(make(arguments.root), key=lambda clip: clip.credits[0].file):
        file = clip.credits[0].file
        (arguments.out / file).parent.mkdir(parents=True, exist_ok=True)
        audio.write(arguments.out / file, clip.wav, clip.sample_rate)
        seconds = f"{clip.wav.shape[1] / clip.sample_rate:.3f}"
        rows.append(
            (file, clip.split, clip.kind, clip.transcript, clip.speaker, seconds, clip.sample_rate)
        )
        credits_ += clip.credits
        rms_db = 10 * clip.wav.square().mean().log10()
        peak = clip.wav.abs().max()
        size = (arguments.out / file).stat().st_size
        print(f"{file:45s} {seconds:>7s} s  rms {rms_db:6.1f} dB  peak {peak:.3f}  {size:7d} B")
    _write_csv(arguments.out / "manifest.csv", MANIFEST_HEADER, rows)
    header = [field.name for field in fields(Credit)]
    _write_csv(arguments.out / "CREDITS.csv", header, [astuple(credit) for credit in credits_])


if __name__ == "__main__":
    main()
