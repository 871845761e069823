"""Codebooks are prepared for the lookup once, and again whenever they have changed."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from neuralcodec.quantize import ResidualVectorQuantizer, codebooks
from neuralcodec.quantize.lookup import Books

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cosine": {"metric": "cosine"},
    "level": {"codebook_dim": 3},
    "shared": {"codebook_dim": 3, "projection": "shared"},
}


def fitted(kind: str, rng: Generator) -> ResidualVectorQuantizer:
    torch.manual_seed(0)
    rvq = ResidualVectorQuantizer(6, 3, 8, **KINDS[kind])
    return rvq.fit(torch.randn(2, 6, 100, generator=rng)).eval()


def fresh(rvq: ResidualVectorQuantizer) -> ResidualVectorQuantizer:
    """A quantizer of the same state that has prepared nothing."""
    made = ResidualVectorQuantizer(
        rvq.dim,
        rvq.num_codebooks,
        rvq.codebook_sizes,
        codebook_dim=None if rvq.project_in is None else rvq.codebook_dim,
        projection="level" if rvq._by_level else "shared",
        metric=rvq.metric,
    )
    made.load_state_dict(rvq.state_dict())
    return made.eval()


def double(tensor: Tensor) -> None:
    tensor.mul_(2)


def double_data(tensor: Tensor) -> None:
    tensor.data.mul_(2)


def replace_data(tensor: Tensor) -> None:
    tensor.data = 2 * tensor.data


def move_one_entry(tensor: Tensor) -> None:
    tensor.data.flatten(0, -2)[3] = 5.0


def copy_by_numpy(tensor: Tensor) -> None:
    tensor.detach().numpy()[:] *= -1


CHANGES: list[Callable[[Tensor], None]] = [
    double,
    double_data,
    replace_data,
    move_one_entry,
    copy_by_numpy,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_prepared_again(
    kind: str, change: Callable[[Tensor], None], rng: Generator
) -> None:
    z = torch.randn(2, 6, 40, generator=rng)
    rvq = fitted(kind, rng)
    for name in ("codebooks", "project_out.weight"):
        if name.startswith("project") and rvq.project_out is None:
            continue
        codes = rvq.encode(z)
        rvq.encode(z, 2)
        rvq.encode(z, beam_width=2)
        rvq.decode(codes)
        with torch.no_grad():
            change(rvq.get_buffer(name) if name == "codebooks" else rvq.get_parameter(name))
        wanted = fresh(rvq)
        assert torch.equal(rvq.encode(z), wanted.encode(z))
        assert torch.equal(rvq.encode(z, 2), wanted.encode(z, 2))
        assert torch.equal(rvq.encode(z, beam_width=2), wanted.encode(z, beam_width=2))
        assert torch.equal(rvq.decode(codes), wanted.decode(codes))
        assert torch.equal(rvq(z).quantized, wanted(z).quantized)


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_not_changed_is_prepared_once(
    kind: str, rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = torch.randn(2, 6, 40, generator=rng)
    rvq = fitted(kind, rng)
    for _ in range(2):
        rvq.decode(rvq.encode(z))
        rvq.encode(z, 2)
        rvq.encode(z, beam_width=2)

    def fail(*arguments: Any, **settings: Any) -> Any:
        raise AssertionError("prepared again")

    monkeypatch.setattr(Books, "of", fail)
    monkeypatch.setattr(codebooks, "decode_tables", fail)
    with torch.no_grad():
        rvq.decode(rvq.encode(z))
        rvq.encode(z, 2)
        rvq.encode(z, beam_width=2)
        rvq(z)


def test_training_sees_every_step_of_its_codebooks(rng: Generator) -> None:
    rvq = fitted("plain", rng).train()
    for step in range(5):
        z = torch.randn(2, 6, 40, generator=rng) + step
        wanted = fresh(rvq).encode(z)
        assert torch.equal(rvq.encode(z), wanted)
        assert torch.equal(rvq(z).codes, wanted)


def test_copies_prepare_for_themselves(rng: Generator) -> None:
    z = torch.randn(2, 6, 40, generator=rng)
    rvq = fitted("plain", rng)
    codes = rvq.encode(z)
    for other in (copy.deepcopy(rvq), pickle.loads(pickle.dumps(rvq))):
        assert torch.equal(other.encode(z), codes)
        other.codebooks.mul_(-1)
        assert torch.equal(other.encode(z), fresh(other).encode(z))
        assert torch.equal(rvq.encode(z), codes)


def test_types_and_devices_are_prepared_for_themselves(rng: Generator) -> None:
    z = torch.randn(2, 6, 40, generator=rng)
    rvq = fitted("plain", rng)
    codes = rvq.encode(z)
    assert torch.equal(rvq.bfloat16().encode(z), fresh(rvq).bfloat16().encode(z))
    assert torch.equal(rvq.float().encode(z), fresh(rvq).encode(z))
    assert rvq.to("meta").encode(z.to("meta")).is_meta
    assert codes.shape == (2, 3, 40)


def test_decoding_keeps_its_gradients(rng: Generator) -> None:
    rvq = fitted("level", rng)
    codes = rvq.encode(torch.randn(2, 6, 40, generator=rng))
    with torch.no_grad():
        still = rvq.decode(codes)
    assert not still.requires_grad
    found = rvq.decode(codes)
    assert torch.equal(found, still)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert rvq.project_out is not None
    assert rvq.project_out.weight.grad is not None


def test_threads_share_what_is_prepared(rng: Generator) -> None:
    z = torch.randn(1, 6, 40, generator=rng)
    rvq = fitted("plain", rng)
    codes = fresh(rvq).encode(z)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: rvq.encode(z), range(40)):
            assert torch.equal(found, codes)


def test_inference_tensors_are_prepared_each_time(rng: Generator) -> None:
    with torch.inference_mode():
        rvq = fitted("plain", rng)
        z = torch.randn(1, 6, 40, generator=rng)
        rvq.encode(z)
        rvq.codebooks.mul_(-1)
        assert torch.equal(rvq.encode(z), fresh(rvq).encode(z))
