"""What a new pipeline is like: its names and dates, and its files from the templates."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.resources import files
from string import Template

FIRST_DAY = date(2024, 1, 1)
HISTORY = 30  # days before the first as_of of the training
# Days of as_of dates to train on, to calibrate and to test, each with what a step of seven days may cost.
DATES = 80
SQL = ("population", "features", "labels", "evaluation")


@dataclass(frozen=True)
class Outline:
    """A pipeline that is to be written, and its example: so many days that a model can be trained."""

    name: str
    entity_key: str
    source: str
    horizon_days: int
    owner: str

    @property
    def days(self) -> list[date]:
        """The days of the example's files: three horizons lie between training, calibration, test and today."""
        return [FIRST_DAY + timedelta(days=number) for number in range(HISTORY + DATES + 3 * self.horizon_days)]

    @property
    def as_of(self) -> date:
        """The as_of of the last day's run."""
        return self.days[-1] + timedelta(days=1)

    def files(self) -> Iterator[tuple[str, str]]:
        """Give each file of the pipeline, below the project, with its text."""
        yield f"dags/pipelines/{self.name}.yaml", self._filled("pipeline.yaml")
        for kind in SQL:
            yield f"jobs/sql/{self.name}/{kind}.sql", self._filled(f"{kind}.sql")
        suites = f"expectations/suites/{self.name}"
        yield f"{suites}/{self.source}.yaml", self._filled("source.yaml")
        for suite in ("features", "scores"):
            yield f"{suites}/{suite}.yaml", self._filled(f"{suite}.yaml")

    def next_commands(self) -> list[str]:
        """Return the commands that bring the example to an answer over HTTP."""
        name, days = self.name, self.days
        return [
            f"scoreline check {name}",
            f"scoreline ingest {name} --from {days[0]} --to {days[-1]}",
            f"scoreline train {name} --as-of {self.as_of}",
            f"scoreline check {name}",
            f"scoreline score {name} --day {days[-1]}",
            f"scoreline publish {name} --day {days[-1]}",
            f'curl "$SCORELINE_URL/v1/scores/{name}/00001"',
        ]

    def _filled(self, template: str) -> str:
        text = files("jobs.new").joinpath("template", template).read_text("utf-8")
        dates = {
            "first_day": self.days[0],
            "last_day": self.days[-1],
            "start_date": self.days[-7],
            "first_as_of": self.days[HISTORY],
        }
        return Template(text).substitute({**vars(self), **dates, "owner": json.dumps(self.owner)})
