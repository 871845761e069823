"""Two processes train one quantizer on different data: they must end with the same codebooks."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from neuralcodec.quantize import Learning, ResidualVectorQuantizer

pytestmark = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()), reason="needs gloo"
)

STEPS = 12
WANTED = Learning(decay=0.8, start_vectors=20)  # 160 vectors: the start takes several batches
IN_STEPS = Learning(decay=0.8, start_vectors=20, update="manual")
PARTS = ("halves", "quarters")
KINDS: dict[str, dict[str, Any]] = {
    "ema": {"learning": WANTED},
    "gradient": {
        "codebook_dim": 3,
        "learning": Learning(codebooks="gradient", decay=0.8, start_vectors=20),
    },
    "no start": {"learning": Learning(decay=0.8, start_vectors=0)},
}


def batch(rank: int, step: int) -> Tensor:
    """Latents of a process: other data and other sizes than its neighbour's; once none."""
    rng = Generator().manual_seed(10 * step + rank)
    count = 0 if (rank, step) == (0, 9) else 20 + 7 * rank + step
    return torch.randn(1 + rank, 4, count, generator=rng) + rank


def build(kind: str) -> ResidualVectorQuantizer:
    torch.manual_seed(0)
    return ResidualVectorQuantizer(4, 2, 8, **KINDS[kind])


def kill(rvq: ResidualVectorQuantizer) -> None:
    """Put an entry out of reach."""
    with torch.no_grad():
        rvq.codebooks[1, 3] = 1e3
    rvq.counts[1, 3] = 0.01


def train(rank: int, folder: str) -> None:
    """Run in each process: train, and leave the state behind."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    for kind in KINDS:
        rvq = build(kind)
        model: torch.nn.Module = rvq
        learned = list(rvq.parameters())
        if learned:
            model = DistributedDataParallel(rvq)
        optimizer = torch.optim.Adam(learned or [torch.zeros(1)], lr=1e-2)
        torch.manual_seed(rank)  # what one draws must not matter to the other
        for step in range(STEPS):
            if step == 9:
                kill(rvq)
            result = model(batch(rank, step))
            if learned:
                optimizer.zero_grad()
                (result.codebook_loss + result.commitment_loss).backward()
                optimizer.step()
        torch.save(rvq.state_dict(), Path(folder) / f"{kind}-{rank}.pt")
    # one batch in two halves, for comparison with one process
    rvq = ResidualVectorQuantizer.from_codebooks(books(), learning=WANTED)
    for step in range(3):
        rvq(whole(step)[:, :, rank::2])
    torch.save(rvq.state_dict(), Path(folder) / f"halves-{rank}.pt")
    # and each half in two steps
    rvq = ResidualVectorQuantizer.from_codebooks(books(), learning=IN_STEPS)
    for step in range(3):
        for part in whole(step)[:, :, rank::2].chunk(2, dim=2):
            rvq(part)
        rvq.update()
    torch.save(rvq.state_dict(), Path(folder) / f"quarters-{rank}.pt")
    distributed.destroy_process_group()


def books() -> Tensor:
    return torch.randn(2, 8, 4, generator=Generator().manual_seed(3))


def whole(step: int) -> Tensor:
    return torch.randn(1, 4, 501, generator=Generator().manual_seed(step))


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Tensor]]]:
    """Of each kind of quantizer, the state that both processes ended with."""
    folder = tmp_path_factory.mktemp("ddp")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=train, args=(rank, str(folder))) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        process.kill()  # one that waits for the other in vain
    assert [process.exitcode for process in processes] == [0, 0]
    return {
        kind: [torch.load(folder / f"{kind}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for kind in (*KINDS, *PARTS)
    }


@pytest.mark.parametrize("kind", [*KINDS, *PARTS])
def test_all_state_is_equal_bit_by_bit(
    kind: str, states: dict[str, list[dict[str, Tensor]]]
) -> None:
    first, second = states[kind]
    assert {"codebooks", "counts", "histogram", "fitted"} <= first.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert first["fitted"]
    assert torch.isfinite(first["codebooks"]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_entry_put_out_of_reach_is_alive(
    kind: str, states: dict[str, list[dict[str, Tensor]]]
) -> None:
    state = states[kind][0]
    assert (state["codebooks"].abs() < 100).all()
    assert (state["histogram"] > 0).all()


@pytest.mark.parametrize("kind", PARTS)
def test_parts_teach_what_the_whole_teaches(
    kind: str, states: dict[str, list[dict[str, Tensor]]]
) -> None:
    rvq = ResidualVectorQuantizer.from_codebooks(books(), learning=WANTED)
    for step in range(3):
        rvq(whole(step))
    for name, value in rvq.state_dict().items():
        torch.testing.assert_close(states[kind][0][name], value, atol=1e-4, rtol=1e-4)
