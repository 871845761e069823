"""What is left of a damaged file: lost codes are filled in, and the lost seconds are named.

A lost frame repeats the last intact one before it (or, at the start, the first one after it), so
that a decoder, whose output depends on neighbouring frames too, is disturbed as little as possible.
What it makes of them is no recording: `neuralcodec decode` silences the lost seconds.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import torch

from neuralcodec.bitstream.fields import BitstreamError
from neuralcodec.bitstream.header import Header
from neuralcodec.bitstream.packing import Codes
from neuralcodec.core.tokens import Tokens

Span = tuple[float, float]
"""Start and end in seconds."""

_FILLED = 2**26
"""Codes that may be filled in beyond as many as are intact: a false header takes no more memory."""

_PACKETS = "packet_sizes"
"""Side of codecs whose codes are the bytes of packets, such as Opus."""

_MARGIN = 3
"""Packets on either side of a lost one that it may spoil: delay, overlap, bit reservoir of MP3."""


def lost_runs(header: Header, intact: Collection[int]) -> list[range]:
    """Return the blocks that are not intact, in runs of neighbours.

    Raises:
        BitstreamError: if no block is intact, or more codes are lost than may be filled in.
    """
    blocks = header.num_blocks
    if len(intact) == blocks:
        return []
    if not intact:
        raise BitstreamError("no block of codes is intact: nothing is left to repair")
    cuts = ((books.count, books.cut(block, blocks)) for block in intact for books in header.books)
    kept = sum(count * len(cut) for count, cut in cuts)
    lost = sum(books.count * books.frames for books in header.books) - kept
    if lost > kept + _FILLED:
        raise BitstreamError(f"{lost} codes are lost and {kept} intact: too many to fill in")
    edges = [-1, *sorted(intact), blocks]
    return [range(a + 1, b) for a, b in pairwise(edges) if a + 1 < b]


def _cut(header: Header, run: range) -> list[range]:
    """Return the frames of each run of codebooks that a run of blocks holds."""
    first, last = run[0], run[-1]
    count = header.num_blocks
    return [
        range(books.cut(first, count).start, books.cut(last, count).stop) for books in header.books
    ]


def span(header: Header, run: range) -> Span:
    """Return the time whose codes a run of blocks holds, within the audio."""
    found = [
        (cut.start / books.frame_rate, cut.stop / books.frame_rate)
        for books, cut in zip(header.books, _cut(header, run), strict=True)
        if cut
    ]
    if not found:  # there are no codes at all
        return 0.0, header.duration
    starts, stops = zip(*found, strict=True)
    return min(*starts, header.duration), min(max(stops), header.duration)


def merged(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Return spans in rising order, overlapping ones joined and empty ones left out.

    >>> merged([(4.0, 6.0), (0.0, 1.0), (5.0, 7.0), (8.0, 8.0)])
    ((0.0, 1.0), (4.0, 7.0))
    """
    found: list[Span] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        elif start < stop:
            found.append((start, stop))
    return tuple(found)


def fill(header: Header, codes: Codes, runs: Sequence[range]) -> None:
    """Fill in the codes of lost blocks, in place; see the top of this file."""
    for run in runs:
        for whole, cut in zip(codes, _cut(header, run), strict=True):
            source = cut.start - 1 if cut.start else cut.stop
            filled = whole[:, source : source + 1] if source < whole.shape[1] else 0
            whole[:, cut.start : cut.stop] = filled


def _is_packets(tokens: Tokens) -> bool:
    sizes = tokens.side.get(_PACKETS)
    if sizes is None or tokens.num_codebooks > 1 or sizes.dtype != torch.int64:
        return False
    found: list[int] = sizes.flatten().tolist()
    return min(found, default=0) > 0 and sum(found) == tokens.num_tokens


def _with_whole_packets(tokens: Tokens, cuts: Sequence[range]) -> tuple[Tokens, list[Span]]:
    """Replace the packets that have lost bytes by the last intact packet before them."""
    sizes: list[int] = tokens.side[_PACKETS].flatten().tolist()
    ends = list(accumulate(sizes))
    is_lost = [
        any(cut.start < end and end - size < cut.stop for cut in cuts)
        for size, end in zip(sizes, ends, strict=True)
    ]
    if all(is_lost):
        raise BitstreamError("no packet is intact: nothing is left to repair")
    packets = list(torch.split(tokens.streams[0][0], sizes))
    last = packets[is_lost.index(False)]
    for place, lost in enumerate(is_lost):
        last = packets[place] = last if lost else packets[place]
    data = torch.cat(packets)
    lengths = tokens.side[_PACKETS].new_tensor([len(packet) for packet in packets])
    mended = replace(
        tokens,
        codes=data[None, None],
        frame_rates=(tokens.frame_rates[0] * len(data) / ends[-1],),
        side={**tokens.side, _PACKETS: lengths.view(tokens.side[_PACKETS].shape)},
    )
    seconds = tokens.duration / len(sizes)  # of a packet, nearly: the last may be cut
    spans = [
        (max(0, place - _MARGIN) * seconds, min(len(sizes), place + 1 + _MARGIN) * seconds)
        for place, lost in enumerate(is_lost)
        if lost
    ]
    return mended, spans


def mend(
    header: Header, clips: Sequence[Tokens], runs: Sequence[range]
) -> tuple[tuple[Tokens, ...], tuple[Span, ...]]:
    """Return the tokens of clips whose lost codes are filled in, and the lost spans of the audio.

    Codes that are bytes of packets make sense only as whole packets: a packet that has lost a byte
    becomes the last intact one before it.

    Raises:
        BitstreamError: if no packet is intact.
    """
    found, spans, first = [], [], 0
    for clip, layout in zip(clips, header.clips, strict=True):
        if _is_packets(clip) and runs:
            clip, own = _with_whole_packets(clip, [_cut(header, run)[first] for run in runs])
            spans += own
        else:
            spans += [span(header, run) for run in runs]
        found.append(clip)
        first += len(layout.books)
    return tuple(found), merged(spans)
