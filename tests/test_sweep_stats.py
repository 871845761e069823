"""Means, intervals and best points."""

import math

import numpy as np
import pandas as pd
import pytest

from neuralcodec.analysis.stats import frontier, summarise


def _rows(values: dict[str, list[float]]) -> pd.DataFrame:
    """Rows of points named by the keys, a clip a value, with bitrates 1, 2, 3 ..."""
    rows = [
        {
            "codec": "mdct",
            "num_codebooks": number,
            "codebook_size": 16,
            "frame_rate": 50.0,
            "settings": "{}",
            "tokens_per_second": 50.0 * number,
            "bitrate_kbps": float(number),
            "clip": str(clip),
            "si_sdr": value,
            "status": "ok",
            "point": point,
        }
        for number, (point, scores) in enumerate(values.items(), start=1)
        for clip, value in enumerate(scores)
    ]
    return pd.DataFrame(rows)


def test_mean_and_interval_of_a_point() -> None:
    summary = summarise(_rows({"a": [1.0, 2.0, 3.0, 6.0], "b": [5.0]}), "si_sdr")
    assert summary["point"].tolist() == ["a", "b"]
    assert summary["mean"].tolist() == [3.0, 5.0]
    assert summary["n"].tolist() == [4, 1]
    assert 1 < summary["low"][0] < 3 < summary["high"][0] < 6
    assert math.isnan(summary["low"][1])  # one clip says nothing of others


def test_same_rows_and_seed_give_the_same_interval() -> None:
    rows = _rows({"a": list(np.random.default_rng(0).normal(size=20))})
    one, same, other = (summarise(rows, "si_sdr", seed=seed) for seed in (5, 5, 6))
    pd.testing.assert_frame_equal(one, same)
    assert one["mean"].equals(other["mean"])
    assert not one["low"].equals(other["low"])
    assert other["low"][0] == pytest.approx(one["low"][0], abs=0.1)


def test_rates_are_means_over_the_clips_that_are_scored() -> None:
    rows = _rows({"a": [1.0, 2.0, math.nan]})
    rows["bitrate_kbps"], rows["tokens_per_second"] = [6.0, 8.0, 99.0], [50.0, 70.0, 999.0]
    summary = summarise(rows, "si_sdr")
    assert summary["bitrate_kbps"].tolist() == [7.0]
    assert summary["tokens_per_second"].tolist() == [60.0]


def test_undefined_and_failed_rows_dont_count() -> None:
    rows = _rows({"a": [1.0, math.nan, 3.0, 100.0]})
    rows.loc[3, "status"] = "failed"
    summary = summarise(rows, "si_sdr")
    assert summary["mean"].tolist() == [2.0]
    assert summary["n"].tolist() == [2]
    assert summarise(rows.assign(si_sdr=math.nan), "si_sdr").empty


def test_perfect_clips_make_an_infinite_mean() -> None:
    summary = summarise(_rows({"a": [1.0, math.inf]}), "si_sdr")
    assert summary["mean"].tolist() == [math.inf]
    assert summary["low"].isna().all()


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    sets = {str(number): list(rng.normal(3.0, 1.0, size=40)) for number in range(300)}
    summary = summarise(_rows(sets), "si_sdr", confidence=0.9)
    covered = ((summary["low"] <= 3.0) & (summary["high"] >= 3.0)).mean()
    assert 0.84 < covered < 0.95
    wider = summarise(_rows(sets), "si_sdr", confidence=0.99)
    assert (wider["low"] < summary["low"]).all()


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_frontier_keeps_what_beats_all_that_is_cheaper(higher_is_better: bool) -> None:
    rng = np.random.default_rng(1)
    values = {str(number): [float(value)] for number, value in enumerate(rng.normal(size=60))}
    summary = summarise(_rows(values), "si_sdr").sample(frac=1.0, random_state=2)
    best = frontier(summary, "bitrate_kbps", higher_is_better=higher_is_better)
    sign = 1 if higher_is_better else -1
    costs, scores = best["bitrate_kbps"].to_numpy(), sign * best["mean"].to_numpy()
    assert len(costs) > 1
    assert (np.diff(costs) > 0).all()
    assert (np.diff(scores) > 0).all()
    for cost, score in zip(summary["bitrate_kbps"], sign * summary["mean"], strict=True):
        assert scores[costs <= cost].max() >= score


def test_frontier_of_equal_cost_keeps_the_better() -> None:
    summary = summarise(
        _rows({"a": [1.0], "b": [2.0], "c": [2.0]}).assign(bitrate_kbps=1.0), "si_sdr"
    )
    assert len(frontier(summary, "bitrate_kbps", higher_is_better=True)) == 1
    assert frontier(summary, "bitrate_kbps", higher_is_better=True)["mean"].tolist() == [2.0]


def test_mean_without_a_value_hides_no_point_of_the_frontier() -> None:
    rows = _rows({"a": [1.0], "b": [math.inf, -math.inf], "c": [2.0], "d": [3.0]})
    summary = summarise(rows, "si_sdr")
    assert math.isnan(summary["mean"][1])
    best = frontier(summary, "bitrate_kbps", higher_is_better=True)
    assert best["point"].tolist() == ["a", "c", "d"]


def test_points_have_the_names_of_their_curves() -> None:
    rows = _rows({"a": [1.0], "b": [2.0]})
    assert summarise(rows, "si_sdr")["label"].tolist() == ["mdct", "mdct"]
    assert summarise(rows.assign(label=["x", ""]), "si_sdr")["label"].tolist() == ["x", "mdct"]


def test_bad_arguments() -> None:
    rows = _rows({"a": [1.0]})
    with pytest.raises(ValueError, match="did you mean 'si_sdr'"):
        summarise(rows, "si_srd")
    with pytest.raises(ValueError, match="the rows hold no 'stoi'"):
        summarise(rows, "stoi")
    with pytest.raises(ValueError, match=r"confidence must lie in 0..1, got 95"):
        summarise(rows, "si_sdr", confidence=95)
