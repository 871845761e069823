"""Laws of residual quantizers side by side."""

import io
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

AT_ONCE = Learning(start_vectors=1)


def grouped(rng: Generator, **options: Any) -> GroupedResidualVectorQuantizer:
    """Two groups of three levels of four entries, for latents of dim 6."""
    return GroupedResidualVectorQuantizer(
        [ResidualVectorQuantizer(3, 3, (4, 3, 2), **options) for _ in range(2)]
    ).fit(latents(rng))


def split(rng: Generator, **options: Any) -> SplitResidualVectorQuantizer:
    """A part of one level and a part of three, for latents of dim 6."""
    return SplitResidualVectorQuantizer(
        [
            ResidualVectorQuantizer(6, 1, 5, codebook_dim=2, projection="shared"),
            ResidualVectorQuantizer(6, 3, 4, codebook_dim=3, projection="shared", **options),
        ]
    ).fit(latents(rng))


def latents(rng: Generator) -> Tensor:
    return torch.randn(2, 6, 60, generator=rng)


def parts(module: Any) -> list[ResidualVectorQuantizer]:
    return list(module.parts)


def test_groups_code_their_slices_in_the_order_of_levels(rng: Generator) -> None:
    rvq, z = grouped(rng), latents(rng)
    codes = rvq.encode(z)
    assert rvq.codebook_sizes == (4, 4, 3, 3, 2, 2)
    for group, part in enumerate(parts(rvq)):
        channels = slice(3 * group, 3 * group + 3)
        own = part.encode(z[:, channels])
        assert torch.equal(codes[:, group::2], own)
        assert torch.equal(rvq.decode(codes)[:, channels], part.decode(own))
    assert torch.equal(codes.amax((0, 2)) < torch.tensor(rvq.codebook_sizes), torch.ones(6).bool())


def test_parts_of_a_split_code_the_same_latents_and_add_up(rng: Generator) -> None:
    rvq, z = split(rng), latents(rng)
    codes = rvq.encode(z)
    assert rvq.codebook_sizes == (5, 4, 4, 4)
    first, second = parts(rvq)
    assert torch.equal(codes, torch.cat([first.encode(z), second.encode(z)], dim=1))
    assert torch.allclose(
        rvq.decode(codes), first.decode(codes[:, :1]) + second.decode(codes[:, 1:])
    )
    assert torch.equal(rvq.decode(codes[:, :1]), first.decode(codes[:, :1]))


@pytest.mark.parametrize(("make", "counts"), [(grouped, (2, 4, 6)), (split, (1, 2, 3, 4))])
def test_prefixes_are_codes_and_forward_agrees(
    make: Any, counts: tuple[int, ...], rng: Generator
) -> None:
    rvq, z = make(rng, frame_rate=50.0).eval(), latents(rng)
    codes = rvq.encode(z)
    for count in counts:
        assert torch.equal(rvq.encode(z, count), codes[:, :count])
        result = rvq(z, count)
        assert torch.equal(result.codes, codes[:, :count])
        assert torch.allclose(result.quantized, rvq.decode(codes[:, :count]), atol=1e-5)
        assert result.num_codebooks.tolist() == [count, count]
    assert result.bitrate_kbps is None or make is grouped
    wide = rvq.encode(z, beam_width=16)
    assert wide.shape == codes.shape
    assert not torch.equal(wide, codes)


def test_groups_have_gradient_one_the_summed_rate_and_the_mean_loss(rng: Generator) -> None:
    rvq, z = grouped(rng, frame_rate=50.0).eval(), latents(rng).requires_grad_()
    result = rvq(z)
    (arrived,) = torch.autograd.grad(result.quantized.sum(), z, retain_graph=True)
    assert (arrived == 1).all()
    bits = torch.tensor(rvq.codebook_sizes).log2().sum()
    assert torch.allclose(result.bitrate_kbps, (bits * 0.05).expand(2))
    errors = [(z - rvq.decode(result.codes[:, :k])).square().mean() for k in (2, 4, 6)]
    assert torch.allclose(result.commitment_loss, torch.stack(errors).mean())


