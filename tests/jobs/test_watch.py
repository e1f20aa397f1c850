"""One look at a stream: it keeps up, is started again by a real command, or is somebody's matter."""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.errors import ScorelineError, StreamDead, StreamFailed, StreamStuck
from jobs.spec import Settings, load_pipeline
from jobs.spec.settings import settings
from jobs.spec.stream import Stream
from jobs.stream import watch
from jobs.stream.watch import Post
from serving.clock import Clock
from serving.keys import stream_key, stream_wish_key
from serving.store import Store
from serving.stream import SILENCE, StreamRecord
from tests.conftest import ROOT, free_port
from tests.jobs.sites import NAME
from tests.jobs.test_cli import scoreline
from tests.project import with_stream

MINUTE = 60_000_000
CLOCK = Clock(timedelta(days=-3650))  # another time than the machine's, as in the demo
# A supervisor: says for the stream of the pipeline that it names that it runs, and leaves something running, which
# keeps its output open.
SUPERVISOR = """
import subprocess, sys
from datetime import timedelta
from serving.clock import Clock
from serving.keys import stream_key
from serving.store import Store
from serving.stream import StreamRecord
_, url, name, note = sys.argv
now = Clock(timedelta(days=-3650)).microseconds()
with Store(url) as store:
    record = StreamRecord(state="running", query_id="q", started_at=now, told_at=now)
    store.ask("SET", stream_key(name), record.to_json())
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(note, "w").write(str(left.pid))
"""


@dataclass
class Stage:
    """A pipeline with a stream, an events table and a Redis of which a test says what the stream said."""

    post: Post

    def says(self, **changes: object) -> StreamRecord:
        """Put on record a stream that runs and has read all, but for `changes`."""
        now = CLOCK.microseconds()
        good = StreamRecord(
            state="running", query_id="q", started_at=now, told_at=now, batch=7, version=9, keys=3, progressed_at=now
        )
        record: StreamRecord = replace(good, **changes)  # type: ignore[arg-type]  # reason: any of its fields
        self.post.store.ask("SET", stream_key(NAME), record.to_json())
        return record

    def restarting(self, *command: str | Path) -> "Stage":
        """Return the stage with a command that starts streams."""
        line = shlex.join(map(str, command))
        return Stage(replace(self.post, settings=self.post.settings.model_copy(update={"stream_restart": line})))

    def look(self) -> str:
        return self.post.look()


@pytest.fixture
def stage(tmp_path: Path, store: Store) -> Stage:
    pipeline = load_pipeline(ROOT / "dags" / "pipelines", NAME)
    declared = pipeline.model_copy(update={"stream": Stream.model_validate({"stuck_minutes": 5})})
    lake = tmp_path / "a lake"
    write_deltalake(str(lake / "events/transactions"), pa.table({"a": [1]}))
    return Stage(Post(declared, Settings(lake=str(lake)), store, CLOCK))


