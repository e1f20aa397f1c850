"""Streams that hold a key in their state: they stand still while it is erased, and begin anew from the events."""

import logging
from collections.abc import Container
from dataclasses import dataclass

from jobs.errors import ErasureUnfinished, ScorelineError
from jobs.lake import Lake
from jobs.spec import Pipeline, Settings
from jobs.stream.checkpoint import forget
from jobs.stream.turn import outlasting
from jobs.stream.watch import Post
from serving.clock import Clock
from serving.errors import ServingError
from serving.keys import stream_wish_key
from serving.store import Store

LOG = logging.getLogger(__name__)
STOP_SECONDS = 120


@dataclass(frozen=True)
class Streams:
    """The streams of some pipelines."""

    pipelines: tuple[Pipeline, ...]
    lake: Lake
    settings: Settings
    store: Store
    clock: Clock

    def unstopped(self) -> list[str]:
        """Return whose streams nobody has stopped: they are to run again afterwards."""
        declared = (each.name for each in self.pipelines if each.stream)
        return [name for name in declared if not self.store.ask("EXISTS", stream_wish_key(name))]

    def stop(self) -> None:
        """Have all of them stand still, and forget their states.

        Raises:
            ErasureUnfinished: one does not say that it has stopped.
        """
        for each in self.pipelines:
            if each.stream:
                self.store.ask("SET", stream_wish_key(each.name), 1)
        for each in self.pipelines:
            self._await_end(each.name)
            forget(self.lake, each)

    def release(self, names: Container[str]) -> list[str]:
        """Let those run again that ran before, and say in a line each what becomes of them."""
        resumed = [each for each in self.pipelines if each.stream and each.name in names]
        # All of them before one is started: a fault of one is no reason for the others to stand still.
        self.store.unlink([stream_wish_key(each.name) for each in resumed])
        return [self._started(each) for each in resumed]

    def _started(self, pipeline: Pipeline) -> str:
        told = f"`scoreline stream start {pipeline.name}` has it begin anew from the events table"
        if not self.settings.stream_restart:
            return f"{pipeline.name}: its stream was stopped and its state removed: {told}, or what watches it does"
        try:
            return Post(pipeline, self.settings, self.store, self.clock).look()
        except (ScorelineError, ServingError) as fault:  # the key is gone, and whoever watches the stream is told again
            return f"{pipeline.name}: its stream does not run yet ({fault}): {told}"

    def _await_end(self, name: str) -> None:
        if record := outlasting(name, self.store, self.clock, STOP_SECONDS):
            raise ErasureUnfinished(
                f"{name}: the stream has not said in {STOP_SECONDS} s that it has stopped, and would write the key "
                f"back: end its process ({record.process}), and run the erasure again"
            )
