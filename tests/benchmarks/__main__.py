"""Measures beside real peers, alternating, and writes var/bench/results.json: `make bench`."""

import json
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from redis import Redis
from rich.console import Console
from rich.table import Table

from serving.blocks import pack_buckets
from serving.layout import Layout
from serving.store import Store
from tests.conftest import ROOT, await_port, free_port, redis_binary, stop

KEYS = 1_000_000
ROUNDS = 5
PIPELINE = "bench"


@dataclass(frozen=True)
class Result:
    """A median beside its peer's; `ratio` is how many times better."""

    name: str
    value: float
    unit: str
    peer: str
    peer_value: float
    ratio: float


def load_and_memory(redis_url: str, port: int, folder: Path) -> list[Result]:
    """Pack and write ready scores as blocks, against `redis-cli --pipe` of one ready-made SET a key."""
    chance = np.random.default_rng(1)
    hashes = np.sort(chance.integers(0, 2**63, KEYS, dtype=np.uint64) * np.uint64(2))
    scores = chance.random(KEYS, dtype=np.float32)
    layout = Layout.fitting(KEYS, 64)
    commands = folder / "sets.txt"
    commands.write_text("".join(f"SET customer:{n:08d} {score:.6f}\r\n" for n, score in enumerate(scores)))

    def blocks(store: Store) -> None:
        store.write_blocks(PIPELINE, 1, pack_buckets(layout, 1, range(layout.buckets), hashes, [scores]))

    def sets(_: Store) -> None:
        with commands.open("rb") as ready:
            command = ["redis-cli", "-p", str(port), "--pipe"]
            subprocess.run(command, stdin=ready, stdout=subprocess.DEVNULL, check=True)

    with Store(redis_url) as store:
        ours, theirs = alternate(store, blocks), alternate(store, sets)
        seconds, peers = [], []
        memory = peer_memory = 0.0
        for _ in range(ROUNDS):
            s, memory = ours()
            p, peer_memory = theirs()
            seconds.append(s)
            peers.append(p)
    rate, peer_rate = KEYS / statistics.median(seconds), KEYS / statistics.median(peers)
    peer = "redis-cli --pipe, one SET a key"
    return [
        Result("load_blocks_vs_redis_cli_pipe", rate, "keys/s", peer, peer_rate, rate / peer_rate),
        Result("memory_bytes_per_key", memory, "B", "one string a key", peer_memory, peer_memory / memory),
    ]


def alternate(store: Store, load: Callable[[Store], None]) -> Callable[[], tuple[float, float]]:
    """Return what empties Redis, loads, and gives (seconds, bytes of memory a key)."""

    def measured() -> tuple[float, float]:
        raw = Redis.from_url(store.url)
        raw.flushall()
        before = int(raw.info("memory")["used_memory"])
        start = time.monotonic()
        load(store)
        seconds = time.monotonic() - start
        used = int(raw.info("memory")["used_memory"]) - before
        return seconds, used / KEYS

    return measured


def main() -> None:
    """Run all benchmarks."""
    console = Console()
    if shutil.which("redis-cli") is None:
        raise SystemExit("make bench needs redis-cli as the peer: install Debian's redis-tools or Homebrew's redis")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            await_port(port)
            console.print(f"{KEYS:,} float32 scores, {ROUNDS} alternating rounds ...")
            results = load_and_memory(f"redis://127.0.0.1:{port}/0", port, Path(folder))
        finally:
            stop(process)
    out = ROOT / "var" / "bench" / "results.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([asdict(result) for result in results], indent=2))
    console.print(shown(results))
    console.print(f"{platform.machine()}, Python {platform.python_version()}; written to var/bench/results.json")


def shown(results: list[Result]) -> Table:
    """Return the results as a table."""
    table = Table("name", "median", "unit", "peer", "peer's median", "ratio", title="Medians of alternating rounds")
    for one in results:
        table.add_row(one.name, f"{one.value:,.1f}", one.unit, one.peer, f"{one.peer_value:,.1f}", f"{one.ratio:.2f}")
    return table


if __name__ == "__main__":
    main()
