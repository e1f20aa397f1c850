"""Landing files without a key's lines; what they were delivered as is kept, since events are known by it."""

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable, write_deltalake

from jobs.erasure.tombstones import read_rows
from jobs.erasure.words import shown
from jobs.errors import FileFault
from jobs.filesystem import FileSystem
from jobs.lake import Lake
from jobs.landing import LandingFile
from jobs.spec import Settings, Source
from jobs.tables import Column, Table

NAME = "erasures_files"
CHUNK = 2**20
PREFIX = ".erasing-"  # such a file is no delivery, whatever becomes of it
DIALECTS: tuple[dict[str, Any], ...] = ({"escapechar": "\\"}, {})


def rewritten_table() -> Table:
    """Return the table of the landing files that an erasure has rewritten."""
    return Table(
        NAME,
        (
            Column("source_file", "STRING", "the landing file, below the landing folder"),
            Column("digest", "STRING", "SHA-256 of what is left of it"),
            Column("counts_as", "STRING", "SHA-256 of the file as it was delivered: its rows and ids are known by it"),
            Column("at", "TIMESTAMP", "when it was rewritten"),
        ),
    )


def as_delivered(files: list[LandingFile], settings: Settings) -> list[LandingFile]:
    """Return files with the digests that they were delivered with, also those that an erasure has rewritten since."""
    path = settings.table(NAME)
    if not DeltaTable.is_deltatable(path):
        return files
    known = {(row["source_file"], row["digest"]): row["counts_as"] for row in read_rows(DeltaTable(path))}
    return [replace(file, digest=known.get((file.name, file.digest), file.digest)) for file in files]


@dataclass(frozen=True)
class Lines:
    """Which lines of a source's files are a key's."""

    key: str
    columns: tuple[str, ...]
    entity_key: str

    def has(self, line: bytes) -> bool:
        """Tell whether a line is the key's row, or shows the key and is no row at all."""
        if self._hint and self._hint not in line:
            return False
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        rows = [_parsed(text, dialect) for dialect in DIALECTS]
        place = self.columns.index(self.entity_key)
        if any(len(row) > place and row[place] == self.key for row in rows):
            return True
        is_row = any(len(row) == len(self.columns) for row in rows)
        return not is_row and shown(self.key).search(text) is not None

    @property
    def _hint(self) -> bytes:
        """What every line of the key has: none of one that CSV writes in several ways."""
        return b"" if re.search(r'["\\]', self.key) else self.key.encode()


@dataclass(frozen=True)
class Landing:
    """The landing folder of a lake."""

    lake: Lake
    settings: Settings

    def erase(self, source: Source, lines: Lines) -> int:
        """Rewrite the files of a source that have such lines, and return how many lines went.

        Each is whole at any moment, the old one or the new one; what it counts as is on record before.

        Raises:
            FileFault: a file cannot be read to its end, or not be written.
        """
        found = FileSystem(self.lake.spark, self.settings.landing).glob(source.landing.replace("{day}", "*"))
        depth = source.landing.count("/") + 1
        return sum(self._rewritten(path, "/".join(path.split("/")[-depth:]), lines) for path, _ in found)

    def _rewritten(self, path: str, name: str, lines: Lines) -> int:
        files, place = _opened(path)
        folder, _, own = place.rpartition("/")
        beside = f"{folder}/{PREFIX}{own}"
        try:
            gone = sum(map(lines.has, _rows(files, place)))
            if gone:
                _write(files, place, beside, lines)
                self._record(name, _digest(files, place), _digest(files, beside))
                with suppress(FileNotFoundError):
                    files.delete_file(f"{folder}/.{own}.crc")  # of Hadoop, for what was there
                files.move(beside, place)
        except (OSError, pa.ArrowException) as fault:
            raise FileFault(f"{name}: it cannot be rewritten without the key ({fault}); make it readable") from fault
        return gone

    def _record(self, name: str, was: str, digest: str) -> None:
        now = datetime.now(UTC)
        file = LandingFile("", "", name, now.date(), was)
        counts_as = as_delivered([file], self.settings)[0].digest
        kinds = [("source_file", name), ("digest", digest), ("counts_as", counts_as)]
        row = {column: pa.array([value], pa.string()) for column, value in kinds}
        at = pa.array([now], pa.timestamp("us", "UTC"))
        write_deltalake(self.settings.table(NAME), pa.table({**row, "at": at}), mode="append")


def _opened(path: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the file system of a path as Hadoop writes it, and the path there."""
    if path.startswith("file:"):
        return pyarrow.fs.LocalFileSystem(), "/" + path.removeprefix("file:").lstrip("/")
    found, place = pyarrow.fs.FileSystem.from_uri(re.sub("^s3a:", "s3:", path))
    return found, str(place)


def _rows(files: pyarrow.fs.FileSystem, place: str) -> Iterator[bytes]:
    """Give the lines below the header."""
    with files.open_input_stream(place) as stream:
        lines = _lines(stream)
        next(lines, None)
        yield from lines


def _write(files: pyarrow.fs.FileSystem, place: str, beside: str, lines: Lines) -> None:
    with files.open_input_stream(place) as stream, files.open_output_stream(beside) as out:
        for number, line in enumerate(_lines(stream)):
            if number == 0 or not lines.has(line):
                out.write(line)


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Give the lines of a stream with their ends, as Spark tells them apart: line feeds, carriage returns, or both."""
    rest = b""
    while chunk := stream.read(CHUNK):
        parts = (rest + chunk).splitlines(keepends=True)
        # Of the last one, the end may be yet to come.
        rest = parts.pop()
        yield from parts
    yield from rest.splitlines(keepends=True)


def _digest(files: pyarrow.fs.FileSystem, place: str) -> str:
    with files.open_input_stream(place, compression=None) as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _parsed(text: str, dialect: dict[str, Any]) -> Sequence[str]:
    with suppress(csv.Error):
        return next(csv.reader([text], **dialect), [])
    return []
