"""PCM of few bits: every sample rounded on its own, the plainest of baselines."""

from torch import Tensor

from neuralcodec.core.audio import check_wav
from neuralcodec.core.checks import check_frames
from neuralcodec.core.tokens import Tokens

_ROUNDING = 1e-6
"""How far beyond +-1 a peak may be that only float rounding carried there."""


def check_input(wav: Tensor, num_codebooks: int | None) -> None:
    """Check what a mono codec of full scale +-1 and a single codebook is asked to encode.

    Raises:
        ValueError: if `wav` is not `[B, 1, T]`, finite and within +-1, or `num_codebooks` not 1.
    """
    check_wav(wav, channels=1)
    if num_codebooks not in (None, 1):
        raise ValueError(f"num_codebooks must be 1, got {num_codebooks}")
    peak = float(wav.abs().max())
    if peak > 1 + _ROUNDING:
        raise ValueError(f"wav must lie in [-1, 1], got a peak of {peak:.6g}: scale it down")


class Pcm:
    """Uniform quantizer of 1..16 bits a sample, a `Codec`.

    From 2 bits on the levels are those of two's complement, k * step with step = 2 ** (1 - bits)
    and k = -2 ** (bits - 1) .. 2 ** (bits - 1) - 1 (mid-tread): silence stays silence, and 16 bits
    give 16-bit audio back exactly. There is no level at +1, so the error is at most half a step
    except within half a step of +1, where it is at most a whole one. At 1 bit the levels are -0.5
    and +0.5 (mid-rise): the sign, 0 counting as positive, with an error of at most half a step.
    Ties go to the even k. A code is k + 2 ** (bits - 1).

    Args:
        bits: of a sample, 1..16.
        sample_rate: Hz; PCM doesn't mind which.

    Raises:
        ValueError: if `bits` is outside 1..16 or `sample_rate` not positive.

    >>> import torch
    >>> pcm = Pcm(bits=2)
    >>> tokens = pcm.encode(torch.tensor([[[-1.0, -0.3, 0.0, 0.6]]]))
    >>> tokens.codes.tolist(), pcm.decode(tokens).tolist(), tokens.bitrate_kbps
    ([[[0, 1, 2, 3]]], [[[-1.0, -0.5, 0.0, 0.5]]], 32.0)
    """

    def __init__(self, bits: int = 8, sample_rate: int = 16000) -> None:
        if bits not in range(1, 17):
            raise ValueError(f"bits must be 1..16, got {bits}")
        if sample_rate <= 0:
            raise ValueError(f"sample_rate must be positive, got {sample_rate}")
        self.name = "pcm"
        self.sample_rate = sample_rate
        self.channels = 1
        self.num_codebooks = 1
        self.frame_rates: tuple[float, ...] = (float(sample_rate),)
        self.codebook_sizes: tuple[int, ...] = (2**bits,)
        self.is_causal = True
        self.step = 2.0 ** (1 - bits)
        self._half = 2 ** (bits - 1)
        self._offset = 0.5 if bits == 1 else 0.0  # of the levels, in steps: mid-rise at 1 bit

    def encode(self, wav: Tensor, num_codebooks: int | None = None) -> Tokens:
        """Round `wav [B, 1, T]`, any batch, to codes `[B, 1, T]` in 0 .. 2 ** bits - 1.

        Raises:
            ValueError: as `check_input`.
        """
        check_input(wav, num_codebooks)
        steps = wav.detach().float() / self.step
        # Rounding to -0.5 and 0.5 is done by floor, so that a tie at 0 is no matter of evenness.
        level = steps.floor() if self._offset else steps.round()
        codes = level.clamp(-self._half, self._half - 1).long() + self._half
        return Tokens.uniform(
            codes,
            frame_rate=self.sample_rate,
            codebook_size=self.codebook_sizes[0],
            sample_rate=self.sample_rate,
            num_samples=wav.shape[-1],
        )

    def decode(self, tokens: Tokens) -> Tensor:
        """Give the levels of the codes: wav `[B, 1, T]` float32 in [-1, 1].

        Raises:
            ValueError: if the tokens are of another sample rate or number of bits, or not as many
                as samples.
        """
        got = (tokens.sample_rate, tokens.codebook_sizes)
        if got != (self.sample_rate, self.codebook_sizes):
            raise ValueError(
                f"tokens of {got[0]} Hz and codebook sizes {got[1]} are not of this codec: "
                f"{self.sample_rate} Hz and {self.codebook_sizes}"
            )
        check_frames(tokens.streams[0].shape[1], tokens.num_samples, tokens.num_samples)
        level: Tensor = tokens.streams[0][:, None].float() - self._half + self._offset
        return level * self.step
