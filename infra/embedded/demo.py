"""The demo: 17 months of real purchases, from landing files to scores read over HTTP by key."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra.demo.land import FIRST_DAY, land
from infra.embedded import lifecycle
from infra.embedded.backfill import Backfill
from infra.embedded.comparison import Lake, compare
from infra.embedded.errors import DemoFault
from infra.embedded.lifecycle import Runtime
from infra.embedded.places import VAR
from infra.embedded.programs import run_program, show_program
from infra.embedded.progress import Step, Steps
from infra.embedded.settings import Settings
from infra.embedded.state import read, write
from infra.embedded.tables import services_table
from serving.clock import Clock

PIPELINE = "purchase_propensity"
DAYS = (date(1998, 6, 1), date(1998, 6, 3))
LIVE = DAYS[1] + timedelta(days=1)
LIVE_SECONDS = 50
HISTORY = (FIRST_DAY, DAYS[0] - timedelta(days=1))
# Six hours after the end of the last day: as if it were that morning.
MORNING = "1998-06-04T06:00:00Z"


def run(console: Console, settings: Settings) -> None:
    """Run all steps; the services are stopped at the end, also of a failure.

    Raises:
        DemoFault: services are running; theirs is another time, and their runs may be somebody's work.
    """
    steps = Steps(console)
    with lifecycle.alone("demo"), services(steps, settings) as runtime:
        prepare(steps, runtime)
        three_days(steps, runtime)
        show_scores(steps, runtime)
        live_minute(steps, runtime)
    console.print(seconds_table(steps))


@contextmanager
def services(steps: Steps, settings: Settings) -> Iterator[Runtime]:
    """Start the services, in the demo's time whatever the shell says, and stop them at the end."""
    if lifecycle.current():
        raise DemoFault("services are running, and the demo needs its own, which live in 1998: `make down` first")
    runtime = None
    try:
        with steps.step("start the services") as step:
            runtime = lifecycle.up(step.note, settings.model_copy(update={"clock": clock(), "streams": False}))
        steps.console.print(services_table())
        yield runtime
    finally:
        if runtime:
            stop(steps)


def stop(steps: Steps) -> None:
    """Stop the services, whatever the keyboard says meanwhile."""
    kept = {ending: signal.signal(ending, signal.SIG_IGN) for ending in (signal.SIGINT, signal.SIGTERM)}
    with steps.step("stop the services"):
        lifecycle.down()
    for ending, handler in kept.items():
        signal.signal(ending, handler)


def clock() -> str:
    """Return the demo's clock; it keeps running from one demo to the next, as time does."""
    kept = VAR / "demo-clock.txt"
    found = read(kept, clock_of)
    if found is None:
        found = f"{MORNING}@{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        write(kept, found)
    return found


def clock_of(text: str) -> str:
    """Return the text, which says a clock."""
    Clock.parse(text)
    return text


def prepare(steps: Steps, runtime: Runtime) -> None:
    """Land the data, load the history, and train a champion where there is none."""
    with steps.step("land the purchases, a file a day") as step:
        landed = land(Path(runtime.variables["SCORELINE_LANDING"]), HISTORY[0], DAYS[1])
        step.note(f"{landed.purchases} purchases of {landed.days} days; {landed.new} files new")
    first, last = (str(day) for day in HISTORY)
    with steps.step("ingest the history in one job") as step:
        ingest = ["scoreline", "ingest", PIPELINE, "--from", first, "--to", last, "--run-id", "history"]
        run_program("ingest-history", ingest, runtime.environment, step)
    with steps.step("train a champion, if there is none") as step:
        train = ["scoreline", "train", PIPELINE, "--if-missing", "--as-of", str(DAYS[0])]
        step.note(run_program("train", train, runtime.environment, step).strip().splitlines()[-1])


def three_days(steps: Steps, runtime: Runtime) -> None:
    """Let the scheduler run the DAG for three days, and show Airflow's own list of runs."""
    backfill = Backfill(runtime.scheduler, PIPELINE, *DAYS)
    with steps.step("three days by the scheduler") as step:
        backfill.follow(begin(backfill, runtime.environment, step), step)
    with steps.step("Airflow's own list of runs") as step:
        quiet = {**runtime.environment, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
        listed = run_program("runs", ["airflow", "dags", "list-runs", PIPELINE], quiet, step)
    steps.console.print(listed.rstrip(), markup=False, soft_wrap=True)


def begin(backfill: Backfill, environment: dict[str, str], step: Step) -> datetime:
    """Have Airflow create the backfill, and return an instant before its runs."""
    first, last = (str(day) for day in DAYS)
    span = ["--from-date", first, "--to-date", last, "--reprocess-behavior", "completed"]
    backfill.prepare()
    since = datetime.now(UTC)
    create = ["airflow", "backfill", "create", "--dag-id", PIPELINE, *span, "--max-active-runs", "1"]
    run_program("backfill", create, environment, step)
    return since


def show_scores(steps: Steps, runtime: Runtime) -> None:
    """Look up ten customers, beside the same rows read from Delta, and count what there is."""
    lake = Lake(runtime.variables["SCORELINE_LAKE"])
    with steps.step("look up ten customers, over HTTP and in Delta"):
        found = compare(lake, runtime.ports.url("lookup"), PIPELINE, DAYS[1] + timedelta(days=1))
    steps.console.print(found)
    with steps.step("count the rows of the tables"):
        counted = rows_table(lake)
    steps.console.print(counted)


def live_minute(steps: Steps, runtime: Runtime) -> None:
    """Play the purchases of the next day in a minute, and show the scores of those who buy as they change."""
    with steps.step("land the purchases of the next day"):
        land(Path(runtime.variables["SCORELINE_LANDING"]), LIVE, LIVE)
    lifecycle.start_stream(PIPELINE)
    again = ["--again", "--day-seconds", str(LIVE_SECONDS)]  # a second demo has seen them, and is to be worth watching
    replay = ["scoreline", "replay-events", PIPELINE, "--from", str(LIVE), *again]
    with steps.shown("play them live, once the stream is up"):
        show_program("replay", replay, runtime.environment)


def rows_table(lake: Lake) -> Table:
    """Return how many rows each table has, the scores day by day."""
    table = Table(title="Rows in Delta", title_justify="left")
    table.add_column("table")
    table.add_column("rows", justify="right")
    for name in ("events/transactions", "quarantine/transactions", f"features/{PIPELINE}"):
        table.add_row(name, f"{lake.count(name):,}")
    for n in range(1, (DAYS[1] - DAYS[0]).days + 2):
        as_of = DAYS[0] + timedelta(days=n)
        count = lake.count(f"scores/{PIPELINE}", f"as_of_date = DATE '{as_of}'")
        table.add_row(f"scores/{PIPELINE} as of {as_of}", f"{count:,}")
    table.add_row(f"publications/{PIPELINE}", f"{lake.count(f'publications/{PIPELINE}'):,}")
    return table


def seconds_table(steps: Steps) -> Table:
    """Return the seconds of each step."""
    table = Table(title="Seconds", title_justify="left", show_footer=True)
    table.add_column("step", footer="all")
    table.add_column("s", justify="right", footer=f"{sum(steps.seconds.values()):.1f}")
    for title, seconds in steps.seconds.items():
        table.add_row(title, f"{seconds:.1f}")
    return table
