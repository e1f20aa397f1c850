"""The scoring function: the same bits in any batch, on Spark and off it, and nothing unpickled."""

import pickle
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import artefact
from jobs.errors import ArtefactRefused, FrameFault, ModelRefused
from jobs.scoring import ScoringModel, in_batches, load_scoring_model, require_batch_invariance, score_frame, score_here
from jobs.training.dataset import Period
from jobs.training.fit import fit_champion

NAMES = ("recency", "frequency", "spent", "gap")
AS_OF = datetime(1998, 6, 1, tzinfo=UTC)


def period(rows: int, seed: int) -> Period:
    """Rows of which some features are undefined, and labels that depend on them."""
    chance = np.random.default_rng(seed)
    matrix = chance.exponential(50, (rows, len(NAMES)))
    matrix[chance.random(matrix.shape) < 0.1] = np.nan
    labels = (np.nan_to_num(matrix[:, 0]) + chance.normal(0, 30, rows) < 40).astype(np.int8)
    dates = np.full(rows, np.datetime64("1998-01-01", "us"))
    return Period(matrix, labels, np.arange(rows), dates, matrix[:, 0], matrix[:, 1], {})


@pytest.fixture(scope="module")
def classifier() -> object:
    return fit_champion(period(4_000, 1), period(1_000, 2))


@pytest.fixture(scope="module")
def blob(classifier: object) -> bytes:
    return artefact.build(classifier, NAMES, AS_OF)[artefact.MODEL_FILE]


@pytest.fixture(scope="module")
def model(blob: bytes) -> ScoringModel:
    return load_scoring_model(blob, NAMES)


@pytest.fixture(scope="module")
def on_thresholds(model: ScoringModel) -> NDArray[np.float64]:
    """Rows whose values are exactly a threshold of a tree, one bit below it and one above."""
    trees = model.classifier.estimator.estimator[-1]
    nodes = np.concatenate([tree.nodes for step in trees._predictors for tree in step])
    # A split of "defined or not" has the largest double as its threshold.
    nodes = nodes[(nodes["is_leaf"] == 0) & (nodes["num_threshold"] < 1e9)]
    found = [nodes["num_threshold"][nodes["feature_idx"] == feature] for feature in range(len(NAMES))]
    chance = np.random.default_rng(3)
    exact = np.column_stack([chance.choice(values, 3_000) for values in found])
    return np.concatenate([exact, np.nextafter(exact, -np.inf), np.nextafter(exact, np.inf)])


def bits(scores: NDArray[np.float32]) -> list[int]:
    return [int(value) for value in scores.view(np.uint32)]


def test_a_score_is_a_float32_probability(model: ScoringModel) -> None:
    scores = model.score(period(500, 4).matrix)
    assert scores.dtype == np.float32
    assert scores.shape == (500,)
    assert ((scores > 0) & (scores < 1)).all()
    assert len(set(bits(scores))) > 50
    assert model.score(np.empty((0, len(NAMES)))).shape == (0,)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_batch_size_changes_no_bit(model: ScoringModel, on_thresholds: NDArray[np.float64], size: int) -> None:
    rows = np.concatenate([period(1_003, 5).matrix, on_thresholds[::9]])
    assert bits(in_batches(model, rows, size)) == bits(model.score(rows))


@settings(max_examples=40, deadline=None)
@given(
    rows=arrays(np.float64, st.tuples(st.integers(1, 40), st.just(len(NAMES))), elements=st.floats(width=64)),
    size=st.integers(1, 41),
)
def test_any_rows_in_any_batches_give_the_same_bits(model: ScoringModel, rows: NDArray[np.float64], size: int) -> None:
    finite = np.where(np.isinf(rows), np.nan, rows)
    assert bits(in_batches(model, finite, size)) == bits(model.score(finite))


def test_reading_the_file_back_changes_no_bit(
    model: ScoringModel, classifier: object, on_thresholds: NDArray[np.float64]
) -> None:
    before = ScoringModel(classifier, NAMES)
    assert bits(model.score(on_thresholds)) == bits(before.score(on_thresholds))


