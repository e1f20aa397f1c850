"""A shop of any size: the real purchases, repeated under other customers' names, with a model and a live generation."""

import hashlib
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import count
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.demo.land import PURCHASES, rows
from jobs.features import counted_once, features
from jobs.registry import ModelVersion, fetch
from jobs.run import CHAMPION, Run, as_of_day
from jobs.scoring import score_frame
from jobs.sqlfile import pipeline_sql
from jobs.tables import APPENDS, VERSION, events_table, scores_table
from serving.answers import Score
from tests.benchmarks.population import PIPELINE
from tests.jobs.populations import streaming
from tests.project import Project
from tests.registered import register_small

LAST_DAY = date(1998, 6, 30)  # of the purchases
EVENTS = "events/transactions"
FILES = 8


@dataclass(frozen=True)
class Shop:
    """The purchases `copies` times, each time by customers of their own: their histories are as long as the real ones.

    What is below `folder` is written once, and found again by the next run.
    """

    folder: Path
    copies: int

    @property
    def events(self) -> int:
        """How many events there are."""
        return self.copies * sum(1 for _ in rows())

    def opened(self, spark: SparkSession) -> Project:
        """Return the shop as it was on the evening of the last day, for somebody to go on with."""
        built = Project(self.folder / "built", spark)
        stamp, wanted = self.folder / "written.txt", self._fingerprint(built)
        if not stamp.is_file() or stamp.read_text() != wanted:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._build(built)
            stamp.write_text(wanted)
        opened = replace(built, folder=self.folder / "open", registry=built.settings.mlflow_uri)
        shutil.rmtree(opened.folder, ignore_errors=True)
        shutil.copytree(built.settings.lake, opened.settings.lake)
        return opened if opened.pipeline().stream else streaming(opened)

    def _build(self, project: Project) -> None:
        model = register_small(project.settings.mlflow_uri, self.folder / "report")
        table = events_table(*project.pipeline().events)
        project.lake.create(table)
        project.lake.deliver(_history(project.spark, self.copies), table, project.lake.fence(table.name, APPENDS))
        _write_scores(project.run(LAST_DAY, "benchmark"), model)

    def _fingerprint(self, project: Project) -> str:
        events, scores = events_table(*project.pipeline().events), scores_table(PIPELINE)
        rule = f"{events.ddl('')} {scores.ddl('')} {self.copies} {FILES} {self.folder}"  # the registry has whole paths
        return hashlib.sha256(rule.encode()).hexdigest()


def variables(project: Project) -> dict[str, str]:
    """Return what `scoreline` needs in its environment to work in a shop."""
    settings = project.settings
    return {
        "SCORELINE_PROJECT": str(settings.project),
        "SCORELINE_LAKE": settings.lake,
        "SCORELINE_REPORTS": str(settings.reports),
        "SCORELINE_MLFLOW_URI": settings.mlflow_uri,
    }


class Buyers:
    """Who buys next, and what: each purchase of the real ones as likely as any other, by one of its copies."""

    def __init__(self, copies: int) -> None:
        self.copies, self.numbers, self.chance = copies, count(), random.Random(1)  # noqa: S311  reason: no secret
        self.bought = [line.split(",") for _, line in rows()]

    def buy(self, many: int, today: date) -> pa.Table:
        """Return so many purchases of today, as `LiveEvents` takes them."""
        drawn = self.chance.choices(self.bought, k=many)
        customers, _, items, amounts = zip(*drawn, strict=True)
        return pa.table(
            {
                "event_id": [f"live-{next(self.numbers)}" for _ in drawn],
                "event_time": pa.array([datetime.combine(today, time(), UTC)] * many, pa.timestamp("us", "UTC")),
                "customer_id": [_name(customer, self.chance.randrange(self.copies)) for customer in customers],
                "purchase_date": [today] * many,
                "cds": pa.array(map(int, items), pa.int32()),
                "amount": pa.array(map(Decimal, amounts), pa.decimal128(10, 2)),
            }
        )


