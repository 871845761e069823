"""The parts of the benchmarks that compute: what is paired, what is compared, what is written."""

import csv
import doctest
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import bench_lookup  # scripts stand beside each other, in no package
import fit_report
import fitting
import lookup_peers
import lookup_report
import lyra_latents
import reporting
import timing

from neuralcodec.quantize.lookup import Metric

SHAPE = (6, 16, 3)
LIGHT = ("torch", "faiss", "vector_quantize_pytorch")  # quick to import


class Clock:
    """Time that passes only in the calls it makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.log = 0.0, ""
        monkeypatch.setattr(timing, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing, "sleep", lambda seconds: None)

    def call(self, name: str, seconds: Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            self.log += name
            self.now += seconds()

        return run


@pytest.mark.parametrize("module", [timing, reporting, fitting])
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_ratio_is_the_median_of_neighbours_not_of_times() -> None:
    pair = timing.Pair(ours=(1.0, 10.0, 2.0), theirs=(3.0, 20.0, 2.0))
    assert pair.ratios == (3.0, 2.0, 1.0)
    assert pair.ratio == 2.0 != statistics.median(pair.theirs) / statistics.median(pair.ours)


def test_pairs_take_turns_and_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pair = timing.time_pair(
        clock.call("a", lambda: 0.5), clock.call("b", lambda: 1.5), rounds=4, budget_seconds=60
    )
    assert clock.log == "abab" + "abbaabba"
    assert pair.ratios == (3.0,) * 4


def test_a_slow_minute_of_the_machine_leaves_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def slow(seconds: float) -> Callable[[], float]:
        return lambda: seconds * (8 if clock.now > 8 else 1)

    pair = timing.time_pair(clock.call("a", slow(0.5)), clock.call("b", slow(1.0)), rounds=9)
    assert max(pair.ours) == 8 * min(pair.ours)
    assert pair.ratio == pytest.approx(2.0)


def test_long_calls_count_from_the_first_and_short_ones_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    timing.time_pair(clock.call("a", lambda: 30.0), clock.call("b", lambda: 40.0))
    assert clock.log == "abbaab"
    clock.log = ""
    timing.time_pair(clock.call("a", lambda: 0.025), clock.call("b", lambda: 0.5), rounds=3)
    assert clock.log == "abab" + "aab" + "baa" + "aab"
    with pytest.raises(ValueError, match="at least 3, got 2"):
        timing.time_pair(lambda: None, lambda: None, rounds=2)


def test_limits_of_threads_are_taken_away_before_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    for name in timing.THREAD_LIMITS:
        monkeypatch.delenv(name, raising=False)
    timing.restart_without_thread_limits()
    assert started == []
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    timing.restart_without_thread_limits()
    assert "MKL_NUM_THREADS" not in os.environ
    assert started == [[sys.executable, *sys.orig_argv[1:]]]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's record of peak memory")
def test_peak_memory_counts_what_is_freed_again() -> None:
    mebibyte = 1 << 20

    def call() -> bytearray:
        torch.ones(64 * mebibyte, dtype=torch.uint8)
        return bytearray(b"x" * mebibyte)

    try:
        growth, kept = timing.peak_growth(call)
    except OSError as error:
        pytest.skip(f"the system keeps no such record: {error}")
    assert len(kept) == mebibyte
    assert 60 * mebibyte < growth < 90 * mebibyte


def test_tables_refuse_ragged_rows_and_say_what_is_missing() -> None:
    table = reporting.markdown_table(["peer", "ratio", "N"], [["dac", None, 22500]])
    assert table.splitlines()[2] == "| dac | - | 22,500 |"
    with pytest.raises(ValueError, match="1 cells, the header 2"):
        reporting.markdown_table(["peer", "ratio"], [["dac"]])


@pytest.mark.parametrize(
    ("value", "at_least", "answer"),
    [(0.75, True, "yes"), (0.74, True, "NO"), (0.74, False, "yes"), (None, True, "not measured")],
)
def test_verdict(value: float | None, at_least: bool, answer: str) -> None:
    assert reporting.verdict("claim", value, 0.75, at_least=at_least)[-1] == answer


def test_nmse_of_nothing_is_one_and_scale_does_not_matter(rng: torch.Generator) -> None:
    z, q = torch.randn(2, 50, 4, generator=rng)
    assert fitting.nmse(z, torch.zeros_like(z)) == 1
    assert fitting.nmse(z, z) == 0
    assert fitting.nmse(4 * z, 4 * q) == fitting.nmse(z, q)


def test_no_speaker_is_in_both_parts(rng: torch.Generator) -> None:
    names = [*"abcdefab", fitting.POOLS[0]]
    frames = [30, 20, 10, 40, 25, 15, 5, 10, 50]
    vectors = torch.arange(sum(frames)).float()[:, None]
    latents = lyra_latents.Latents(vectors, tuple(names), tuple(frames))
    split = fitting.split_speakers(latents, fit_frames=80, score_frames=1000)
    owner = [name for name, count in zip(names, frames, strict=True) for _ in range(count)]
    fitted = {owner[int(i)] for i in split.fit[:, 0]}
    scored = {owner[int(i)] for i in split.score[:, 0]}
    assert fitted == set(split.fit_speakers)
    assert scored == set(split.score_speakers)
    assert not fitted & scored
    assert fitted | scored == set("abcdef")
    assert 0 < len(split.fit) <= 80
    with pytest.raises(ValueError, match="take 6 of 6 speakers"):
        fitting.split_speakers(latents, fit_frames=1000, score_frames=10)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_excess_is_zero_for_the_nearest_and_counts_only_its_own_level(
    metric: Metric,
) -> None:
    case = lookup_peers.gaussian_case(SHAPE, 40)
    ready = lookup_peers.ours(metric, backend="reference")(case)
    codes = ready.codes(ready.run())
    assert lookup_peers.worst_excess(case, codes, metric) < 1e-6
    x, book = case.vectors[7].double(), case.codebooks[0].double()
    if metric == "euclidean":
        order = (x - book).square().sum(dim=1).argsort()
        far = (x - book[order[1]]).square().sum() - (x - book[order[0]]).square().sum()
        expected = far / x.square().sum()
    else:
        cosines = torch.nn.functional.cosine_similarity(x[None], book)
        order = cosines.argsort(descending=True)
        expected = cosines[order[0]] - cosines[order[1]]
    # Another code in the first level, and in those after it what is nearest then.
    second = case.codebooks[:, order[:2]][:1]
    rest = lookup_peers.Case((case.vectors[7] - second[0, 1])[None], case.codebooks[1:])
    follow = lookup_peers.ours(metric, backend="reference")(rest)
    codes[7, 0], codes[7, 1:] = order[1], follow.codes(follow.run())[0]
    excess = lookup_peers.worst_excess(case, codes, metric)
    assert excess == pytest.approx(float(expected), rel=1e-5)


def test_every_level_of_the_gaussian_case_takes_its_share() -> None:
    case = lookup_peers.gaussian_case((4, 64, 6), 2_000)
    ready = lookup_peers.ours()(case)
    codes, residual, left = ready.codes(ready.run()), case.vectors, []
    for book, code in zip(case.codebooks, codes.T, strict=True):
        residual = residual - book[code]
        left.append(float(residual.square().sum() / case.vectors.square().sum()))
        assert len(code.unique()) > 48
    assert all(after < 0.6 * before for before, after in pairwise(left))


@pytest.mark.parametrize(
    "contestant",
    [each for each in lookup_peers.CONTESTANTS if each.package in LIGHT and each.metric],
    ids=lambda each: each.name,
)
def test_peers_find_our_codes(contestant: lookup_peers.Contestant) -> None:
    if not contestant.installed:
        pytest.skip(f"{contestant.package} is not installed: pip install 'neuralcodec[bench]'")
    found = bench_lookup.check(contestant, lookup_peers.gaussian_case(SHAPE, 300))
    assert found["same"]
    assert found["mismatch"] < 0.02


def test_a_peer_with_other_codes_is_found_out() -> None:
    def load(case: lookup_peers.Case) -> lookup_peers.Ready:
        ready = lookup_peers.ours()(case)
        return replace(ready, codes=lambda codes: (codes[0] + 1) % SHAPE[1])

    wrong = lookup_peers.Contestant("wrong", load)
    found = bench_lookup.check(wrong, lookup_peers.gaussian_case(SHAPE, 300))
    assert not found["same"]
    assert found["mismatch"] == 1


def test_report_of_a_small_run(tmp_path: Path) -> None:
    by_name = {each.name: each for each in lookup_peers.CONTESTANTS}
    names = "naive torch", lookup_peers.SGEMM
    case = lookup_peers.gaussian_case(SHAPE, 100)
    rows = [bench_lookup.time_one(by_name[name], case, "cpu", 3, 0.1) for name in names]
    rows[0] |= {"vectors_asked": 1_000, "contestant": lookup_peers.CHUNKED}
    rows[1] |= {"vectors_asked": 1_000}
    check = {"contestant": lookup_peers.CHUNKED, "mismatch": 0.0, "excess": 0.0, "same": True}
    record = {
        "machine": timing.machine(),
        "missing": ["dac"],
        "tolerance": bench_lookup.TOLERANCE,
        "checks": [check],
        "timings": rows,
        "memory": [],
    }
    lookup_report.write_report(record, tmp_path)
    text = (tmp_path / "lookup.md").read_text(encoding="utf-8")
    assert "Not installed, so not measured: dac." in text
    assert "## CUDA\n\nNot measured." in text
    assert f"{reporting.figures(rows[0]['ratio'])} (N=100)" in text
    assert (tmp_path / "plots" / "lookup.png").stat().st_size > 10_000
    with (tmp_path / "lookup.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(row["ratio"]) for row in written] == [
        pytest.approx(row["ratio"], rel=1e-4) for row in rows
    ]
    claims = {str(line[0]): line for line in lookup_report.claims(rows)}
    streaming = claims[f"smallest ratio, {lookup_peers.CHUNKED}, N = 1,000"]
    assert streaming[2] == rows[0]["ratio"]
    assert streaming[3] == ("yes" if rows[0]["ratio"] >= 1 else "NO")
    assert claims["geometric mean of these 0"][3] == "not measured"


def test_every_fit_is_drawn() -> None:
    rows = [
        {"fit": f"fit {n}", "seconds": n + 1.0, "nmse_greedy": 0.5, "nmse_beam4": 0.4}
        for n in range(12)
    ]
    (ax,) = fit_report._draw_fits(rows, 4).axes
    assert len(ax.get_legend_handles_labels()[1]) == 12
