"""What is known of the keys beside their events: the pipeline's dimensions, held near for all micro-batches."""

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.features import with_validity
from jobs.lake import Lake
from jobs.stream.tail import Tail
from jobs.tables import APPENDS


@dataclass(frozen=True)
class Attributes:
    """The dimensions as of one version of each: with validity intervals, by the names of the pipeline's YAML."""

    frames: dict[str, DataFrame]
    versions: dict[str, int]

    def of(self, spine: DataFrame, key: str) -> dict[str, DataFrame]:
        """Return the rows of the spine's keys alone, in its session: a view that another one has is not seen there."""
        keys = F.broadcast(spine.select(F.col("key").alias(key)))
        return {name: keys.join(frame, key).select(*frame.columns) for name, frame in self.frames.items()}


class Dimension:
    """One dimension of a lake; its rows are read, and kept by Spark, when something was delivered."""

    def __init__(self, lake: Lake, name: str, key: str) -> None:
        self.lake, self.name, self.key = lake, f"dimensions/{name}", key
        self.tail = Tail(lake.path(self.name))
        self.version = -1
        self.frame: DataFrame | None = None

    def newest(self) -> tuple[DataFrame, int]:
        """Return all rows with their validity, and the number of the last append that they know."""
        self.tail.follow()
        version = self.tail.written(APPENDS)
        if self.frame is None or (version is not None and version != self.version):
            if self.frame is not None:
                self.frame.unpersist()
            self.version = -1 if version is None else version
            self.frame = with_validity(self.lake.read_at(self.name, self.version), self.key).persist()
        return self.frame, self.version


class Dimensions:
    """All dimensions of a pipeline."""

    def __init__(self, lake: Lake, names: list[str], key: str) -> None:
        self.each = {name: Dimension(lake, name, key) for name in names}

    def now(self) -> Attributes:
        """Return them as they stand now; until the next call, or for as long as a micro-batch takes."""
        newest = {name: dimension.newest() for name, dimension in self.each.items()}
        frames = {name: frame for name, (frame, _) in newest.items()}
        return Attributes(frames, {name: version for name, (_, version) in newest.items()})