def by_batch(project: Project, answers: Sequence[Score]) -> list[float]:
    """Return the scores that the batch's code gives at each answer's own (key, as_of), in their order.

    All events of a shop arrive in order, so that those visible at an as_of are those that the stream had seen.
    """
    model = fetch(project.settings.mlflow_uri, *_model(project))
    pipeline, spark = project.pipeline(), project.spark
    spine = spark.createDataFrame([(one.key, one.as_of) for one in answers], "key string, as_of timestamp").distinct()
    known = project.lake.read(EVENTS).drop(VERSION)
    theirs = known.join(F.broadcast(spine), F.col(pipeline.entity_key) == F.col("key"), "left_semi")
    seen = features(
        counted_once(theirs, pipeline.entity_key), spine, {}, pipeline_sql(project.settings, pipeline, "features").text
    )
    scores = score_frame(seen, model.blob, model.version.features).collect()
    found = {(row.key, row.as_of.replace(tzinfo=UTC)): float(row.score) for row in scores}
    return [found[one.key, one.as_of] for one in answers]


def _name(customer: str, copy: int) -> str:
    return f"{customer}-{copy}"


def _history(spark: SparkSession, copies: int) -> DataFrame:
    """As `ingest` would append the files of all days."""
    lines = spark.read.text(str(PURCHASES)).where("value NOT LIKE '%customer_id%'")
    cells = lines.selectExpr("monotonically_increasing_id() AS id", "split(trim(value), ' +') AS cell")
    bought = spark.range(0, copies, 1, FILES).selectExpr("id AS copy").crossJoin(F.broadcast(cells))
    return bought.selectExpr(
        "sha2(concat(id, '/', copy), 256) AS event_id",
        "to_timestamp(cell[1], 'yyyyMMdd') AS event_time",
        "to_timestamp(cell[1], 'yyyyMMdd') + INTERVAL 1 DAY AS arrived_at",
        "concat(cell[0], '-', copy) AS customer_id",
        "to_date(cell[1], 'yyyyMMdd') AS purchase_date",
        "CAST(cell[2] AS INT) AS cds",
        "CAST(cell[3] AS DECIMAL(10,2)) AS amount",
        "to_date(cell[1], 'yyyyMMdd') AS day",
        "concat('transactions/date=', to_date(cell[1], 'yyyyMMdd'), '/transactions.csv') AS source_file",
        "sha2(cell[1], 256) AS file_digest",
    )


def _write_scores(run: Run, model: ModelVersion) -> None:
    """A score of each customer as of the last evening; made up, for nobody looks at them."""
    table = scores_table(PIPELINE)
    run.lake.create(table)
    keys = run.lake.read(EVENTS).selectExpr("customer_id AS key").distinct()
    scores = keys.selectExpr(
        "key",
        "CAST(pmod(xxhash64(key), 1000) / 1000.0D AS FLOAT) AS score",
        f"TIMESTAMP'{as_of_day(LAST_DAY):%Y-%m-%d %H:%M:%S}' AS as_of",
        f"DATE'{as_of_day(LAST_DAY):%Y-%m-%d}' AS as_of_date",
        f"'{CHAMPION}' AS arm",
        f"'{model.name}' AS model_name",
        f"'{model.version}' AS model_version",
        f"'{model.digest}' AS model_digest",
        "0L AS events_version",
        "CAST(map() AS MAP<STRING,BIGINT>) AS dimension_versions",
        f"'{run.run_id}' AS run_id",
    )
    scores.write.format("delta").mode("append").save(run.lake.path(table.name))


def _model(project: Project) -> tuple[str, str, str]:
    row = project.lake.read(scores_table(PIPELINE).name).first()
    assert row is not None  # for mypy: each shop has customers
    return row.model_name, row.model_version, row.model_digest
