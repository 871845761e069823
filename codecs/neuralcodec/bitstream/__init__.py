"""A small file format for the tokens of a clip: header, packed codes, checksums.

    bitstream.write("clip.nct", tokens, codec="lyra_v2")
    recording = bitstream.read("clip.nct")
    wav = neuralcodec.load(recording.codec, **recording.settings).decode(recording.tokens)

A code takes ceil(log2(V)) bits, the header about 50 bytes. The format is described byte by byte in
docs/bitstream.md.
"""

from neuralcodec.bitstream.container import Info, Recording, dumps, info, loads, put, read, write
from neuralcodec.bitstream.fields import BitstreamError
from neuralcodec.bitstream.header import Books, Header, Origin
from neuralcodec.bitstream.settings import Setting, carried

__all__ = [
    "BitstreamError",
    "Books",
    "Header",
    "Info",
    "Origin",
    "Recording",
    "Setting",
    "carried",
    "dumps",
    "info",
    "loads",
    "put",
    "read",
    "write",
]
