"""What the tests of jobs share."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.project import Project


@pytest.fixture
def project(tmp_path: Path, spark: SparkSession) -> Project:
    """An empty lake and landing folder, in a path with a space."""
    folder = tmp_path / "a project"
    folder.mkdir()
    return Project(folder, spark)
