"""Replays of real purchases: the bits of the batch; and whoever is killed meanwhile, the end is the same."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.publication.publish import Warrant
from jobs.training import train
from serving.store import Store
from tests.jobs.replayed import Ended, Replay, kept_in
from tests.jobs.shop import NAME
from tests.jobs.streamer import Server, Streamer, await_true
from tests.registered import register_small

MAY, ALL = date(1998, 5, 1), date(1997, 1, 1)


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Replay:
    """Three days after those of May."""
    folder = tmp_path_factory.mktemp("replay") / "a project"
    replay = Replay(folder, spark, MAY, days=3)
    replay.begin(register_small(replay.project.settings.mlflow_uri, folder / "report"), parts_a_day=10)
    return replay


@pytest.fixture(scope="module")
def own_store(redis_url: str) -> Iterator[Store]:
    """A database of the module's own, for the replays that nobody disturbs."""
    with Store(redis_url.removesuffix("/0") + "/9") as store:
        store.ask("FLUSHDB")
        yield store


@pytest.fixture(scope="module")
def reference(replay: Replay, own_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The end of the replay that nobody disturbs, of a copy."""
    return undisturbed(replay, own_store, tmp_path_factory.mktemp("undisturbed"))


def undisturbed(replay: Replay, store: Store, folder: Path) -> Ended:
    copy = replay.copied(folder / "a copy")
    copy.publish(store.url)
    return copy.undisturbed(store, folder / "checkpoint")


@contextmanager
def streamer_of(replay: Replay, folder: Path) -> Iterator[Streamer]:
    streamer = Streamer(replay.project, Server(folder), replay.now)
    try:
        replay.publish(streamer.server.url)
        yield streamer
    finally:
        streamer.close()


class Disturbances:
    """What may happen to a stream and to its Redis."""

    def __init__(self, replay: Replay, streamer: Streamer) -> None:
        self.replay, self.streamer = replay, streamer

    def redis_dies(self) -> None:
        self.streamer.server.kill()
        time.sleep(0.5)
        self.streamer.server.begin()

    def redis_is_lost(self) -> None:
        """It comes back empty, and what was live is published again."""
        lost = self.streamer.store.head(NAME)
        self.streamer.server.kill()
        self.streamer.server.begin(empty=True)
        self.replay.publish(self.streamer.server.url, Warrant("republished", "Redis had lost it", lost))

    @property
    def all(self) -> dict[str, Callable[[], None]]:
        streamer = self.streamer
        return {
            "workers": streamer.kill_workers,
            "family": streamer.kill_all,
            "Python": streamer.kill_python,
            "Java": streamer.kill_java,
            "Redis": self.redis_dies,
            "lost": self.redis_is_lost,
        }


def disturbed(replay: Replay, streamer: Streamer, plan: dict[int, str], wanted: Ended) -> Ended:
    """Return the end of a replay in which what the plan says happens soon after those parts."""
    happens = Disturbances(replay, streamer).all
    chance = random.Random(str(plan))  # noqa: S311  reason: the same moments each time
    for number, part in enumerate(replay.parts):
        streamer.keep_running()
        streamer.live.append(*part)
        time.sleep(chance.uniform(0, 0.6))
        if number in plan:
            happens[plan[number]]()
    streamer.keep_running()
    with suppress(AssertionError):  # what differs in the end tells more than that it does
        await_true(lambda: streamer.fresh() == wanted.fresh)
    assert streamer.terminated() == 0, streamer.said()
    return Ended(streamer.fresh(), kept_in(replay.project))


def test_all_that_a_replay_leaves_has_the_bits_of_the_batch(reference: Ended) -> None:
    """At each key's own as_of and version of the events."""
    assert len(reference.fresh) > 200
    assert reference.wrong == {}
    assert reference.kept == reference.fresh


def test_whoever_is_killed_the_end_is_that_of_an_undisturbed_replay(
    replay: Replay, reference: Ended, tmp_path: Path
) -> None:
    """A worker, the whole job, Redis, and Redis with all that it had."""
    with streamer_of(replay, tmp_path) as streamer:
        plan = {0: "workers", 9: "family", 14: "Redis", 20: "lost"}
        assert disturbed(replay, streamer, plan, reference).differing(reference) == []
        record = streamer.record()
    assert record is not None
    assert record.state == "stopped"


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_thirty_days_by_the_real_model_have_the_bits_of_the_batch(
    tmp_path: Path, spark: SparkSession, own_store: Store
) -> None:
    replay = Replay(tmp_path / "a project", spark, ALL, days=30)
    settings, as_of = replay.project.settings, datetime(1998, 6, 1, tzinfo=UTC)
    replay.begin(train(spark, replay.project.pipeline(), settings, as_of), parts_a_day=20)
    own_store.ask("FLUSHDB")
    replay.publish(own_store.url)
    ended = replay.undisturbed(own_store, tmp_path / "checkpoint")
    assert len(ended.fresh) > 1_000
    assert ended.wrong == {}
    assert ended.kept == ended.fresh


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_at_random(tmp_path: Path, spark: SparkSession, own_store: Store, seed: int) -> None:
    replay, chance = Replay(tmp_path / "a project", spark, MAY, days=15), random.Random(seed)  # noqa: S311  reason: the same moments each time
    replay.begin(register_small(replay.project.settings.mlflow_uri, tmp_path / "report"), parts_a_day=10)
    own_store.ask("FLUSHDB")
    wanted = undisturbed(replay, own_store, tmp_path / "undisturbed")
    with streamer_of(replay, tmp_path) as streamer:
        kinds = list(Disturbances(replay, streamer).all)
        plan = {number: chance.choice(kinds) for number in chance.sample(range(len(replay.parts)), 20)}
        assert disturbed(replay, streamer, plan, wanted).differing(wanted) == []
