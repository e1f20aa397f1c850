"""A place of its own for a test: landing folder, lake, reports; and small deliveries to put into it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pyspark.sql import SparkSession

from jobs.lake import Lake
from jobs.run import Run
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
        )

    @property
    def lake(self) -> Lake:
        return Lake(self.spark, self.settings.lake)

    def pipeline(self, name: str = "purchase_propensity") -> Pipeline:
        return load_pipeline(self.settings.pipelines, name)

    def run(self, day: date, run_id: str = "test", name: str = "purchase_propensity") -> Run:
        return Run(self.pipeline(name), day, run_id, self.lake, self.settings, Clock())

    def deliver(self, day: date, rows: Iterable[str], name: str = "transactions.csv", header: str = HEADER) -> Path:
        """Put a day's file into the landing folder and return its path."""
        return self.deliver_bytes(day, ("\n".join([header, *rows]) + "\n").encode(), name)

    def deliver_bytes(self, day: date, content: bytes, name: str = "transactions.csv") -> Path:
        path = Path(self.settings.landing) / "transactions" / f"date={day}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


def purchases(day: date, count: int, first: int = 1) -> list[str]:
    """Return `count` good rows of a day, one for each of as many customers."""
    return [f"{number:05d},{day},{1 + number % 3},{10 + number % 7}.50" for number in range(first, first + count)]
