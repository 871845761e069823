"""What a quantizer stores: enough to be built anew anywhere, and never read differently."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from neuralcodec.quantize import (
    GroupedResidualVectorQuantizer,
    Learning,
    ResidualVectorQuantizer,
    SplitResidualVectorQuantizer,
)
from neuralcodec.quantize.projection import Projection

SIZES = (16, 8, 4)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cosine": {"metric": "cosine"},
    "level": {"codebook_dim": 3},
    "shared": {"codebook_dim": 3, "projection": "shared"},
    "gradient": {"learning": Learning(codebooks="gradient")},
}


def build(kind: str = "plain") -> ResidualVectorQuantizer:
    return ResidualVectorQuantizer(6, 3, SIZES, **KINDS[kind])


def stored(module: nn.Module) -> dict[str, Tensor]:
    """The state dict as a file gives it back."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    found: dict[str, Tensor] = torch.load(file, weights_only=True)
    return found


def emptied(make: Callable[[], nn.Module]) -> Any:
    """A module that was built on meta and then given memory with anything in it."""
    with torch.device("meta"):
        module = make()
    module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(7)
    return module


def train(rvq: nn.Module, z: Tensor, steps: int = 20) -> None:
    torch.manual_seed(3)
    rvq.train()
    for step in range(steps):
        rvq(z + 0.01 * step)


def assert_alike(one: Any, other: Any, z: Tensor) -> None:
    """Two quantizers code alike, and go on alike."""
    assert torch.equal(one.encode(z), other.encode(z))
    assert torch.equal(one.decode(one.encode(z)), other.decode(one.encode(z)))
    for rvq in (one, other):
        train(rvq, z)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("assign", [False, True])
def test_a_quantizer_built_on_meta_is_what_is_loaded_into_it(
    kind: str, assign: bool, rng: Generator
) -> None:
    z = torch.randn(2, 6, 100, generator=rng)
    good = build(kind).fit(z)
    if assign:
        with torch.device("meta"):
            rvq = build(kind)
    else:
        rvq = emptied(lambda: build(kind))
    assert rvq.load_state_dict(stored(good), assign=assign) == ([], [])
    assert_alike(good, rvq, z)


@pytest.mark.parametrize("kind", [GroupedResidualVectorQuantizer, SplitResidualVectorQuantizer])
def test_quantizers_side_by_side_can_be_built_on_meta(kind: Any, rng: Generator) -> None:
    def make() -> nn.Module:
        made: nn.Module = kind([build(), build()])
        return made

    z = torch.randn(2, 12 if kind is GroupedResidualVectorQuantizer else 6, 100, generator=rng)
    good: Any = make()
    good.fit(z)
    rvq = emptied(make)
    rvq.load_state_dict(stored(good))
    assert_alike(good, rvq, z)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_that_was_never_filled_is_no_codebook(kind: str, rng: Generator) -> None:
    z = torch.randn(2, 6, 100, generator=rng)
    for call in ("encode", "decode", "fit", "__call__"):
        rvq = emptied(lambda: build(kind))
        given = torch.zeros(1, 3, 5, dtype=torch.int64) if call == "decode" else z
        with pytest.raises(RuntimeError, match=r"tensors have .*: load .* or, after to_empty"):
            getattr(rvq, call)(given)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_parameters_makes_a_new_quantizer(kind: str, rng: Generator) -> None:
    z = torch.randn(2, 6, 100, generator=rng)
    torch.manual_seed(0)
    new = build(kind)
    rvq = emptied(lambda: build(kind))
    torch.manual_seed(0)
    for module in (*(m for m in rvq.modules() if isinstance(m, Projection)), rvq):
        module.reset_parameters()
    for name, value in new.state_dict().items():
        assert torch.equal(value, rvq.state_dict()[name]), name
    with pytest.raises(RuntimeError, match="no codebooks yet"):
        rvq.encode(z)
    for each in (new, rvq):
        train(each, z, 1)
    assert_alike(new, rvq, z)


