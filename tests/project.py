"""A place of its own for a test: landing folder, lake, reports; and small deliveries to put into it."""

import re
import shutil
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from jobs.lake import Lake
from jobs.registry import ModelVersion
from jobs.run import Run
from jobs.score import score
from jobs.spec import Pipeline, Settings, load_pipeline
from serving.clock import Clock
from tests.conftest import ROOT

HEADER = "customer_id,purchase_date,cds,amount"


@dataclass(frozen=True)
class Project:
    """The project's own pipelines over folders of a test."""

    folder: Path
    spark: SparkSession
    root: Path = ROOT
    registry: str = ""

    @property
    def settings(self) -> Settings:
        return Settings(
            project=self.root,
            lake=str(self.folder / "lake"),
            landing=str(self.folder / "landing"),
            reports=self.folder / "reports",
            mlflow_uri=self.registry or f"sqlite:///{self.folder}/mlflow.db",
            erasure_key_file=self.folder / "erasure.key",
        )

    @property
    def lake(self) -> Lake:
        return Lake(self.spark, self.settings.lake)

    def pipeline(self, name: str = "purchase_propensity") -> Pipeline:
        return load_pipeline(self.settings.pipelines, name)

    def run(self, day: date, run_id: str = "test", name: str = "purchase_propensity") -> Run:
        return Run(self.pipeline(name), day, run_id, self.lake, self.settings, Clock())

    def copied(self, folder: Path) -> "Project":
        """Return the project with pipelines, suites and SQL of its own, below `folder`, for a test to change."""
        other = folder / "project"
        for part in ("dags/pipelines", "expectations/suites", "jobs/sql"):
            shutil.copytree(self.root / part, other / part, dirs_exist_ok=True)
        return replace(self, root=other)

    def deliver(self, day: date, rows: Iterable[str], name: str = "transactions.csv", header: str = HEADER) -> Path:
        """Put a day's file into the landing folder and return its path."""
        return self.deliver_bytes(day, ("\n".join([header, *rows]) + "\n").encode(), name)

    def deliver_bytes(self, day: date, content: bytes, name: str = "transactions.csv") -> Path:
        path = Path(self.settings.landing) / "transactions" / f"date={day}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


def with_stream(yaml: str, stream: str) -> str:
    """Return a pipeline's YAML with this `stream:` in place of its own; without one for ""."""
    without = re.sub(r"^stream:.*\n(?:  .*\n)*", "", yaml, flags=re.MULTILINE)
    return f"{without}\n{stream}\n"


def scored(project: Project, model: ModelVersion, day: date, run_id: str = "test") -> Run:
    """Score a day and return its run."""
    run = project.run(day, run_id)
    score(run, model.version, model.digest)
    return run


def bits(frame: DataFrame) -> dict[str, bytes]:
    """Return the 32 bits of each key's score."""
    return {row.key: struct.pack("<f", row.score) for row in frame.collect()}


def purchases(day: date, count: int, first: int = 1) -> list[str]:
    """Return `count` good rows of a day, one for each of as many customers."""
    return [f"{number:05d},{day},{1 + number % 3},{10 + number % 7}.50" for number in range(first, first + count)]
