"""A job of many minutes reads the configuration for such jobs, where the cluster has one."""

from pathlib import Path

import pytest

from jobs.sparkconf import FOLDER, be_long, of_long_jobs


def test_a_long_job_reads_the_folder_for_such_jobs_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert of_long_jobs()[FOLDER] == str(tmp_path)
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "spark-defaults.conf").touch()
    for _ in range(2):  # also what has it already
        be_long()
        assert of_long_jobs()[FOLDER] == str(tmp_path / "long")
    assert of_long_jobs().keys() >= {"PATH"}


def test_without_a_configuration_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    assert FOLDER not in of_long_jobs()