def test_a_model_of_transformers_comes_back_as_it_was_saved(rng: Generator, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    class Model(transformers.PreTrainedModel):  # type: ignore[misc,name-defined]  # not imported
        config_class = transformers.PretrainedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.rvq = build("level")
            self.post_init()

    z = torch.randn(2, 6, 100, generator=rng)
    for trained in (True, False):  # a start that is not complete has codebooks too
        model = Model(transformers.PretrainedConfig())
        if trained:
            model.rvq.fit(z)
        else:
            model.train().rvq(z[:, :, :10])
        model.save_pretrained(tmp_path)
        again = Model.from_pretrained(tmp_path)
        assert torch.equal(again.rvq.encode(z), model.rvq.encode(z))
        assert torch.equal(again.rvq.tables(), model.rvq.tables())


def test_a_state_dict_of_other_sizes_or_another_metric_is_refused_with_both_named(
    rng: Generator,
) -> None:
    z = torch.randn(2, 6, 300, generator=rng)
    wide = ResidualVectorQuantizer(6, 3, 16).fit(z)
    for theirs, mine, said in (
        (wide, build(), r"\(16, 8, 4\) .* has codebook_size \(16, 16, 16\)"),
        (build().fit(z), wide, r"\(16, 16, 16\) .* has codebook_size \(16, 8, 4\)"),
        (build("cosine").fit(z), build(), r"metric euclidean, the state dict has .* metric cosine"),
    ):
        before = copy.deepcopy(mine.state_dict())
        for inside in (False, True):  # a model names its quantizer
            into: nn.Module = nn.ModuleDict({"rvq": mine}) if inside else mine
            given = nn.ModuleDict({"rvq": theirs}).state_dict() if inside else theirs.state_dict()
            named = ("rvq" if inside else "the quantizer") + " has .*" + said
            with pytest.raises(RuntimeError, match=named):
                into.load_state_dict(given)
        assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())


def test_a_state_dict_from_before_layouts_were_stored_is_read(rng: Generator) -> None:
    z = torch.randn(2, 6, 300, generator=rng)
    good = build().fit(z)
    old = stored(good)
    del old["layout"]
    for rvq in (build(), emptied(build)):
        assert rvq.load_state_dict(dict(old)) == ([], [])
        assert torch.equal(rvq.encode(z), good.encode(z))
    wide = stored(ResidualVectorQuantizer(6, 3, 16).fit(z))
    del wide["layout"]
    with pytest.raises(RuntimeError, match=r"has codebook_size \(16, 8, 4\) .* \(16, 16, 16\)"):
        build().load_state_dict(wide)


@pytest.mark.parametrize("way", ["state dict", "meta", "pickle", "deepcopy"])
def test_a_start_goes_on_where_it_was_saved(way: str, rng: Generator) -> None:
    batches = [torch.randn(1, 6, 20, generator=rng) for _ in range(20)]

    def run(rvq: ResidualVectorQuantizer, some: list[Tensor], seed: int) -> None:
        torch.manual_seed(seed)
        for batch in some:
            rvq(batch)

    rvq = build()  # 16 entries want 256 vectors
    run(rvq, batches[:7], 0)
    assert not rvq.fitted
    if way == "pickle":
        other = pickle.loads(pickle.dumps(rvq))
    elif way == "deepcopy":
        other = copy.deepcopy(rvq)
    else:
        other = emptied(build) if way == "meta" else build()
        other.load_state_dict(stored(rvq))
    assert torch.equal(other.encode(batches[0]), rvq.encode(batches[0]))
    for each in (rvq, other):
        run(each, batches[7:], 1)
        assert each.fitted
        assert not any(name.startswith("start") for name in each.state_dict())
    for name, value in rvq.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_state_dict_without_the_quantizer_leaves_its_start_alone(rng: Generator) -> None:
    rvq = build()
    rvq(torch.randn(1, 6, 20, generator=rng))
    assert rvq._start.vectors is not None
    nn.ModuleDict({"rvq": rvq}).load_state_dict({}, strict=False)
    assert rvq._start.vectors is not None
    rvq.load_state_dict(build().state_dict())
    assert rvq._start.vectors is None


def test_what_a_quantizer_knows_is_in_its_state_dict_or_its_arguments(rng: Generator) -> None:
    rvq = build("level").fit(torch.randn(2, 6, 100, generator=rng))
    buffers = {name for name, _ in rvq.named_buffers()}
    assert buffers <= rvq.state_dict().keys()
