"""A file format for tokens: a header, packed codes, checksums.

    bitstream.write("clip.nct", tokens, codec="lyra_v2", digest=codec.digest)
    recording = bitstream.read("clip.nct")
    wav = neuralcodec.load(recording.codec, **recording.settings).decode(recording.tokens)

A code takes ceil(log2(V)) bits, the header about 60 bytes. docs/bitstream.md specifies the format
byte by byte. `recording.codec` may name code to import: load it only from files that you
trust.
"""

from neuralcodec.bitstream.fields import BitstreamError
from neuralcodec.bitstream.files import (
    Info,
    Recording,
    dumps,
    info,
    is_recording,
    loads,
    read,
    write,
)
from neuralcodec.bitstream.header import Header, Layout, Origin
from neuralcodec.bitstream.packing import Books
from neuralcodec.bitstream.settings import Setting, carried
from neuralcodec.core.files import put

__all__ = [
    "BitstreamError",
    "Books",
    "Header",
    "Info",
    "Layout",
    "Origin",
    "Recording",
    "Setting",
    "carried",
    "dumps",
    "info",
    "is_recording",
    "loads",
    "put",
    "read",
    "write",
]
