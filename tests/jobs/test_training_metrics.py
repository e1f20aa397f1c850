"""Metrics: known values, and ties that no order of rows can break."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from jobs.training.evaluation import Judged, evaluate, terciles
from jobs.training.metrics import Floats, Labels, bins, calibration_error, difference, gains, lift, log_losses, measure
from tests.jobs.test_scoring import period

ROWS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.35, 0.5, 0.9])), min_size=2, max_size=60)


def arrays(rows: list[tuple[int, float]]) -> tuple[Labels, Floats]:
    return np.array([row[0] for row in rows], np.int8), np.array([row[1] for row in rows])


def test_a_perfect_score() -> None:
    labels = np.array([0] * 90 + [1] * 10, np.int8)
    found = measure(labels, labels.astype(np.float64))
    assert found["auc"] == found["average_precision"] == 1
    assert found["lift_10"] == 10
    assert found["brier"] == 0
    assert found["log_loss"] == pytest.approx(0, abs=1e-6)


def test_a_constant_score_has_no_lift_and_the_entropy_as_loss() -> None:
    labels = np.array([1, 0, 0, 0] * 25, np.int8)
    found = measure(labels, np.full(100, 0.25))
    assert found["auc"] == 0.5
    assert found["lift_10"] == 1
    assert found["ece"] == 0
    assert found["log_loss"] == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75))


def test_calibration_error_is_the_mean_distance() -> None:
    labels = np.array([0, 1] * 50, np.int8)
    scores = np.where(np.arange(100) < 50, 0.4, 0.8)
    assert calibration_error(bins(labels, scores)) == pytest.approx(0.5 * 0.1 + 0.5 * 0.3)


def test_lift_shares_out_the_tied_rows() -> None:
    labels = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0] * 2, np.int8)
    scores = np.array([0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1] * 2)
    assert lift(labels, scores) == pytest.approx(0.5 / 0.2)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows: list[tuple[int, float]], random: st.DataObject) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # reason: hypothesis gives a random.Random
    assert measure(*arrays(shuffled)) == pytest.approx(measure(*arrays(rows)))


@given(ROWS)
def test_gains_rise_to_one_and_bins_hold_all(rows: list[tuple[int, float]]) -> None:
    labels, scores = arrays(rows)
    reached, hits = gains(labels, scores)
    assert reached[0] == hits[0] == 0
    assert reached[-1] == pytest.approx(1)
    assert hits[-1] == pytest.approx(1 if labels.any() else 0)
    assert (np.diff(reached) > 0).all()
    assert (np.diff(hits) >= 0).all()
    assert sum(one.rows for one in bins(labels, scores)) == len(labels)


def test_one_label_alone_has_no_ranking() -> None:
    found = measure(np.zeros(20, np.int8), np.linspace(0.1, 0.2, 20))
    assert found["auc"] is found["average_precision"] is found["lift_10"] is None
    assert found["log_loss"] is not None


def test_the_interval_of_a_difference_covers_entities() -> None:
    """Ten copies of each row are no more evidence than one, when they are of the same customer."""
    chance = np.random.default_rng(1)
    losses, entity = chance.normal(0.1, 1, 400), np.arange(400)
    once = difference(losses, np.zeros(400), entity)
    copied = difference(np.repeat(losses, 10), np.zeros(4_000), np.repeat(entity, 10))
    assert copied == pytest.approx(once)
    assert once["low"] < once["mean"] < once["high"]


def test_losses_stay_finite_for_a_certain_score() -> None:
    assert np.isfinite(log_losses(np.array([1, 0], np.int8), np.array([0.0, 1.0]))).all()


def test_terciles_have_bounds_in_their_names() -> None:
    values: NDArray[np.float64] = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, np.nan])
    found = terciles(values)
    assert [name.split(":")[0] for name in found] == ["low", "low", "middle", "middle", "high", "high", "none"]
    assert found[0] == "low: 1.00 to 2.67"
    assert set(terciles(np.full(3, np.nan))) == {"none"}


def test_an_evaluation_has_every_slice_and_date() -> None:
    rows = period(900, 3)
    rows = type(rows)(
        **{**vars(rows), "groups": {"spent": rows.matrix[:, 2], "month": np.array(["b", "a", "a"] * 300)}}
    )
    chance = np.random.default_rng(1)
    found = evaluate(Judged(rows, {"champion": chance.random(900), "simple": np.full(900, 0.5)}))
    assert list(found["slices"]["month"]) == ["a", "b"]
    assert [name.split(":")[0] for name in found["slices"]["spent"]] == ["low", "middle", "high", "none"]
    assert sum(part["rows"] for part in found["slices"]["spent"].values()) == 900
    assert list(found["dates"]) == ["1998-01-01"]
    assert set(found["differences"]) == {"simple"}
    assert found["all"]["models"]["simple"]["brier"] == 0.25
