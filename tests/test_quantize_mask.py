"""Padding: it teaches nothing, counts nowhere, and changes nothing for the frames beside it."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from neuralcodec.quantize import (
    GroupedResidualVectorQuantizer,
    Learning,
    ResidualVectorQuantizer,
    SplitResidualVectorQuantizer,
)
from neuralcodec.quantize.statistics import histogram

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cosine": {"metric": "cosine"},
    "level": {"codebook_dim": 3},
    "shared": {"codebook_dim": 3, "projection": "shared"},
    "gradient": {"learning": Learning(codebooks="gradient", start_vectors=1)},
    "rotation": {"learning": Learning(gradient="rotation", start_vectors=1)},
}
LENGTHS = (50, 20, 1, 0)


def build(kind: str) -> ResidualVectorQuantizer:
    torch.manual_seed(0)
    return ResidualVectorQuantizer(
        6, 3, 8, **{"learning": Learning(start_vectors=1), **KINDS[kind]}
    )


@pytest.fixture
def clips(rng: Generator) -> list[Tensor]:
    """Latents `[D, T]` of several lengths."""
    return [torch.randn(6, length, generator=rng) for length in LENGTHS]


def padded(clips: list[Tensor], value: float) -> tuple[Tensor, Tensor]:
    """Clips as a batch `[B, D, T]` with a value after their ends, and the mask `[B, T]`."""
    batch = torch.full((len(clips), clips[0].shape[0], max(LENGTHS)), value)
    for place, clip in zip(batch, clips, strict=True):
        place[:, : clip.shape[1]] = clip
    return batch, torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 1e3, torch.nan])
def test_padding_changes_nothing(kind: str, value: float, clips: list[Tensor]) -> None:
    batch, mask = padded(clips, value)
    joined = torch.cat(clips, dim=1)[None].clone().requires_grad_()
    batch = batch.requires_grad_()
    one, other = build(kind), build(kind)
    for step in range(3):
        torch.manual_seed(step)
        alone = one(joined)
        torch.manual_seed(step)
        found = other(batch, mask=mask)
        assert torch.equal(found.codes.mT[mask], alone.codes[0].T)
        assert torch.equal(found.quantized.mT[mask], alone.quantized[0].T)
        assert not found.codes.mT[~mask].any()
        assert not found.quantized.mT[~mask].any()
        for name in ("commitment_loss", "codebook_loss"):
            assert torch.allclose(getattr(found, name), getattr(alone, name), rtol=1e-5)
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    for result, z in ((alone, joined), (found, batch)):
        loss = result.quantized.square().sum() + result.commitment_loss + result.codebook_loss
        loss.backward()
        assert z.grad is not None
    assert batch.grad is not None
    assert joined.grad is not None
    assert torch.allclose(batch.grad.mT[mask], joined.grad[0].T, atol=1e-5)
    assert not batch.grad.mT[~mask].any()


@pytest.mark.parametrize("kind", ["plain", "cosine", "level", "shared"])
def test_a_fit_leaves_padding_out(kind: str, clips: list[Tensor]) -> None:
    batch, mask = padded(clips, torch.nan)
    expected = build(kind).fit(torch.cat(clips, dim=1)[None])
    one = build(kind).fit(batch, mask=mask)
    several = build(kind).fit([batch[:2], batch[2:]], mask=[mask[:2], mask[2:]])
    iterator = build(kind).fit(iter([batch]), mask=iter([mask]), refinements=0)  # type: ignore[arg-type]
    unrefined = build(kind).fit(torch.cat(clips, dim=1)[None], refinements=0)
    for rvq, wanted in ((one, expected), (several, expected), (iterator, unrefined)):
        assert torch.equal(rvq.codebooks, wanted.codebooks)


@pytest.mark.parametrize("kind", [GroupedResidualVectorQuantizer, SplitResidualVectorQuantizer])
def test_parts_leave_padding_out(kind: Any, clips: list[Tensor]) -> None:
    if kind is GroupedResidualVectorQuantizer:
        clips = [torch.cat([clip, clip.flip(0)]) for clip in clips]
    batch, mask = padded(clips, torch.nan)
    joined = torch.cat(clips, dim=1)[None]
    one, other = (kind([build("plain"), build("plain")]) for _ in range(2))
    one.fit(joined)
    other.fit([batch], mask=[mask])
    alone, found = one(joined), other(batch, mask=mask)
    assert torch.equal(found.codes.mT[mask], alone.codes[0].T)
    assert torch.equal(found.quantized.mT[mask], alone.quantized[0].T)
    assert torch.allclose(found.commitment_loss, alone.commitment_loss)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_histogram_leaves_padding_out(clips: list[Tensor]) -> None:
    batch, mask = padded(clips, 0.0)
    rvq = build("plain").fit(torch.cat(clips, dim=1)[None])
    codes = rvq.encode(batch)
    wanted = histogram([rvq.encode(torch.cat(clips, dim=1)[None])], [8] * 3)
    assert torch.equal(histogram([codes], [8] * 3, [mask]), wanted)
    assert torch.equal(histogram([codes[:1], codes[1:]], [8] * 3, [mask[:1], mask[1:]]), wanted)
    with pytest.raises(ValueError, match="zip"):
        histogram([codes], [8] * 3, [mask, mask])


def test_a_batch_of_padding_alone_teaches_nothing(clips: list[Tensor]) -> None:
    rvq = build("plain")
    rvq.fit(torch.cat(clips, dim=1)[None])
    before = {name: value.clone() for name, value in rvq.state_dict().items()}
    z = torch.full((2, 6, 5), torch.nan, requires_grad=True)
    result = rvq(z, mask=torch.zeros(2, 5, dtype=torch.bool))
    assert result.commitment_loss.item() == 0
    result.commitment_loss.backward()
    assert z.grad is not None
    assert not z.grad.any()
    assert all(torch.equal(value, before[name]) for name, value in rvq.state_dict().items())


def test_a_mask_that_does_not_fit_is_named(clips: list[Tensor]) -> None:
    batch, mask = padded(clips, 0.0)
    rvq = build("plain").fit(torch.cat(clips, dim=1)[None])
    for wrong in (mask.float(), mask[:1], mask[:, None]):
        with pytest.raises(ValueError, match=r"mask must be bool \[4, 50\] on cpu, got torch"):
            rvq(batch, mask=wrong)
        with pytest.raises(ValueError, match=r"mask must be bool \[4, 50\] on cpu, got torch"):
            rvq.fit(batch, mask=wrong)
    with pytest.raises(ValueError, match=r"mask \[4, 50\] must be a torch tensor, got a numpy"):
        rvq(batch, mask=mask.numpy())
    with pytest.raises(ValueError, match="zip"):
        rvq.fit([batch, batch], mask=[mask])
