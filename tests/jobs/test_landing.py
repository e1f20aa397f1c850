"""Delivered files: what can't be read is refused by name, and never taken into memory as a whole."""

import gzip
import hashlib
from datetime import date
from pathlib import Path

import pytest

from jobs.errors import FileFault
from jobs.filesystem import FileSystem
from jobs.landing import LONGEST_HEADER, delivered
from jobs.spec import Source
from tests.project import HEADER, Project, purchases

DAY = date(1998, 6, 1)


def source(project: Project) -> Source:
    return project.pipeline().events[1]


def files(project: Project) -> FileSystem:
    return FileSystem(project.spark, project.settings.landing)


def test_a_file_is_known_by_name_and_bytes(project: Project) -> None:
    path = project.deliver(DAY, purchases(DAY, 3))
    (found,) = delivered(files(project), source(project), [DAY])
    assert found.name == f"transactions/date={DAY}/transactions.csv"
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("length", [LONGEST_HEADER + 1, 3 * LONGEST_HEADER])
def test_a_file_whose_first_line_has_no_end_is_refused(project: Project, pack: object, length: int) -> None:
    name = "transactions.csv.gz" if pack is gzip.compress else "transactions.csv"
    project.deliver_bytes(DAY, pack(b"x" * length), name)  # type: ignore[operator]  # reason: both take and give bytes
    with pytest.raises(FileFault, match=rf"{name}: .*its first line is longer than {LONGEST_HEADER} bytes"):
        delivered(files(project), source(project), [DAY])


def test_a_packed_file_is_read_to_its_end(project: Project) -> None:
    whole = gzip.compress("\n".join([HEADER, *purchases(DAY, 5_000)]).encode())
    project.deliver_bytes(DAY, whole[:-20], "transactions.csv.gz")
    with pytest.raises(FileFault, match=r"transactions\.csv\.gz: the file can't be read to its end"):
        delivered(files(project), source(project), [DAY])


def test_a_file_that_may_not_be_read_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read all files, so the file is one that is gone when it is opened: Java says both as an IOException."""
    path = project.deliver(DAY, purchases(DAY, 3))
    monkeypatch.setattr(FileSystem, "glob", lambda *_: [(str(path.with_name("gone.csv")), 7)])
    with pytest.raises(
        FileFault, match=r"gone\.csv: the file can't be read to its end .*FileNotFound.*deliver it again"
    ):
        delivered(files(project), source(project), [DAY])
    with pytest.raises(OSError, match="FileNotFound"):
        files(project).sha256(str(Path(path).with_name("gone.csv")))
