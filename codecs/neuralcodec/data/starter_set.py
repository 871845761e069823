"""The starter set: a few minutes of free recordings that are part of the package.

The split "test" has 12 clips of 4 to 8 s: an English voice with transcripts, music and sounds. The
split "fit" has between 3 and 4 minutes of audio to fit quantizers on: a French and an Italian
voice, music and sounds. The splits share no recording, speaker or author.
`experiments/make_starter_set.py` made both.

The recordings are not under the licence of the program. They keep their own licences (CC0 1.0,
CC BY 3.0, CC BY-SA 3.0), which `starter/CREDITS.csv` lists for each clip.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

STARTER = Path(__file__).parent / "starter"
"""The folder of the set."""

SPLITS = ("fit", "test")
"""The two splits of the set: quantizers are fitted on "fit", codecs are measured on "test"."""


@dataclass(frozen=True)
class Credit:
    """The source of a recording in a clip of the starter set.

    Attributes:
        file: the clip, relative to `STARTER`; a clip of several recordings has one credit for
            each of them.
        source: the Debian package and the file in it.
        author: the person who made the recording.
        origin: its page on the web, or the copyright notice.
        licence: short name and URL.
        changes: edits that were made to the recording.
    """

    file: str
    source: str
    author: str
    origin: str
    licence: str
    changes: str


def starter_credits() -> list[Credit]:
    """Return the credits of the starter set, in the order of its files.

    >>> sorted({credit.licence.split(" http")[0] for credit in starter_credits()})
    ['CC BY 3.0', 'CC BY-SA 3.0', 'CC0 1.0']
    """
    with (STARTER / "CREDITS.csv").open(newline="", encoding="utf-8") as file:
        return [Credit(**row) for row in csv.DictReader(file)]
