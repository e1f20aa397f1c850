"""The one scoring function: batch, range, stream, training and replay call this, so that same inputs give same bits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import skops.io
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql.types import ByteType, DoubleType, FloatType, IntegerType, LongType, ShortType
from threadpoolctl import ThreadpoolController, threadpool_limits

from jobs.artefact import TRUSTED_TYPES, refuse_unknown_types
from jobs.errors import ArtefactRefused, FrameFault, ModelRefused

CHUNK_ROWS = 10_000
FEW_ROWS, EVERY = 7, 5
SCORE_SCHEMA = "key string, as_of timestamp, score float"
_ARROW_SCHEMA = pa.schema({"key": pa.string(), "as_of": pa.timestamp("us", tz="UTC"), "score": pa.float32()})
_NUMBERS = (ByteType, ShortType, IntegerType, LongType, FloatType, DoubleType)

Matrix = NDArray[np.float64]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class ScoringModel:
    """A classifier that was loaded and checked, and the order of its features."""

    classifier: Any
    features: tuple[str, ...]

    def score(self, matrix: Matrix) -> Scores:
        """Return the probability of the label 1, float32 of shape (n,).

        `matrix` is float64, C-ordered, of shape (n, number of features); NaN where a feature is undefined. It must be
        float64 all the way: float32 puts values on the other side of a tree's threshold.
        """
        if len(matrix) == 0:
            return np.empty(0, np.float32)
        chunks = (matrix[start : start + CHUNK_ROWS] for start in range(0, len(matrix), CHUNK_ROWS))
        return np.concatenate([self._probability(np.ascontiguousarray(chunk, np.float64)) for chunk in chunks])

    def _probability(self, chunk: Matrix) -> Scores:
        return np.asarray(self.classifier.predict_proba(chunk)[:, 1], np.float32)


def load_scoring_model(blob: bytes, features: Sequence[str]) -> ScoringModel:
    """Return the model in the skops file `blob`, which takes `features` in this order. Nothing is ever unpickled.

    Raises:
        ArtefactRefused: it is no skops file, holds a type that is not on the allow-list, or takes other features.
    """
    refuse_unknown_types(blob, "the model")
    classifier: Any = skops.io.loads(blob, trusted=list(TRUSTED_TYPES))
    expects = getattr(classifier, "n_features_in_", len(features))
    if expects != len(features):
        raise ArtefactRefused(
            f"the model takes {expects} features and {len(features)} are named: {', '.join(features)}; "
            "register it with the features it was trained on"
        )
    return ScoringModel(classifier, tuple(features))


def score_frame(features: DataFrame, blob: bytes, names: Sequence[str]) -> DataFrame:
    """Return key (string), as_of (timestamp) and score (float) for each row of `features`.

    `features` has key, as_of and the columns `names`, numbers, in any order; NULL is passed to the model as NaN.

    Raises:
        FrameFault: a feature of the model is missing from the frame, or is not a number.
    """
    require_features(features, names)
    return features.select("key", "as_of", *names).mapInArrow(_scorer(blob, tuple(names)), SCORE_SCHEMA)


def score_apart(features: DataFrame, blob: bytes, names: Sequence[str]) -> pa.Table:
    """Return what `score_frame` gives, by Spark's workers.

    Raises:
        FrameFault: as `score_frame` says.
    """
    return score_frame(features, blob, names).toArrow()


def score_here(features: DataFrame, blob: bytes, names: Sequence[str]) -> pa.Table:
    """Return what `score_frame` gives, by this process: a few rows it scores before a worker has them.

    Raises:
        FrameFault: as `score_frame` says.
    """
    require_features(features, names)
    rows = features.select("key", "as_of", *names).toArrow()
    with _threads().limit(limits=1):  # as Spark has it for its workers
        return pa.Table.from_batches(_scorer(blob, tuple(names))(iter(rows.to_batches())), _ARROW_SCHEMA)


def require_features(frame: DataFrame, names: Sequence[str]) -> None:
    """Refuse a frame without the features `names`, or in which one is not a number.

    Raises:
        FrameFault: as said.
    """
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise FrameFault(
            f"features {', '.join(missing)} of the model are not among the columns of features.sql; "
            "give them back, or train and promote a model without them"
        )
    wrong = [name for name in names if not isinstance(frame.schema[name].dataType, _NUMBERS)]
    if wrong:
        kinds = ", ".join(f"{name} is {frame.schema[name].dataType.simpleString()}" for name in wrong)
        raise FrameFault(f"features.sql: {kinds}; cast what the model takes to DOUBLE")


def require_batch_invariance(model: ScoringModel, matrix: Matrix) -> None:
    """Score up to 10,000 rows of `matrix` in batches of 10,000, of 7 and (every fifth row, to save time) of 1.

    The scores' bits are compared.

    Raises:
        ModelRefused: the score of a row depends on the rows that it was scored with.
    """
    rows = np.ascontiguousarray(matrix[:CHUNK_ROWS], np.float64)
    with threadpool_limits(limits=1):  # threads cost small batches many times what they give
        bits = in_batches(model, rows, CHUNK_ROWS).view(np.uint32)
        _refuse_variance(bits, in_batches(model, rows, FEW_ROWS), FEW_ROWS)
        _refuse_variance(bits[::EVERY], in_batches(model, rows[::EVERY], 1), 1)


def in_batches(model: ScoringModel, matrix: Matrix, size: int) -> Scores:
    """Return the scores of `matrix`, handed to the model `size` rows at a time."""
    return np.concatenate([model.score(matrix[start : start + size]) for start in range(0, max(len(matrix), 1), size)])


def _refuse_variance(bits: NDArray[np.uint32], scores: Scores, size: int) -> None:
    differing = int((scores.view(np.uint32) != bits).sum())
    if differing:
        raise ModelRefused(
            f"the model gives {differing} of {len(bits)} rows other scores in batches of {size} than in one of "
            f"{CHUNK_ROWS}, so that no score could be reproduced; use a model that scores each row by itself"
        )


def _scorer(blob: bytes, names: tuple[str, ...]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def score_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        model = _load_once(blob, names)
        for batch in batches:
            scores = pa.array(model.score(_matrix(batch, names)), pa.float32())
            yield pa.RecordBatch.from_arrays([batch["key"], batch["as_of"], scores], schema=_ARROW_SCHEMA)

    return score_batches


@cache
def _threads() -> ThreadpoolController:
    """Look once for the libraries that have threads: they are there when a model is."""
    return ThreadpoolController()


@lru_cache(maxsize=2)
def _load_once(blob: bytes, names: tuple[str, ...]) -> ScoringModel:
    """Load a model once a worker: Spark keeps its Python workers from task to task."""
    return load_scoring_model(blob, names)


def _matrix(batch: pa.RecordBatch, names: tuple[str, ...]) -> Matrix:
    matrix = np.empty((batch.num_rows, len(names)), np.float64)
    for column, name in enumerate(names):
        # NULL becomes NaN; integers and floats become doubles, exactly up to 2^53.
        matrix[:, column] = batch[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return matrix
