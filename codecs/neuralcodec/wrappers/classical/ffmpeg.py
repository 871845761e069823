"""Opus, MP3 and AAC as baselines, coded in memory.

The codecs are libopus (RFC 6716), LAME and FFmpeg's AAC-LC encoder, through PyAV. A token is a byte
of a packet, so that the bitrate of the tokens is the number of bits produced, divided by the
duration of the clip:

- The payloads of all packets that decoding the clip needs are counted. These include the cost of
  the encoder's delay: a clip of T samples and a delay of d take ceil((T + d) / frame) packets.
  Further packets that an encoder produces when flushed are discarded and not counted.
- Information that the transport layer carries is not counted, and kept in `Tokens.side`: the packet
  sizes (known to a container or a network packet) and the delay (OpusHead's pre-skip, LAME's tag,
  MP4's edit list).

The bitrate of a clip is therefore only near the requested one: encoders of variable bitrate follow
the signal, and in short clips the packets for the delay have a noticeable share.

None is causal: a packet depends on samples after those that it encodes, 2.5-6.5 ms in Opus, a frame
or more in MP3 (which also moves bits between frames) and AAC.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Literal

import av
import numpy as np
import torch
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray
from torch import Tensor

from neuralcodec.core.audio import resample
from neuralcodec.core.codec import Codec
from neuralcodec.core.tokens import Tokens
from neuralcodec.wrappers.classical.pcm import check_full_scale

_OPUS_RATE = 48000  # Hz: the clock of Opus, at which FFmpeg always decodes it
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)

# The delay of the resamplers and filters inside SILK beyond the pre-skip, in samples at 48 kHz, in
# its narrow, medium and wide band; CELT has none. It depends on frequency, so these are the shifts
# of highest SI-SDR, averaged over six clips of speech (libopus 1.6, 6-20 kbit/s, all five sample
# rates). Without them SI-SDR is 0.1-3 dB lower, and the lag up to 0.6 samples at 16 kHz.
_SILK_LAG = (2, -2, -1)

# The bitrates of the standards in kbit/s (ISO/IEC 11172-3, 13818-3 and, below 16 kHz, MPEG 2.5).
_MP3_V1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MP3_V2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_KBPS: dict[int, tuple[int, ...]] = {
    **dict.fromkeys((8000, 11025, 12000), _MP3_V2[:8]),
    **dict.fromkeys((16000, 22050, 24000), _MP3_V2),
    **dict.fromkeys((32000, 44100, 48000), _MP3_V1),
}

_AAC_RATES = (
    *(7350, 8000, 11025, 12000, 16000, 22050, 24000),
    *(32000, 44100, 48000, 64000, 88200, 96000),
)


def _context(
    name: str, mode: Literal["r", "w"], sample_rate: int, options: Mapping[str, str]
) -> AudioCodecContext:
    context = av.CodecContext.create(name, mode)
    assert isinstance(context, AudioCodecContext)
    context.sample_rate = sample_rate
    context.layout = "mono"
    context.options = dict(options)
    return context


def _compress(context: AudioCodecContext, samples: NDArray[np.float32]) -> tuple[list[bytes], int]:
    """Encode `samples [T]`; return the packets that hold them, and the delay in samples."""
    frame = av.AudioFrame.from_ndarray(samples[None], format=context.format.name, layout="mono")
    frame.sample_rate = context.sample_rate
    frame.pts, frame.time_base = 0, Fraction(1, context.sample_rate)
    packets = [*context.encode(frame), *context.encode(None)]
    delay = -(packets[0].pts or 0)  # the encoder's clock starts before the audio's
    needed = -(-(len(samples) + delay) // context.frame_size)
    return [bytes(packet) for packet in packets[:needed]], delay


def _decompress(context: AudioCodecContext, packets: Sequence[bytes]) -> NDArray[np.float32]:
    """Decode packets to samples `[T]`, which begin with the delay."""
    try:
        frames = [frame for data in packets for frame in context.decode(av.Packet(data))]
        frames += context.decode(None)
    except av.FFmpegError as error:
        raise ValueError(f"the codes are no {context.name} stream: {error}") from error
    blocks = [frame.to_ndarray()[0] for frame in frames]
    return np.concatenate([np.zeros(0, np.float32), *blocks])


def _packets(tokens: Tokens) -> list[bytes]:
    """Return the packets of a clip.

    Raises:
        ValueError: if the side information is missing, or does not fit the codes.
    """
    lacking = {"packet_sizes", "delay"} - set(tokens.side)
    if lacking:
        raise ValueError(f"the side of the tokens lacks {', '.join(sorted(lacking))}")
    lengths, delay = tokens.side["packet_sizes"].flatten(), tokens.side["delay"]
    if {lengths.dtype, delay.dtype} != {torch.int64} or delay.numel() != 1:
        raise ValueError(
            f"packet_sizes must be int64 [1, packets] and delay int64 [1, 1], got {lengths.dtype} "
            f"{list(tokens.side['packet_sizes'].shape)} and {delay.dtype} {list(delay.shape)}"
        )
    if int(delay) < 0:
        raise ValueError(f"the delay must not be negative, got {int(delay)}")
    data = tokens.streams[0][0].to(torch.uint8).numpy().tobytes()
    sizes: list[int] = lengths.tolist()
    if min(sizes, default=0) < 1 or sum(sizes) != len(data):
        raise ValueError(
            f"packet_sizes must be positive and sum to the {len(data)} codes, "
            f"got {len(sizes)} of sum {sum(sizes)}"
        )
    return [data[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


class _ByteCodec(Codec):
    """Base class of the three codecs; a subclass names FFmpeg's encoder and decoder, and options.

    Codes are `[B, 1, bytes]` in 0..255, with a frame rate of bytes / T * sample_rate; the side of
    the tokens has "packet_sizes" `[B, packets]`, zeros after the last, and "delay" `[B, 1]`, int64.
    Loud audio may decode to samples slightly beyond ±1.
    """

    codebook_sizes = (256,)
    device_types = ("cpu",)

    def __init__(
        self,
        name: str,
        *,
        encoder: str,
        decoder: str,
        sample_format: str,
        sample_rate: int,
        bitrate_kbps: float,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.sample_rate = sample_rate
        self.bitrate_kbps = bitrate_kbps
        self._encoder, self._decoder, self._format = encoder, decoder, sample_format
        self._options = options or {}

    def _encode(self, wav: Tensor, depth: int) -> Tokens:
        check_full_scale(wav)
        return Tokens.batch([self._encode_clip(clip[0].numpy()) for clip in wav])

    def _encode_clip(self, samples: NDArray[np.float32]) -> Tokens:
        packets, delay = _compress(self._open_encoder(), samples)
        stream = np.frombuffer(b"".join(packets), dtype=np.uint8).astype(np.int64)
        return Tokens(
            torch.from_numpy(stream)[None, None],
            frame_rates=(len(stream) / len(samples) * self.sample_rate,),
            codebook_sizes=self.codebook_sizes,
            sample_rate=self.sample_rate,
            num_samples=len(samples),
            side={
                "packet_sizes": torch.tensor([[len(packet) for packet in packets]]),
                "delay": torch.tensor([[delay]]),
            },
        )

    def _decode(self, tokens: Tokens) -> Tensor:
        # Clips are decoded one by one, each by a new decoder.
        return torch.stack([self._decode_clip(clip)[None] for clip in tokens])

    def _decode_clip(self, tokens: Tokens) -> Tensor:
        packets = _packets(tokens)
        samples = _decompress(self._open_decoder(), packets)
        delay = int(tokens.side["delay"])
        aligned = self._align(torch.from_numpy(samples), packets, delay)[: tokens.num_samples]
        if len(aligned) < tokens.num_samples:
            raise ValueError(
                f"the codes decode to {len(aligned)} samples, {tokens.num_samples} were encoded"
            )
        return aligned

    def _open_encoder(self) -> AudioCodecContext:
        context = _context(self._encoder, "w", self.sample_rate, self._options)
        context.format = av.AudioFormat(self._format)
        context.bit_rate = round(self.bitrate_kbps * 1000)
        context.open()
        return context

    def _open_decoder(self) -> AudioCodecContext:
        return _context(self._decoder, "r", self.sample_rate, {"request_sample_fmt": self._format})

    def _align(self, samples: Tensor, packets: Sequence[bytes], delay: int) -> Tensor:
        """Return decoded `samples [T]` without the delay."""
        return samples[delay:]


class Opus(_ByteCodec):
    """Opus by libopus (RFC 6716), frames of 20 ms.

    libopus chooses which of its two codecs, SILK and CELT, and which bandwidth it uses. The decoder
    returns audio at 48 kHz, which is resampled here. The pre-skip of libopus aligns CELT exactly.
    SILK is off by up to 1/24 ms more, which is compensated according to the kind of most packets of
    a clip. The remaining lag depends on frequency: at most half a sample at sample rates up to
    16 kHz, two at 48 kHz (25 clips, 6-64 kbit/s). The high-pass filter of "voip" advances low tones
    by up to another 1/7 ms.

    Args:
        bitrate_kbps: 6..256. Below 6 libopus silently produces a higher bitrate (4.4 for 0.5-4 on
            speech); above 256 FFmpeg refuses to encode a single channel.
        sample_rate: 8000, 12000, 16000, 24000 or 48000 Hz.
        application: "audio" (fidelity), "voip" (intelligibility) or "lowdelay" (CELT only,
            with a look-ahead of 2.5 ms instead of 6.5).
        vbr: whether packets may differ in size.

    Raises:
        ValueError: if a setting is not one of these.

    >>> codec = Opus(bitrate_kbps=12, vbr=False)
    >>> tokens = codec.encode(torch.zeros(1, 1, 32000))
    >>> tokens.num_tokens, tokens.side["packet_sizes"].unique().tolist()  # 101 packets * 30
    (3030, [30])
    >>> codec.decode(tokens).shape
    torch.Size([1, 1, 32000])
    """

    def __init__(
        self,
        bitrate_kbps: float = 12.0,
        sample_rate: int = 16000,
        application: str = "audio",
        vbr: bool = True,
    ) -> None:
        if sample_rate not in _OPUS_RATES:
            raise ValueError(f"opus runs at {list(_OPUS_RATES)} Hz, not {sample_rate}")
        if not 6 <= bitrate_kbps <= 256:
            raise ValueError(f"bitrate_kbps of opus must be 6..256, got {bitrate_kbps}")
        if application not in ("audio", "voip", "lowdelay"):
            raise ValueError(f"application must be audio, voip or lowdelay, got {application!r}")
        if vbr not in (True, False):
            raise ValueError(f"vbr must be true or false, got {vbr!r}")
        self.application, self.vbr = application, vbr
        super().__init__(
            "opus",
            encoder="libopus",
            decoder="libopus",
            sample_format="flt",
            sample_rate=sample_rate,
            bitrate_kbps=bitrate_kbps,
            options={
                "application": application,
                "vbr": "on" if vbr else "off",
                "frame_duration": "20",
            },
        )

    def _align(self, samples: Tensor, packets: Sequence[bytes], delay: int) -> Tensor:
        # RFC 6716, 3.1: the top five bits of a packet are its configuration: 0-3, 4-7 and 8-11 are
        # SILK in narrow, medium and wide band, 12-15 hybrid (wide-band SILK and CELT), 16-31 CELT.
        kinds = Counter(min(packet[0] >> 5, 2) if packet[0] < 128 else None for packet in packets)
        kind = kinds.most_common(1)[0][0]
        lag = 0 if kind is None else _SILK_LAG[kind]
        ratio = _OPUS_RATE // self.sample_rate
        start, phase = divmod(delay * ratio + lag, ratio)
        samples = torch.nn.functional.pad(samples, (0, max(lag, 0)))  # so that the end is not short
        return resample(samples[phase:], _OPUS_RATE, self.sample_rate)[start:]


class Mp3(_ByteCodec):
    """MPEG-1, 2 or 2.5 layer III by LAME, at constant bitrate.

    Args:
        bitrate_kbps: a bitrate of the standard for the sample rate, such as 8, 16, 24 .. 160 at
            16 kHz and 32, 40, 48 .. 320 at 44.1 kHz.
        sample_rate: 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100 or 48000 Hz.

    Raises:
        ValueError: if a setting is not one of these; the message lists those that are.
    """

    def __init__(self, bitrate_kbps: float = 32, sample_rate: int = 16000) -> None:
        if sample_rate not in _MP3_KBPS:
            raise ValueError(f"mp3 runs at {sorted(_MP3_KBPS)} Hz, not {sample_rate}")
        allowed = _MP3_KBPS[sample_rate]
        if bitrate_kbps not in allowed:  # LAME would silently use the nearest
            raise ValueError(
                f"bitrate_kbps of mp3 at {sample_rate} Hz must be one of {list(allowed)}, "
                f"got {bitrate_kbps}"
            )
        super().__init__(
            "mp3",
            encoder="libmp3lame",
            decoder="mp3float",
            sample_format="fltp",
            sample_rate=sample_rate,
            bitrate_kbps=bitrate_kbps,
        )


class Aac(_ByteCodec):
    """AAC-LC by FFmpeg's own encoder.

    Args:
        bitrate_kbps: 0.5 to 6 bits per sample, that is 8..96 at 16 kHz. The standard allows at
            most 6; below 0.5 the encoder silently produces a higher bitrate.
        sample_rate: one of the thirteen sample rates of MPEG-4, 7350..96000 Hz.

    Raises:
        ValueError: if a setting is not one of these.
    """

    def __init__(self, bitrate_kbps: float = 32, sample_rate: int = 16000) -> None:
        if sample_rate not in _AAC_RATES:
            raise ValueError(f"aac runs at {list(_AAC_RATES)} Hz, not {sample_rate}")
        lowest, highest = sample_rate * 0.5 / 1000, sample_rate * 6 / 1000
        if not lowest <= bitrate_kbps <= highest:
            raise ValueError(
                f"bitrate_kbps of aac at {sample_rate} Hz must be {lowest:g}..{highest:g}, "
                f"got {bitrate_kbps}"
            )
        super().__init__(
            "aac",
            encoder="aac",
            decoder="aac",
            sample_format="fltp",
            sample_rate=sample_rate,
            bitrate_kbps=bitrate_kbps,
        )

    def _open_decoder(self) -> AudioCodecContext:
        context = super()._open_decoder()
        context.extradata = self._open_encoder().extradata  # the settings in the format of AAC
        return context
