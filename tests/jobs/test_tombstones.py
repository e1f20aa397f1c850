"""Tombstones: which erasures are at work still, by the rows of the table alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.erasure.secret import made_secret
from jobs.erasure.tombstones import Tombstones
from jobs.spec import Settings, load_pipelines
from tests.conftest import ROOT

NOON = datetime(1998, 6, 2, 12, tzinfo=UTC)


def recorded(folder: Path, *rows: str) -> Tombstones:
    """Return the tombstones of a lake with these rows, a minute apart: event, key (of another column:) and sources."""
    settings = Settings(
        project=ROOT,
        lake=str(folder / "lake"),
        landing=str(folder / "landing"),
        reports=folder / "reports",
        mlflow_uri="sqlite://",
        erasure_key_file=folder / "erasure.key",
    )
    secret = made_secret(settings.erasure_key_file)
    for minute, row in enumerate(rows):
        event, key, *sources = row.split()
        column, _, key = key.rpartition(":")
        table = pa.table(
            {
                "entity_key": [column or "customer_id"],
                "key_hash": [secret.hash_of(column or "customer_id", key)],
                "secret_id": [secret.id],
                "sources": [sources],
                "event": [event],
                "at": pa.array([NOON + timedelta(minutes=minute)], pa.timestamp("us", "UTC")),
                "told": ['{"streams": []}'],
            }
        )
        write_deltalake(settings.table("erasures"), table, mode="append")
    return Tombstones(settings)


@pytest.mark.parametrize(
    ("rows", "at_work"),
    [
        (["begun 1 a", "done 1 a"], 0),
        (["begun 1 a", "done 1 a b"], 0),
        (["begun 1 a", "done 1 *"], 0),
        (["begun 1 *", "done 1 *"], 0),
        (["begun 1 a", "done 1 b"], 1),
        (["begun 1 a b", "done 1 a"], 1),
        (["begun 1 *", "done 1 a"], 1),
        (["begun 1 a", "done 2 a"], 1),
        (["begun 1 a", "done 1 a", "begun 1 a"], 1),
        (["begun 1 a", "begun 1 b", "done 1 b"], 1),
    ],
)
def test_an_erasure_is_ended_by_one_of_all_that_it_is_of(tmp_path: Path, rows: list[str], at_work: int) -> None:
    assert len(recorded(tmp_path, *rows).unended) == at_work


def test_a_pipeline_misses_keys_that_are_erased_from_its_own_sources_alone(tmp_path: Path) -> None:
    one = load_pipelines(ROOT / "dags" / "pipelines")["purchase_propensity"]
    rows = ["begun 1 transactions more", "begun 2 *", "begun 3 visits", "begun shop:4 *", "begun 5 transactions"]
    tombstones = recorded(tmp_path, *rows, "done 5 transactions")
    erased = tombstones.at_work(one)
    assert erased is not None
    assert [key for key in "12345" if erased.has(key)] == ["1", "2"]
    assert tombstones.at_work(one.model_copy(update={"entity_key": "cds"})) is None
