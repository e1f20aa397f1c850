"""The check of a pipeline: its files, its model, its history, and a trial of its SQL on a sample."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from jobs.check.cost import Cost
from jobs.check.files import Files
from jobs.check.findings import Finding, faults_of, fine
from jobs.check.history import History
from jobs.check.made import made_sample
from jobs.check.model import champion
from jobs.check.planted import Garden
from jobs.check.sample import Sample, read_sample
from jobs.check.trial import FEATURES, LABELS, POPULATION, Trial
from jobs.check.worlds import Probe
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
        yield champion(self.settings, self.pipeline, features)
        yield from History(self.lake, self.pipeline).findings(files.features)
        if files.is_sound:
            yield from self._tried(files)

    def _tried(self, files: Files) -> Iterator[Finding]:
        sample = self._sample(files)
        yield fine("sample", sample.origin)
        trial = Trial(Probe(self.lake.spark, self.pipeline), Garden(self.pipeline, sample), files.sql)
        found: list[Finding] = []
        is_somebody = False
        with faults_of(POPULATION, found):
            found += trial.of_population()
            is_somebody = len(trial.spine) > 0
        yield from found
        if is_somebody:
            yield from _judged(FEATURES, self._of_features(trial))
            yield from _judged(LABELS, trial.of_labels())

    def _of_features(self, trial: Trial) -> Iterator[Finding]:
        yield from trial.of_features()
        if self.pipeline.stream is not None:
            yield self.cost.of(trial.probe, trial.sql["features"], trial.base, trial.newest)

    def _sample(self, files: Files) -> Sample:
        found = self.sample or read_sample(self.lake, self.pipeline)
        return made_sample(self.lake.spark, self.pipeline, files.suites) if found is None else found


def _judged(about: str, judgement: Iterator[Finding]) -> list[Finding]:
    """Return what a judgement says up to its end, or to the fault of SQL that ends it."""
    found: list[Finding] = []
    with faults_of(about, found):
        found += judgement
    return found
