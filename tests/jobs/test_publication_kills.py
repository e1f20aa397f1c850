"""Publishers killed at each step, stopped and continued, and a Redis that is full or emptied: what is live is right."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL

import pytest
from pyspark.sql import SparkSession

from jobs.errors import RailsBreached
from jobs.publication.publish import publish
from jobs.publication.rollback import Wish, roll_back
from jobs.publication.standing import Standing
from serving.clock import microseconds
from serving.errors import StoreRefused
from serving.head import parse_head
from serving.keys import block_key
from serving.refusals import RefusalStore
from serving.store import Store
from tests.conftest import ROOT, free_port, redis_at
from tests.jobs.populations import DAY, NAME, numbered, put
from tests.jobs.publisher import BEFORE, STEPS
from tests.jobs.stage import Stage
from tests.project import Project
from tests.serving.publishing import raw

ROWS, MANY = 5000, 60_000
NEXT = DAY + timedelta(days=1)
SWAPPED = STEPS.index("swapped")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Project:
    """A lake with the scores of two days."""
    project = Project(tmp_path_factory.mktemp("killed") / "a project", spark)
    put(project, DAY, numbered(project, ROWS))
    put(project, NEXT, numbered(project, ROWS, "id / 50000"))
    return project


@pytest.fixture(scope="module")
def stage(project: Project, redis_url: str) -> Stage:
    """The lake and an empty Redis, in which the first day has gone live."""
    stage = Stage(project, redis_url.removesuffix("/0") + "/6")
    with Store(stage.url) as store:
        raw(store).flushdb()
    assert publish(project.run(DAY), stage.url) == "live"
    return stage


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    """What a test starts itself; stopped after it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def alone(project: Project, tmp_path: Path) -> Stage:
    """The scores in a lake of their own, and the address of a Redis that a test starts."""
    own = replace(project, folder=tmp_path / "a project")
    shutil.copytree(project.folder / "lake" / "scores", own.folder / "lake" / "scores")
    return Stage(own, f"redis://127.0.0.1:{free_port()}/0")


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_and_run_again_ends_as_a_clean_run(stage: Stage, step: str) -> None:
    run, before = stage.project.run(NEXT), stage.record()
    stage.kill(run, step)
    assert (stage.record() == before) == (STEPS.index(step) < SWAPPED)
    assert publish(run, stage.url) == "live"
    head = stage.sound(run)
    assert before is not None
    assert (head.as_of, head.rows, head.epoch) == (microseconds(run.as_of), ROWS, parse_head(before).epoch)


@pytest.mark.parametrize("step", BEFORE)
def test_who_goes_on_after_another_has_ended_changes_nothing(stage: Stage, step: str) -> None:
    run = stage.project.run(NEXT)
    with stage.stopped(run, step) as zombie:
        assert publish(run, stage.url) == "live"
        live = stage.record()
        said = zombie.go_on()
    assert "another publication began meanwhile" in said
    assert stage.record() == live
    stage.sound(run)
    assert stage.project.lake.read(f"publications/{NAME}").where("event = 'differs'").isEmpty()


def test_who_goes_on_after_a_rollback_does_not_undo_it(stage: Stage) -> None:
    """Not even with scores of another model, which begin an epoch of the same number."""
    run = stage.project.run(NEXT)
    assert publish(run, stage.url) == "live"
    put(stage.project, NEXT, numbered(stage.project, ROWS), version="2")
    with stage.stopped(run, "before the swap") as zombie, stage.site() as site:
        roll_back(site.pipeline, site.store, site.ledger, Wish(reason="it was bad"))
        live = stage.record()
        said = zombie.go_on()
    assert "a rollback or a forced publication came in between" in said
    assert stage.record() == live


