"""The fallback of a generation: what it is computed from, and which expressions are refused."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from jobs.errors import SqlRefused
from jobs.publication.prior import LEAST_ROWS, MOST_SEGMENTS, fallback_of
from jobs.publication.publish import publish
from jobs.run import Run
from jobs.spec import Fallback as Declared
from serving.head import Fallback
from serving.store import Store
from tests.jobs.populations import DAY, NAME, at, numbered, put, put_features
from tests.project import Project

ROWS = 1000


def declaring(run: Run, **said: Any) -> Run:
    fallback = Declared.model_validate(said)
    return replace(run, pipeline=run.pipeline.model_copy(update={"fallback": fallback}))


def mean(numbers: range) -> float:
    """Return the exact mean of the scores of keys, as `numbered` gives them."""
    scores = [Decimal(float(np.float32(number / 100000))) for number in numbers]
    return float(sum(scores) / len(scores))


def test_the_mean_of_the_population_and_of_each_segment_with_enough_rows(
    project: Project, store: Store, jobs_redis_url: str
) -> None:
    """899 are recent or lapsed, 99 of another segment are too few, and two have none."""
    run = at(put(project, DAY, numbered(project, ROWS)))
    features = project.spark.range(ROWS).selectExpr("concat('k', id) AS key", "CAST(id AS DOUBLE) AS recency")
    put_features(project, DAY, features)
    segments = "IF(recency >= 998, NULL, IF(recency >= 899, 'few', IF(recency < 300, 'recent', 'lapsed')))"
    assert publish(declaring(run, kind="prior", segments=segments), jobs_redis_url) == "live"
    head = store.head(NAME)
    assert head is not None
    assert head.fallback is not None
    assert head.fallback.kind == "prior"
    assert head.fallback.score == pytest.approx(mean(range(ROWS)), abs=1e-11)
    assert head.fallback.segments == {
        "lapsed": pytest.approx(mean(range(300, 899)), abs=1e-11),
        "recent": pytest.approx(mean(range(300)), abs=1e-11),
    }
    assert LEAST_ROWS == 100

    many = declaring(run, kind="prior", segments="recency")
    with pytest.raises(SqlRefused, match=r"purchase_propensity.yaml: \[UNRESOLVED_COLUMN"):
        fallback_of(declaring(run, kind="prior", segments="recentcy"), numbered(project, ROWS))
    assert fallback_of(many, numbered(project, ROWS)) == Fallback("prior", head.fallback.score)
    assert fallback_of(declaring(run, kind="prior"), numbered(project, ROWS)) == Fallback("prior", head.fallback.score)
    with pytest.raises(SqlRefused, match="64 bytes are the longest name"):
        fallback_of(declaring(run, kind="prior", segments="repeat('é', 33)"), numbered(project, ROWS))


def test_more_segments_than_fit_into_a_head_are_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.publication.prior.LEAST_ROWS", 1)
    scores = numbered(project, MOST_SEGMENTS + 1)
    put_features(project, DAY, scores.select("key"))
    run = declaring(project.run(DAY), kind="prior", segments="key")
    with pytest.raises(SqlRefused, match="more than 1000 segments"):
        fallback_of(run, scores)
    found = fallback_of(run, scores.where("key <> 'k7'"))
    assert found is not None
    assert len(found.segments) == MOST_SEGMENTS


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ("rand() < 0.5", "depends on chance"),
        ("current_date", "depends on the clock"),
        ("recency, tenure", "not one SQL expression"),
        ("recency) AS a, (tenure", "not one SQL expression"),
        ("max(recency)", "not one SQL expression"),
        ("max(recency) OVER (PARTITION BY tenure)", "not one SQL expression"),
        ("(SELECT max(key) FROM events)", "not one SQL expression"),
        ("recency) AS segment FROM features WHERE (1 = 1", "not one SQL expression"),
        ("'open", "not one SQL expression"),
    ],
)
def test_what_is_no_expression_of_a_row_is_refused(project: Project, segments: str, words: str) -> None:
    run = declaring(project.run(DAY), kind="prior", segments=segments)
    with pytest.raises(SqlRefused, match=f"purchase_propensity.yaml: .*{words}"):
        fallback_of(run, numbered(project, 1))


def test_a_constant_is_what_was_declared_and_nothing_is_nothing(project: Project) -> None:
    scores = numbered(project, 1)
    assert fallback_of(project.run(DAY), scores) == Fallback("constant", 0.05)
    run = project.run(DAY)
    assert fallback_of(replace(run, pipeline=run.pipeline.model_copy(update={"fallback": None})), scores) is None