def test_the_loss_of_a_split_is_the_mean_over_the_levels_of_all_parts(rng: Generator) -> None:
    rvq, z = split(rng).eval(), latents(rng)
    alone = [part(z).commitment_loss for part in parts(rvq)]
    assert torch.allclose(rvq(z).commitment_loss, (alone[0] + 3 * alone[1]) / 4)
    assert torch.allclose(rvq(z, 1).commitment_loss, alone[0])


def test_groups_share_one_draw_of_dropout_and_a_split_keeps_its_first_part(rng: Generator) -> None:
    dropout = Learning(start_vectors=1, quantizer_dropout=1.0)
    z = torch.randn(60, 6, 4, generator=rng)
    levels = []
    for make, allowed in ((grouped, {2, 4, 6}), (split, {2, 3, 4})):
        rvq = make(rng, learning=dropout)
        decoders = make(rng).load_state_dict(rvq.state_dict(), strict=True)
        assert not decoders.missing_keys
        frozen = make(rng)
        frozen.load_state_dict(rvq.state_dict())
        result = rvq(z)
        levels.append(set(result.num_codebooks.tolist()))
        assert levels[-1] == allowed
        for item in range(5):
            count = int(result.num_codebooks[item])
            expected = frozen.decode(result.codes[item : item + 1, :count])[0]
            assert torch.allclose(result.quantized[item], expected, atol=1e-5)


@pytest.mark.parametrize("make", [grouped, split])
@pytest.mark.parametrize("shape", [(0, 6, 5), (2, 6, 0)])
def test_no_latents_give_no_codes_and_no_loss(
    make: Any, shape: tuple[int, int, int], rng: Generator
) -> None:
    rvq = make(rng)
    result = rvq(torch.zeros(shape))
    assert result.quantized.shape == shape
    assert result.codes.shape == (shape[0], rvq.num_codebooks, shape[2])
    assert result.commitment_loss.item() == result.codebook_loss.item() == 0
    assert rvq.decode(rvq.encode(torch.zeros(shape))).shape == shape


@pytest.mark.parametrize("make", [grouped, split])
def test_statistics_are_in_the_order_of_the_codes(make: Any, rng: Generator) -> None:
    rvq = make(rng)
    codes = rvq(latents(rng)).codes
    for k, size in enumerate(rvq.codebook_sizes):
        share = torch.bincount(codes[:, k].flatten(), minlength=size) / codes[:, k].numel()
        assert torch.allclose(
            rvq.entropy[k], torch.special.entr(share).sum() / torch.log(torch.tensor(2.0))
        )
        assert rvq.usage[k] == (share > 0).float().mean()
    assert torch.equal(rvq.perplexity, rvq.entropy.exp2())
    assert len(rvq.summary().splitlines()) == 1 + rvq.num_codebooks


@pytest.mark.parametrize("make", [grouped, split])
def test_state_dict_round_trip(make: Any, rng: Generator) -> None:
    rvq, other, z = make(rng), make(rng), latents(rng)
    assert not torch.equal(other.encode(z), rvq.encode(z))
    file = io.BytesIO()
    torch.save(rvq.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.encode(z), rvq.encode(z))


def test_bad_input_names_value_and_limit(rng: Generator) -> None:
    groups, two = grouped(rng), split(rng)
    z = latents(rng)
    with pytest.raises(ValueError, match="multiple of the 2 groups, got 3"):
        groups.encode(z, 3)
    with pytest.raises(ValueError, match="multiple of the 2 groups, got 5"):
        groups.decode(torch.zeros(1, 5, 2, dtype=torch.int64))
    for count in (0, 7):
        with pytest.raises(ValueError, match=rf"num_codebooks must be 1..6, got {count}"):
            groups.encode(z, count)
    with pytest.raises(ValueError, match=r"num_codebooks must be 1..4, got 5"):
        two.decode(torch.zeros(1, 5, 2, dtype=torch.int64))
    for rvq in (groups, two):
        with pytest.raises(ValueError, match=r"\[B, 6, T\]"):
            rvq.encode(z[:, :5])
        with pytest.raises(ValueError, match="int64"):
            rvq.decode(torch.zeros(1, 4, 2))
        with pytest.raises(ValueError, match="NaN"):
            rvq.encode(z * torch.nan)
    for kind in (GroupedResidualVectorQuantizer, SplitResidualVectorQuantizer):
        with pytest.raises(ValueError, match="got none"):
            kind([])
        with pytest.raises(ValueError, match="alike in dim"):
            kind([ResidualVectorQuantizer(2, 1, 4), ResidualVectorQuantizer(3, 1, 4)])
    dropping = ResidualVectorQuantizer(6, 2, 4, learning=Learning(quantizer_dropout=0.5))
    with pytest.raises(ValueError, match=r"last part only, got \[0.5, 0.0\]"):
        SplitResidualVectorQuantizer([dropping, ResidualVectorQuantizer(6, 2, 4)])


