"""The check of a pipeline: its files, its model, its history, and a trial of its SQL on a sample."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from jobs.check.cost import Cost
from jobs.check.files import Files
from jobs.check.findings import Finding, faults_of, fine
from jobs.check.history import History
from jobs.check.made import made_sample
from jobs.check.model import champion
from jobs.check.planted import Garden
from jobs.check.sample import Sample, read_sample
from jobs.check.trial import Trial
from jobs.check.worlds import Probe
from jobs.errors import DataFault
from jobs.features import SPINE
from jobs.lake import Lake
from jobs.spec import Pipeline, Settings


@dataclass(frozen=True)
class Check:
    """A pipeline that is to be proved before it runs, on `sample` if one is given, else on one of its own tables."""

    lake: Lake
    settings: Settings
    pipeline: Pipeline
    cost: Cost = field(default_factory=Cost)
    sample: Sample | None = None

    def findings(self) -> Iterator[Finding]:
        """Give what is found, in the order of the work."""
        yield fine(f"{self.pipeline.name}.yaml", "declares a pipeline")
        files = Files(self.settings, self.pipeline)
        files.read()
        files.plan(self.lake.spark)
        yield from files.found
        features = None if files.features is None else [name for name in files.features.names if name not in SPINE]
        yield champion(self.settings, self.pipeline, features).finding
        yield from History(self.lake, self.pipeline).findings(files.features)
        if files.is_sound:
            yield from self._tried(files)

    def _tried(self, files: Files) -> Iterator[Finding]:
        sample = self._sample(files)
        yield fine("sample", sample.origin)
        trial = Trial(Probe(self.lake.spark, self.pipeline), Garden(self.pipeline, sample), files.sql)
        yield from _said("population.sql", trial.of_population)
        populated = False
        with suppress(DataFault):  # which has been said
            populated = len(trial.spine) > 0
        if not populated:
            return
        features = _said("features.sql", trial.of_features)
        yield from features
        yield from _said("labels.sql", trial.of_labels)
        if self.pipeline.stream is not None:
            cost = partial(self.cost.of, trial.probe, files.sql["features"], trial.base, trial.newest)
            # What cannot be computed has been said.
            yield from (each for each in _said("features.sql", lambda: [cost()]) if each not in features)

    def _sample(self, files: Files) -> Sample:
        found = self.sample or read_sample(self.lake, self.pipeline)
        return made_sample(self.lake.spark, self.pipeline, files.suites) if found is None else found


def _said(about: str, judge: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return what a judge says, with what its SQL is refused for when it runs."""
    found: list[Finding] = []
    with faults_of(about, found):
        found += judge()
    return found
