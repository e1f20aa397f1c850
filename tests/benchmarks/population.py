"""The scores that are measured: as many as wanted, each a function of its key, so that any answer can be checked."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from jobs.run import CHAMPION, Run
from jobs.tables import Table, publications_table, scores_table
from tests.project import Project

DAY = date(1998, 6, 1)
PIPELINE = "purchase_propensity"
MULTIPLIER, STEPS = 11_400_713, 2**24  # odd: each key has a score of its own; a float32 holds n / 2^24 exactly
FILES = 8


def key_of(number: int) -> str:
    """Return the entity key of a customer's number; the load scripts have the same rule."""
    return f"C{number:09d}"


def score_of(key: str) -> float:
    """Return the score of a key, in [0, 1)."""
    return int(key[1:]) * MULTIPLIER % STEPS / STEPS


def right(key: str, score: float) -> bool:
    """Tell whether an answer has the score of its key, to the last of its 24 bits."""
    return round(score * STEPS) == round(score_of(key) * STEPS)


@dataclass(frozen=True)
class Population:
    """`rows` scores as of one day, below `folder`: written once, and found again by the next run."""

    folder: Path
    rows: int

    @property
    def variables(self) -> dict[str, str]:
        """What `scoreline` needs in its environment to work on these scores."""
        return {"SCORELINE_LAKE": str(self.folder / "lake"), "SCORELINE_REPORTS": str(self.folder / "reports")}

    def run(self, spark: SparkSession) -> Run:
        """Return the run of these scores, in a lake where nothing was published yet."""
        run = Project(self.folder, spark).run(DAY, "benchmark")
        table = scores_table(PIPELINE)
        stamp, wanted = self.folder / "written.txt", self._fingerprint(table)
        if not stamp.is_file() or stamp.read_text() != wanted:
            shutil.rmtree(self.folder / "lake", ignore_errors=True)
            _write(run, table, self.rows)
            stamp.write_text(wanted)
        shutil.rmtree(self.folder / "lake" / publications_table(PIPELINE).name, ignore_errors=True)
        return run

    def scores(self, spark: SparkSession) -> tuple[Run, DataFrame]:
        """Return the run and its rows (key, score)."""
        run = self.run(spark)
        return run, run.lake.read(scores_table(PIPELINE).name).where(run.partition).select("key", "score")

    def commands(self) -> Path:
        """Return a file of one SET a key in Redis's protocol, ready for `redis-cli --pipe`."""
        path = self.folder / "sets.resp"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".unfinished")
            with unfinished.open("w", newline="") as out:
                out.writelines(_sets(self.rows))
            unfinished.rename(path)
        return path

    def _fingerprint(self, table: Table) -> str:
        rule = f"{table.ddl('')} {self.rows} {MULTIPLIER} {STEPS} {FILES}"
        return hashlib.sha256(rule.encode()).hexdigest()


def _write(run: Run, table: Table, rows: int) -> None:
    run.lake.create(table)
    scores = run.lake.spark.range(0, rows, 1, FILES).selectExpr(
        "format_string('C%09d', id) AS key",
        f"CAST(id * {MULTIPLIER} % {STEPS} / {STEPS}.0D AS FLOAT) AS score",
        f"TIMESTAMP'{run.as_of:%Y-%m-%d %H:%M:%S}' AS as_of",
        f"DATE'{run.as_of:%Y-%m-%d}' AS as_of_date",
        f"'{CHAMPION}' AS arm",
        f"'{PIPELINE}' AS model_name",
        "'1' AS model_version",
        "'none' AS model_digest",
        "0L AS events_version",
        f"'{run.run_id}' AS run_id",
    )
    scores.write.format("delta").mode("append").save(run.lake.path(table.name))


def _sets(rows: int) -> Iterator[str]:
    """As Redis's page on mass insertion has them, with the shortest texts of 32-bit scores."""
    for number in range(rows):
        key = key_of(number)
        value = str(np.float32(score_of(key)))
        yield f"*3\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n${len(value)}\r\n{value}\r\n"
