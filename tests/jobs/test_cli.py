"""The command line: what goes wrong ends with one line for people and an exit code for the scheduler."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def scoreline(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *command],
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_pipelines_are_listed() -> None:
    done = scoreline("pipelines")
    assert done.returncode == 0
    assert done.stdout.startswith("purchase_propensity\t0 0 * * *\tgrowth-data")


def test_a_fault_is_one_line_and_says_that_a_retry_cannot_help(tmp_path: Path) -> None:
    folder = tmp_path / "dags" / "pipelines"
    folder.mkdir(parents=True)
    (folder / "churn.yaml").write_text("name: churn\n")
    done = scoreline("pipelines", SCORELINE_PROJECT=str(tmp_path))
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("scoreline: error: ")
    assert "churn.yaml:1: owner: this field is missing; write owner:" in last


def test_a_pipeline_without_its_files_is_not_complete(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "dags" / "pipelines", tmp_path / "dags" / "pipelines")
    shutil.copytree(ROOT / "expectations" / "suites", tmp_path / "expectations" / "suites")
    done = scoreline("pipelines", SCORELINE_PROJECT=str(tmp_path))
    assert done.returncode == 3
    assert "jobs/sql/purchase_propensity/labels.sql does not exist: write it" in done.stderr


def test_a_date_that_no_calendar_has_is_a_mistake_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "dags" / "pipelines").mkdir(parents=True)
    text = (ROOT / "dags/pipelines/purchase_propensity.yaml").read_text().replace("1997-01-01", "1997-02-30")
    (tmp_path / "dags/pipelines/purchase_propensity.yaml").write_text(text)
    done = scoreline("pipelines", SCORELINE_PROJECT=str(tmp_path))
    assert done.returncode == 3
    assert "purchase_propensity.yaml: a value in this file is none (day is out of range for month)" in done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("ingest", "purchase_propensity"), "give either --day D or --from D --to D"),
        (("ingest", "purchase_propensity", "--from", "1998-06-02", "--to", "1998-06-01"), "is before --from"),
        (("score", "purchase_propensity", "--day", "1998-06-01", "--model-digest", "0"), "give --model NUMBER with it"),
        (("score", "purchase_propensity", "--day", "1998-06-01", "--model", "newest"), "nor the number of a version"),
        (("publish", "purchase_propensity", "--day", "1998-06-01", "--publish", "force"), "say why with --reason"),
        (("backfill", "purchase_propensity", "--from", "1998-06-02", "--to", "1998-06-01"), "is before --from"),
        (("erase", "--entity-key", "shop_id", "purchase_propensity", "42"), "--entity-key goes with --all"),
        (("train", "purchase_propensity", "--as-of", "1998-06-01", "--alias", "v2"), "'v2' is not an alias"),
        (("score", "purchase_propensity"), "Missing option '--day'"),
        (("score", "purchase_propensity", "--day", "June"), "'June' does not match"),
    ],
)
def test_a_wrong_use_is_said(command: tuple[str, ...], message: str) -> None:
    done = scoreline(*command)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_key_is_erased_everywhere_only_if_it_is_said_whose_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "dags" / "pipelines"
    shutil.copytree(ROOT / "dags" / "pipelines", folder)
    text = (folder / "purchase_propensity.yaml").read_text()
    shops = text.replace("purchase_propensity", "shops").replace("customer_id", "shop_id").replace("transactions", "t")
    (folder / "shops.yaml").write_text(shops)
    done = scoreline("erase", "--all", "42", SCORELINE_PROJECT=str(tmp_path))
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.endswith("say with --entity-key of which column it is one: customer_id, shop_id")
    assert not (tmp_path / "var").exists()


def test_a_version_that_is_not_there_is_not_promoted(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    done = scoreline("model", "promote", "purchase_propensity", "7", SCORELINE_MLFLOW_URI=uri)
    assert done.returncode == 3
    assert "there is no version 7 of model purchase_propensity" in done.stderr.splitlines()[-1]


def test_a_wrong_setting_is_named() -> None:
    done = scoreline("publish", "purchase_propensity", "--day", "1998-06-01", SCORELINE_CLOCK="noon")
    assert done.returncode == 1
    assert "SCORELINE_CLOCK" in done.stderr.splitlines()[-1]
