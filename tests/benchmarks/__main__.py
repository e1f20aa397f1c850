"""`make bench`: measures beside real peers, prints a table, and writes var/bench/results.json."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from rich.console import Console

from infra.setup.errors import SetupError
from tests.benchmarks import backfill, closed_loop, feature_store, freshness, open_loop, publication, visibility
from tests.benchmarks.machine import Neighbours, described
from tests.benchmarks.result import Result, Skipped, save, table
from tests.benchmarks.stage import QUICK, Failed, Scale, Stage
from tests.conftest import ROOT

FOLDER = ROOT / "var" / "bench"
FAILED = "failed: "
WIDTH = 132
# What measures what: the results of one line come from the same runs.
BENCHMARKS: dict[tuple[str, ...], Callable[[Stage], Iterator[Result]]] = {
    ("publish_vs_redis_cli_pipe", "memory_bytes_per_key"): publication.load_and_memory,
    ("publish_cold_verified_s",): publication.cold,
    ("publish_vs_feast",): feature_store.publish,
    ("swap_visible_ms",): visibility.swaps,
    ("rollback_visible_ms",): visibility.rollbacks,
    ("lookup_vs_webdis",): closed_loop.vs_webdis,
    ("lookup_vs_fastapi",): closed_loop.vs_fastapi,
    ("lookup_vs_uvicorn",): closed_loop.vs_uvicorn,
    ("lookup_vs_feast",): feature_store.lookup,
    ("batch_lookup_keys_per_s",): closed_loop.batches,
    ("lookup_p99_ms_at_5000",): open_loop.at_5000,
    ("lookup_p99_during_publish",): open_loop.during_publication,
    ("backfill_range_speedup", "backfill_range_speedup_warm"): backfill.ranges,
    ("freshness_p50_s", "freshness_p95_s", "freshness_p95_growth"): freshness.measured,
}


def main() -> int:
    """Run all benchmarks, or those that measure the one named; 1 where one failed."""
    asked, console, start = parsed(), Console(width=WIDTH), time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped then too
    say = partial(console.print, highlight=False)
    say(machine := described())
    results: list[Result] = []
    with Stage(FOLDER, QUICK if asked.quick else Scale(), lambda text: say(f"  {text}")) as stage:
        for names in chosen(asked.only):
            say(f"{' and '.join(names)}:")
            results += measured(names, stage)
            save(results, FOLDER / "results.json")
    say(table(results))
    for result in results:
        say(f"{result.name}: {result.note}")
    say(f"{machine}. {time.monotonic() - start:.0f} s in all; written to {FOLDER / 'results.json'}")
    return 1 if any(result.note.startswith(FAILED) for result in results) else 0


def parsed() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measures beside real peers.")
    names = [name for names in BENCHMARKS for name in names]
    parser.add_argument("--only", choices=names, help="one result, with what comes from the same runs")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that all works, measures nothing")
    return parser.parse_args()


def chosen(only: str | None) -> list[tuple[str, ...]]:
    """Return what to run, in order."""
    return [names for names in BENCHMARKS if only is None or only in names]


def measured(names: tuple[str, ...], stage: Stage) -> list[Result]:
    """Return the results, or that there are none, and why."""
    stage.neighbours = Neighbours()
    try:
        found = list(BENCHMARKS[names](stage))
        return [replace(result, note=result.note + stage.neighbours.note) for result in found]
    except (Skipped, SetupError) as reason:
        return [Result(name, None, "", note=f"skipped: {reason}") for name in names]
    except Failed as fault:
        return [Result(name, None, "", note=f"{FAILED}{fault}") for name in names]


if __name__ == "__main__":
    sys.exit(main())