@pytest.fixture
def supervised(stage: Stage, jobs_redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    """The stage with a supervisor."""
    note = tmp_path / "left"
    yield stage.restarting(sys.executable, "-c", SUPERVISOR, jobs_redis_url, "{pipeline}", note)
    if note.exists():
        import psutil

        psutil.Process(int(note.read_text())).kill()


def test_a_stream_that_keeps_up_is_told_in_figures(stage: Stage) -> None:
    now = CLOCK.microseconds()
    stage.says()
    assert stage.look() == f"{NAME}: the stream runs; micro-batch 7, events up to append 9, all read; 3 scores"
    stage.says(behind=2, behind_since=now - MINUTE, progressed_at=now - 4 * MINUTE)
    assert "2 behind, the oldest for 60 s" in stage.look()
    stage.says(progressed_at=now - 100 * MINUTE)
    assert "all read" in stage.look(), "where nothing waits nothing is to be done"


def test_one_that_goes_on_no_further_is_somebodys_matter(stage: Stage) -> None:
    """The limit is the pipeline's."""
    then = CLOCK.microseconds() - 6 * MINUTE
    stuck = stage.says(behind=2, behind_since=then, progressed_at=then, process="4711 on here")
    with pytest.raises(
        StreamStuck, match=r"not gone on since 20.* UTC; .*2 behind, the oldest for 36\d s.*4711 on here"
    ):
        stage.look()
    stage.says(**{**vars(stuck), "waits_for": "Redis is away"})
    with pytest.raises(StreamStuck, match="it waits: Redis is away"):
        stage.look()


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_one_that_was_stopped_on_purpose_stays_so(stage: Stage, state: str) -> None:
    stage.post.store.ask("SET", stream_wish_key(NAME), 1)
    stage.says(state=state, told_at=CLOCK.microseconds() - 2 * SILENCE)
    assert f"somebody stopped the stream; it runs again after `scoreline stream start {NAME}`" in stage.look()


def test_without_events_there_is_nothing_to_watch(stage: Stage, tmp_path: Path) -> None:
    empty = stage.post.settings.model_copy(update={"lake": str(tmp_path / "empty")})
    assert "there is no events/transactions yet; `scoreline ingest" in replace(stage.post, settings=empty).look()


def test_one_that_waits_for_a_dimension_is_not_dead(stage: Stage) -> None:
    pipeline = stage.post.pipeline
    dimension = pipeline.events[1].model_copy(update={"kind": "dimension"})
    told = pipeline.model_copy(update={"sources": {**pipeline.sources, "segments": dimension}})
    waiting = Stage(replace(stage.post, pipeline=told))
    assert "there is no dimensions/segments yet; `scoreline ingest" in waiting.look()


def test_a_dead_one_without_a_command_fails_with_the_remedy(stage: Stage) -> None:
    with pytest.raises(StreamDead, match=f"no stream has said anything: `scoreline stream start {NAME}`"):
        stage.look()
    stage.says(told_at=CLOCK.microseconds() - SILENCE - MINUTE, process="4711 on here")
    with pytest.raises(
        StreamDead, match=r"dead: nothing was heard of process 4711 on here since .* SCORELINE_STREAM_RESTART"
    ):
        stage.look()


def test_a_dead_one_is_started_again_and_awaited(supervised: Stage) -> None:
    """What the command leaves running keeps its output open, and holds nobody up."""
    supervised.says(told_at=CLOCK.microseconds() - SILENCE)
    assert "is dead: nothing was heard of it" in (told := supervised.look())
    assert "it was started again, and runs" in told
    assert supervised.look().startswith(f"{NAME}: the stream runs")


def test_one_that_no_restart_mends_is_not_started_again(supervised: Stage) -> None:
    """What a person starts says nothing of it any more; of what a restart may mend, nothing is refused."""
    supervised.says(state="stopped", fault="other columns", exit_code=3, process="4711 on here")
    with pytest.raises(
        StreamFailed, match=r"4711 on here.*other columns; once it is mended `scoreline stream start .*` runs it"
    ):
        supervised.look()
    supervised.says(state="stopped", fault="Spark's", exit_code=1)
    assert "not by `scoreline stream stop` (Spark's): it was started again" in supervised.look()


def test_one_that_ends_so_again_is_told_at_once(stage: Stage, jobs_redis_url: str, tmp_path: Path) -> None:
    refused = SUPERVISOR.replace('"running"', '"stopped", fault="other columns", exit_code=3')
    left = tmp_path / "left"
    stage.says(state="stopped", process="4711 on here")
    with pytest.raises(StreamFailed, match="other columns"):
        stage.restarting(sys.executable, "-c", refused, jobs_redis_url, "{pipeline}", left).look()
    import psutil

    psutil.Process(int(left.read_text())).kill()


def test_one_that_ended_by_itself_is_started_again(supervised: Stage) -> None:
    supervised.says(state="stopped")
    assert "and not by `scoreline stream stop`: it was started again, and runs" in supervised.look()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("sh", "-c", "echo first; echo no such unit >&2; exit 5"), "sh ended with 5: no such unit"),
        (("false",), "false ended with 1: it said nothing"),
        (("/no/such/program",), "/no/such/program cannot be run: No such file"),
    ],
)
def test_a_command_that_fails_is_told(stage: Stage, command: tuple[str, ...], said: str) -> None:
    with pytest.raises(StreamDead, match=f"SCORELINE_STREAM_RESTART did not start it again: {said}"):
        stage.restarting(*command).look()


def test_a_command_that_stays_or_starts_nothing_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The word of before does not count: it is from another life of the stream."""
    monkeypatch.setattr(watch, "COMMAND_SECONDS", 0.2)
    with pytest.raises(StreamDead, match=r"sleep did not return within 0.2 s: it must leave the stream to"):
        stage.restarting("sleep", "60").look()
    monkeypatch.setattr(watch, "START_SECONDS", 0.2)
    stage.says(told_at=CLOCK.microseconds() - SILENCE)
    with pytest.raises(StreamDead, match=r"the stream said nothing in 0.2 s: see its log"):
        stage.restarting("true").look()


def test_a_command_that_no_shell_would_read_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORELINE_STREAM_RESTART", "systemctl 'start")
    settings.cache_clear()
    with pytest.raises(ScorelineError, match=r"SCORELINE_STREAM_RESTART: .*No closing quotation"):
        settings()
    settings.cache_clear()


def test_the_command_line_ends_as_others_do(stage: Stage, tmp_path: Path, jobs_redis_url: str) -> None:
    """Without a stream it is a mistake that stays one; a Redis that is away may come back."""
    done = scoreline("stream", "watch", NAME, SCORELINE_PROJECT=str(project_of(tmp_path, "")))
    assert done.returncode == 3
    assert "declares no stream" in done.stderr
    declared = {"SCORELINE_PROJECT": str(project_of(tmp_path, "stream: {}")), "SCORELINE_LAKE": str(tmp_path)}
    away = scoreline("stream", "watch", NAME, **declared, SCORELINE_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert away.returncode == 1
    assert "Redis at 127.0.0.1" in away.stderr.splitlines()[-1]
    stage.says(told_at=Clock().microseconds(), progressed_at=Clock().microseconds())
    for command, told in (("watch", f"{NAME}: the stream runs; "), ("status", f"{NAME}: running, last heard of ")):
        done = scoreline("stream", command, NAME, **declared, SCORELINE_REDIS_URL=jobs_redis_url)
        assert (done.returncode, done.stdout[: len(told)]) == (0, told)


def project_of(folder: Path, stream: str) -> Path:
    """Return a project whose only pipeline declares `stream`."""
    path = folder / "dags" / "pipelines" / f"{NAME}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(with_stream((ROOT / "dags" / "pipelines" / f"{NAME}.yaml").read_text(), stream))
    return folder