def test_killed_while_it_is_refused_and_run_again_is_refused_again(stage: Stage) -> None:
    """It was on record in the ledger, and nowhere else."""
    before, run = stage.record(), put(stage.project, NEXT, numbered(stage.project, ROWS // 2))
    stage.kill(run, "refused")
    assert stage.record() == before
    with pytest.raises(RailsBreached):
        publish(run, stage.url)
    assert stage.record() == before
    with stage.site() as site:
        assert RefusalStore(site.store, NAME).read()[run.as_of.date()].verdict == "rail breach"
    put(stage.project, NEXT, numbered(stage.project, ROWS))  # for the tests that come after


def test_a_redis_that_fills_up_keeps_what_is_live_and_takes_the_next_when_there_is_room(
    alone: Stage, servers: ExitStack, tmp_path: Path
) -> None:
    """The retry has room for its blocks because it frees those of the attempt that was killed, though Redis is full."""
    servers.enter_context(redis_at(alone.port, tmp_path, "--maxmemory-policy", "noeviction"))
    first = put(alone.project, DAY, numbered(alone.project, MANY))
    run = put(alone.project, NEXT, numbered(alone.project, MANY, "id / 50000"))
    with Store(alone.url) as store:
        empty = used(store)
        assert publish(first, alone.url) == "live"
        live, generation = alone.record(), used(store) - empty
        raw(store).config_set("maxmemory", used(store) + generation // 2)
        with succeeding_jobs(alone.project.spark), pytest.raises(StoreRefused, match="maxmemory"):
            publish(run, alone.url)
        assert alone.record() == live
        alone.sound(first)

        raw(store).config_set("maxmemory", 0)
        alone.kill(put(alone.project, NEXT, numbered(alone.project, 2 * MANY)), "written")
        raw(store).config_set("maxmemory", used(store) - generation // 2)
        assert publish(put(alone.project, NEXT, numbered(alone.project, MANY)), alone.url) == "live"
    alone.sound(run)


@contextmanager
def succeeding_jobs(spark: SparkSession) -> Iterator[None]:
    """No job of Spark fails: the other tasks of one that does go on, and write behind what is removed."""
    context, group = spark.sparkContext, "succeeding"
    context.setJobGroup(group, "all of it succeeds")
    yield
    context.setJobGroup("", "")
    infos = map(context.statusTracker().getJobInfo, context.statusTracker().getJobIdsForGroup(group))
    assert {info.status for info in infos if info} == {"SUCCEEDED"}


def used(store: Store) -> int:
    return int(raw(store).info("memory")["used_memory"])


def test_a_redis_that_comes_back_empty_is_filled_again_and_helps_no_zombie(
    alone: Stage, servers: ExitStack, tmp_path: Path
) -> None:
    """Neither one that saw what was live, nor one that saw nothing, has been forced, and sees nothing again."""
    run = alone.project.run(NEXT)
    with redis_at(alone.port, tmp_path, "--maxmemory-policy", "noeviction"):
        assert publish(run, alone.url) == "live"
        before = alone.sound(run)
        zombie = servers.enter_context(alone.stopped(run, "before the swap"))
    with redis_at(alone.port, tmp_path, "--maxmemory-policy", "noeviction"):
        forced = servers.enter_context(alone.stopped(run, "before the replacement", "it is urgent"))
    servers.enter_context(redis_at(alone.port, tmp_path, "--maxmemory-policy", "noeviction"))
    assert "did not go live: another publication began meanwhile, or Redis was emptied" in forced.go_on()
    assert alone.record() is None
    assert finished(scoreline(alone, "republish")) == f"{NAME}: live: the scores as of 1998-06-03"
    after = alone.sound(run, lost=[before.token])
    assert after.token > before.token
    assert replace(after, token=before.token, run_id="", published_at=0) == replace(before, run_id="", published_at=0)
    assert "did not go live" in zombie.go_on()
    assert alone.sound(run, lost=[before.token]) == after


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_republication_that_was_killed_is_run_again_to_its_end(
    alone: Stage, servers: ExitStack, tmp_path: Path
) -> None:
    run = put(alone.project, NEXT, numbered(alone.project, MANY))
    with redis_at(alone.port, tmp_path, "--maxmemory-policy", "noeviction"):
        assert publish(run, alone.url) == "live"
        lost = alone.sound(run)
    servers.enter_context(redis_at(alone.port, tmp_path, "--maxmemory-policy", "noeviction"))
    with alone.site() as site:
        kill_when(alone, lambda: bool(site.there()), "republish")
        assert site.store.record(NAME) is None
        kill_when(alone, lambda: site.store.record(NAME) is not None, "republish")
        finished(scoreline(alone, "republish"))
        Standing.observed(site.store, site.ledger, NAME)  # as whatever changes the head next begins
    after = alone.sound(run, lost=[lost.token])
    assert (after.rows, after.checksum, after.as_of) == (lost.rows, lost.checksum, lost.as_of)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_repair_that_was_killed_is_run_again_to_its_end(alone: Stage, servers: ExitStack, tmp_path: Path) -> None:
    servers.enter_context(redis_at(alone.port, tmp_path, "--maxmemory-policy", "noeviction"))
    run = put(alone.project, NEXT, numbered(alone.project, 10 * MANY))
    assert publish(run, alone.url) == "live"
    head, before = alone.sound(run), alone.record()
    buckets = range(head.layout.buckets)
    with alone.site() as site:
        site.store.unlink(block_key(NAME, head.token, bucket) for bucket in buckets[::2])
        left = site.store.count_blocks(NAME, head.token, buckets)
        kill_when(alone, lambda: site.store.count_blocks(NAME, head.token, buckets) > left, "verify", "--repair")
    assert alone.record() == before
    finished(scoreline(alone, "verify", "--repair"))
    assert alone.sound(run) == head


def scoreline(stage: Stage, command: str, *options: str) -> subprocess.Popen[str]:
    """Start a command of operators, in a process group of its own."""
    variables = {"SCORELINE_LAKE": stage.project.settings.lake, "SCORELINE_REDIS_URL": stage.url}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", command, NAME, *options],
        env={**os.environ, **variables},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """Return the last line that a command says, when it has ended well."""
    said, _ = process.communicate()
    assert process.returncode == 0
    return said.splitlines()[-1]


def kill_when(stage: Stage, seen: Callable[[], bool], *command: str) -> None:
    """Start a command of operators, and kill it and its Spark as soon as something is seen in Redis."""
    process = scoreline(stage, *command)
    while not seen():
        assert process.poll() is None
    os.killpg(process.pid, SIGKILL)
    process.communicate()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_random_while_tasks_go_on_writing(alone: Stage, servers: ExitStack, tmp_path: Path) -> None:
    """The driver dies, and what it had begun in the JVM may write on beside the next attempts."""
    servers.enter_context(redis_at(alone.port, tmp_path, "--maxmemory-policy", "noeviction"))
    chance = random.Random("moments")  # noqa: S311  reason: the same moments each time
    run = put(alone.project, NEXT, numbered(alone.project, 50 * ROWS))
    for _ in range(20):
        process = alone.start(run)
        time.sleep(chance.uniform(1, 8))
        process.kill()
        process.communicate()
        if chance.random() < 0.3:
            assert publish(run, alone.url) == "live"
    await_quiet(alone.project.spark)
    assert publish(run, alone.url) == "live"
    alone.sound(run)


def await_quiet(spark: SparkSession) -> None:
    """Wait until no task of a killed driver is at work."""
    tracker = spark.sparkContext.statusTracker()
    while tracker.getActiveJobsIds():
        time.sleep(0.1)
