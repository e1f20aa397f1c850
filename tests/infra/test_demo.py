"""The demo's backfill is begun again where Airflow's database was locked, and only then."""

from pathlib import Path
from typing import Any

import pytest

from infra.embedded import demo
from infra.embedded.errors import DemoFault


class Prepared:
    """Counts how often what a failed try left is ended."""

    times = 0

    def prepare(self) -> None:
        self.times += 1


@pytest.mark.parametrize(("faults", "begun"), [(0, True), (demo.TRIES - 1, True), (demo.TRIES, False)])
def test_a_locked_database_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: int, *, begun: bool
) -> None:
    assert _tries(tmp_path, monkeypatch, [demo.LOCKED] * faults) == (begun, min(faults + 1, demo.TRIES))


def test_another_fault_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _tries(tmp_path, monkeypatch, ["no such DAG"]) == (False, 1)


def _tries(folder: Path, monkeypatch: pytest.MonkeyPatch, faults: list[str]) -> tuple[bool, int]:
    """Begin with an Airflow that fails so; return whether it was begun, and after how many tries."""
    left, prepared = list(faults), Prepared()

    def airflow(*_: object) -> str:
        if left:
            (folder / "demo-backfill.log").write_text(left.pop(0))
            raise DemoFault("it failed")
        return ""

    monkeypatch.setattr(demo, "run_program", airflow)
    monkeypatch.setattr(demo, "LOGS", folder)
    backfill: Any = prepared
    step: Any = None
    try:
        demo.begin(backfill, {}, step)
    except DemoFault:
        return False, prepared.times
    return True, prepared.times
