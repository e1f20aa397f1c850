"""Parsing DAGs loads nothing heavy, and lint says so when somebody changes that."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["dags", "jobs", "expectations", "serving"]
HEAVY = [
    "pyspark",
    "delta",
    "mlflow",
    "redis",
    "great_expectations",
    "sklearn",
    "numpy",
    "pandas",
    "expectations",
    "serving",
]
CONTRACT = "DAG files parse light, even transitively"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of our packages and of the contracts."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> str:
    program = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [program, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    ).stdout


def append(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text('utf-8')}\n{line}\n", "utf-8")


def test_parsing_loads_nothing_heavy() -> None:
    code = f"import sys, dags.declared, dags.refused; print([name for name in {HEAVY} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_lint_keeps_the_contract_until_pyspark_comes_in_by_the_door_or_behind_another_module(copy: Path) -> None:
    assert f"{CONTRACT} KEPT" in lint(copy)
    (copy / "jobs" / "between.py").write_text("import pyspark\n", "utf-8")
    append(copy / "dags" / "docs.py", "import pyspark")
    append(copy / "dags" / "day.py", "import jobs.between")

    said = lint(copy)

    assert f"{CONTRACT} BROKEN" in said
    assert "dags.docs -> pyspark" in said
    assert "dags.day -> jobs.between" in said
    assert "jobs.between -> pyspark" in said
