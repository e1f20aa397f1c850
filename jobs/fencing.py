"""Fences, and one commit of Delta that uses up several of them: its own writer takes one application id alone."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame

from jobs.errors import Fenced


@dataclass(frozen=True)
class Fence:
    """The right to write once to a table what is read from now on.

    An application id, a version above the last one that it committed, and the table's version at that time; and that
    of the table of erasures, for a key that is erased later may be in what was read.
    """

    app_id: str
    version: int
    since: int
    erasures: int


def commit(
    frame: DataFrame, log: Any, options: Mapping[str, str], fences: Sequence[Fence], check: Callable[[], None]
) -> None:
    """Write `frame` to the table of a Delta `log` and use up all `fences`, or nothing of it.

    `options` are a writer's: with `replaceWhere` what matches that is replaced, without it rows are appended. What
    `check` raises ends it before anything is written, and again right before the commit.

    Raises:
        Fenced: somebody else used one of the fences first. Delta's own conflicts come as they are: of who commits
            meanwhile it finds out by itself, for a transaction has read the ids that it was asked for.
    """
    jvm: Any = frame.sparkSession._jvm  # noqa: SLF001  reason: Delta has no other way to set several ids at once
    session: Any = frame.sparkSession._jsparkSession  # noqa: SLF001  reason: as above
    check()
    transaction = log.startTransaction()
    for fence in fences:
        if transaction.txnVersion(fence.app_id) != fence.version - 1:
            path = log.dataPath()
            raise overtaken(f"{path.getParent().getName()}/{path.getName()}", fence)
    delta, nothing = jvm.org.apache.spark.sql.delta, jvm.scala.Option.empty()
    mode = jvm.org.apache.spark.sql.SaveMode.valueOf("Overwrite" if "replaceWhere" in options else "Append")
    empty, given = jvm.PythonUtils.toScalaMap({}), jvm.PythonUtils.toScalaMap(dict(options))
    writer = delta.commands.WriteIntoDelta(
        log,
        mode,
        delta.DeltaOptions(given, session.sessionState().conf()),
        jvm.PythonUtils.toSeq([]),
        empty,
        frame._jdf,  # noqa: SLF001  reason: as above
        nothing,
        nothing,
        False,  # noqa: FBT003  reason: Scala's signature
    )
    written = writer.write(transaction, session, nothing, False)  # noqa: FBT003  reason: as above
    now = jvm.scala.Option.apply(time.time_ns() // 1_000_000)  # Delta forgets by the time of its log
    marks = [delta.actions.SetTransaction(fence.app_id, fence.version, now) for fence in fences]
    said = [jvm.scala.Option.apply(options.get(name)) for name in ("replaceWhere", "userMetadata")]
    operation = delta.DeltaOperations.Write(mode, nothing, *said, *[nothing] * 5)
    check()
    transaction.commit(written.appendedAll(jvm.PythonUtils.toSeq(marks)), operation)


def overtaken(name: str, fence: Fence) -> Fenced:
    """Return what to say of a fence that somebody else used first."""
    return Fenced(
        f"{name}: another attempt of {fence.app_id} committed first; nothing was written by this one. "
        "Let the other one end, then run the task again"
    )
