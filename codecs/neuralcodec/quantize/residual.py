"""Residual vector quantizer: each codebook quantizes what the ones before it left over."""

import math
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from neuralcodec.quantize.kmeans import kmeans
from neuralcodec.quantize.lookup import nearest


class ResidualVectorQuantizer(nn.Module):
    """Quantize latents with K codebooks of V entries, coarse to fine.

    Algorithm 1 of Zeghidour et al. 2021, SoundStream (arXiv:2107.03312). The code is nested: the
    first k levels of it are the code of the first k codebooks alone.

    Args:
        dim: D, width of a latent.
        num_codebooks: K.
        codebook_size: V, entries of each codebook.

    Attributes:
        codebooks: `[K, V, D]` float32 buffer; part of the `state_dict`.

    Raises:
        ValueError: if one of the three is below 1.
    """

    codebooks: Tensor
    fitted: Tensor

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int) -> None:
        super().__init__()
        for name, value in (
            ("dim", dim),
            ("num_codebooks", num_codebooks),
            ("codebook_size", codebook_size),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.dim, self.num_codebooks, self.codebook_size = dim, num_codebooks, codebook_size
        self.register_buffer("codebooks", torch.zeros(num_codebooks, codebook_size, dim))
        self.register_buffer("fitted", torch.tensor(False))

    @classmethod
    def from_codebooks(cls, codebooks: ArrayLike | Tensor) -> Self:
        """Make a quantizer from trained codebooks `[K, V, D]`, its own or another model's.

        Raises:
            ValueError: if the shape is another, or a value is not finite.
        """
        books = torch.as_tensor(codebooks, dtype=torch.float32)
        if books.ndim != 3 or 0 in books.shape:
            raise ValueError(f"codebooks must be [K, V, D] and not empty, got {list(books.shape)}")
        if not torch.isfinite(books).all():
            raise ValueError("codebooks hold NaN or infinite values")
        num_codebooks, codebook_size, dim = books.shape
        rvq = cls(dim, num_codebooks, codebook_size)
        rvq.codebooks.copy_(books)
        rvq.fitted.fill_(True)
        return rvq

    def _check_latents(self, z: Tensor) -> None:
        if z.ndim != 3 or z.shape[1] != self.dim or not z.is_floating_point():
            raise ValueError(f"z must be float [B, {self.dim}, T], got {z.dtype} {list(z.shape)}")
        if not torch.isfinite(z).all():
            raise ValueError("z holds NaN or infinite values")

    def _check_depth(self, num_codebooks: int) -> int:
        if not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(f"num_codebooks must be 1..{self.num_codebooks}, got {num_codebooks}")
        return num_codebooks

    @torch.no_grad()
    def fit(self, z: Tensor, *, iterations: int = 8, seed: int = 0) -> Self:
        """Fit the codebooks to latents, level by level, by k-means on what is left over.

        Deterministic: the same latents and seed give the same codebooks. The first k of them don't
        depend on K.

        Args:
            z: latents, `[B, D, T]`, float; B * T of them.
            iterations: of k-means a level.
            seed: of its random start.

        Returns:
            The quantizer itself.

        Raises:
            ValueError: if D differs from `dim`, a value is not finite, or there are fewer than V
                latents.
        """
        self._check_latents(z)
        residual = z.detach().float().transpose(1, 2).reshape(-1, self.dim)  # [N, D]
        if len(residual) < self.codebook_size:
            raise ValueError(
                f"codebook_size {self.codebook_size} needs at least as many latents to fit on, "
                f"got {len(residual)}"
            )
        generator = torch.Generator().manual_seed(seed)
        for codebook in self.codebooks:
            codebook.copy_(
                kmeans(residual, self.codebook_size, iterations=iterations, generator=generator)
            )
            residual = residual - codebook[nearest(residual, codebook)]
        self.fitted.fill_(True)
        return self

    @torch.no_grad()
    def encode(self, z: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Find the code of each latent, greedily, level by level, in double precision.

        Args:
            z: latents, `[B, D, T]`, float.
            num_codebooks: levels to use, 1..K; default all.

        Returns:
            codes `[B, K, T]` int64 in 0..V-1; of equally near entries the lowest. T may be 0.

        Raises:
            ValueError: if `num_codebooks` is outside 1..K, D differs from `dim`, or a value is not
                finite.
            RuntimeError: if the quantizer has no codebooks yet.
        """
        self._check_latents(z)
        depth = self._check_depth(self.num_codebooks if num_codebooks is None else num_codebooks)
        if not self.fitted:
            raise RuntimeError("the quantizer has no codebooks yet: call fit, or from_codebooks")
        residual = z.detach().double().transpose(1, 2).reshape(-1, self.dim)  # [N, D]
        codes = []
        for codebook in self.codebooks[:depth].double():
            codes.append(nearest(residual, codebook))
            residual = residual - codebook[codes[-1]]
        return torch.stack(codes).view(depth, z.shape[0], z.shape[2]).transpose(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Sum the entries that the codes name.

        Args:
            codes: `[B, k, T]` int64 of the first k levels, 1 <= k <= K.

        Returns:
            `[B, D, T]` float32.

        Raises:
            ValueError: if the shape is another, or a code is outside 0..V-1.
        """
        if codes.ndim != 3 or codes.dtype != torch.int64:
            raise ValueError(f"codes must be int64 [B, K, T], got {codes.dtype} {[*codes.shape]}")
        depth = self._check_depth(codes.shape[1])
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise ValueError(
                f"codes must lie in 0..{self.codebook_size - 1}, "
                f"got {int(codes.min())}..{int(codes.max())}"
            )
        levels = zip(self.codebooks[:depth], codes.unbind(1), strict=True)
        z = torch.stack([codebook[code] for codebook, code in levels]).sum(dim=0)  # [B, T, D]
        return z.transpose(1, 2)

    def extra_repr(self) -> str:
        """Give the sizes, for `print(rvq)`."""
        bits = self.num_codebooks * math.log2(self.codebook_size)
        return (
            f"dim={self.dim}, num_codebooks={self.num_codebooks}, "
            f"codebook_size={self.codebook_size}, bits={bits:g} a frame"
        )