def test_prefix_lengths_are_the_codes_of_each_length(rng: Generator) -> None:
    z = latents(rng)
    for rvq, lengths in ((grouped(rng), [4, 2, 6]), (split(rng), [3, 1, 4, 2])):
        for width in (1, 3):
            found = rvq.encode(z, beam_width=width, prefix_lengths=lengths)
            assert len(found) == len(lengths)
            for length, codes in zip(lengths, found, strict=True):
                assert torch.equal(codes, rvq.encode(z, length, beam_width=width))
        few = rvq.encode(z, 2, prefix_lengths=[2])
        assert torch.equal(few[0], rvq.encode(z, 2))
        with pytest.raises(ValueError, match=r"prefix_lengths must be numbers in 1..2, got \[4\]"):
            rvq.encode(z, 2, prefix_lengths=[4])
    with pytest.raises(ValueError, match="multiple of the 2 groups, got 3"):
        grouped(rng).encode(z, prefix_lengths=[3])


def test_items_use_as_many_levels_as_they_are_told(rng: Generator) -> None:
    z = torch.randn(3, 6, 20, generator=rng)
    for rvq, items in ((grouped(rng), [2, 6, 4]), (split(rng), [1, 4, 2])):
        rvq.eval()
        result = rvq(z, item_codebooks=torch.tensor(items))
        assert torch.equal(result.codes, rvq.encode(z))
        assert result.num_codebooks.tolist() == items
        losses = []
        for item, count in enumerate(items):
            alone = rvq(z[item : item + 1], count)
            losses.append(alone.commitment_loss * count)
            assert torch.allclose(result.quantized[item], alone.quantized[0], atol=1e-6)
        assert torch.allclose(result.commitment_loss, sum(losses) / sum(items), atol=1e-6)
        with pytest.raises(ValueError, match=r"item_codebooks must lie in 0..2, got"):
            rvq(z, 2, item_codebooks=torch.tensor(items))
    with pytest.raises(ValueError, match=r"multiples of the 2 groups, got \[2, 3, 4\]"):
        grouped(rng)(z, item_codebooks=torch.tensor([2, 3, 4]))


def test_parts_fit_on_what_comes_in_pieces_and_report_all_steps(rng: Generator) -> None:
    pieces = [torch.randn(2, 6, length, generator=rng) for length in (30, 50, 20)]
    whole = torch.cat([piece.movedim(0, 1).flatten(1) for piece in pieces], dim=1)[None]
    for make in (GroupedResidualVectorQuantizer, SplitResidualVectorQuantizer):
        dim = 3 if make is GroupedResidualVectorQuantizer else 6
        expected, *others = (
            make([ResidualVectorQuantizer(dim, 2, 8) for _ in range(2)]) for _ in range(3)
        )
        steps: list[Any] = []
        expected.fit(whole, progress=steps.append)
        assert [each.step for each in steps] == list(range(1, len(steps) + 1))
        assert {each.steps for each in steps} == {len(steps)}
        for rvq, given in zip(others, (pieces, iter(pieces)), strict=True):
            rvq.fit(given)
            for name, value in expected.state_dict().items():
                assert torch.equal(value, rvq.state_dict()[name]), name