def test_thresholds_need_double_precision(model: ScoringModel, on_thresholds: NDArray[np.float64]) -> None:
    """The trap that float64 all the way avoids: were it gone, the columns could be halved."""
    halved = on_thresholds.astype(np.float32).astype(np.float64)
    assert bits(model.score(halved)) != bits(model.score(on_thresholds))


def frame_of(spark: SparkSession, matrix: NDArray[np.float64]) -> DataFrame:
    columns = {name: pa.array(matrix[:, place], from_pandas=True) for place, name in enumerate(NAMES)}
    keys = pa.array([f"{number:06d}" for number in range(len(matrix))])
    as_ofs = pa.array([AS_OF] * len(matrix), pa.timestamp("us", tz="UTC"))
    return spark.createDataFrame(pa.table({"key": keys, "as_of": as_ofs, **columns}))


def test_spark_scores_as_we_do_bit_for_bit(
    spark: SparkSession, blob: bytes, model: ScoringModel, on_thresholds: NDArray[np.float64]
) -> None:
    matrix = np.concatenate([period(11_000, 6).matrix, on_thresholds[:1_500]])
    frame = frame_of(spark, matrix).select("gap", "key", *NAMES[:3], "as_of").repartition(3)
    scored = score_frame(frame, blob, NAMES)
    assert [(field.name, field.dataType.simpleString()) for field in scored.schema] == [
        ("key", "string"), ("as_of", "timestamp"), ("score", "float"),
    ]  # fmt: skip
    table = scored.toArrow().sort_by("key")
    assert table["key"].to_pylist() == [f"{number:06d}" for number in range(len(matrix))]
    assert bits(table["score"].to_numpy()) == bits(model.score(matrix))
    assert score_here(frame, blob, NAMES).sort_by("key") == table
    assert set(table["as_of"].to_pylist()) == {AS_OF}


def test_integers_are_features_too(spark: SparkSession, blob: bytes, model: ScoringModel) -> None:
    frame = frame_of(spark, np.array([[3.0, 4.0, 5.0, np.nan], [7.0, 1.0, 2.0, 8.0]]))
    counted = frame.withColumns({"recency": F.expr("CAST(recency AS INT)"), "gap": F.expr("CAST(gap AS BIGINT)")})
    expected = score_frame(frame, blob, NAMES).orderBy("key").collect()
    assert score_frame(counted, blob, NAMES).orderBy("key").collect() == expected


def test_a_missing_feature_is_named(spark: SparkSession, blob: bytes) -> None:
    frame = frame_of(spark, period(3, 7).matrix).drop("spent", "gap")
    with pytest.raises(FrameFault, match=r"features spent, gap of the model .*features\.sql; give them back"):
        score_frame(frame, blob, NAMES)


def test_a_feature_that_is_no_number_is_named(spark: SparkSession, blob: bytes) -> None:
    frame = frame_of(spark, period(3, 7).matrix).withColumn("spent", F.expr("CAST(spent AS DECIMAL(10,2))"))
    with pytest.raises(FrameFault, match=r"spent is decimal\(10,2\); cast"):
        score_frame(frame, blob, NAMES)


class Centred:
    """A classifier that looks at the batch it is given, as one that scales by batch statistics does."""

    def predict_proba(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = 1 / (1 + np.exp(np.nanmean(matrix) - matrix[:, 0]))
        return np.column_stack([1 - scores, scores])


def test_a_model_that_looks_at_its_batch_is_refused() -> None:
    matrix = np.random.default_rng(8).normal(size=(50, len(NAMES)))
    with pytest.raises(ModelRefused, match=r"of 50 rows other scores in batches of 7"):
        require_batch_invariance(ScoringModel(Centred(), NAMES), matrix)


def test_a_good_model_passes(model: ScoringModel, on_thresholds: NDArray[np.float64]) -> None:
    require_batch_invariance(model, on_thresholds[:2_000])


def test_a_model_of_other_features_is_refused(blob: bytes) -> None:
    with pytest.raises(ArtefactRefused, match="takes 4 features and 3 are named: recency, frequency, spent"):
        load_scoring_model(blob, NAMES[:3])


class Bomb:
    """What a pickle can do: write a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    with pytest.raises(ArtefactRefused, match="is not a skops file, and was not read"):
        load_scoring_model(pickle.dumps(Bomb(mark)), NAMES)
    assert not mark.exists()
