"""Landing files without a key's lines; what they were delivered as is kept, since events are known by it."""

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import IO, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable, write_deltalake

from jobs.arrowfiles import arrow_files
from jobs.erasure.words import shown
from jobs.errors import Fenced, FileFault
from jobs.filesystem import FileSystem
from jobs.lake import Lake
from jobs.landing import LandingFile, header_of
from jobs.publication.ledger import rows_of
from jobs.spec import Settings, Source
from jobs.tables import Column, Table

NAME = "erasures_files"
CHUNK = 2**20
TRIES = 20
PREFIX = ".erasing-"  # such a file is no delivery, whatever becomes of it
GRACE = timedelta(minutes=10)  # what is older of them was left by an erasure that was killed
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
    known = {(row["source_file"], row["digest"]): row["counts_as"] for row in rows_of(DeltaTable(path))}
    return [replace(file, digest=known.get((file.name, file.digest), file.digest)) for file in files]


@dataclass(frozen=True)
class Lines:
    """Which lines of a file are a key's, by the columns that the file's own header names."""

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
class File:
    """A landing file: where Arrow has it, and its name below the landing folder."""

    files: pyarrow.fs.FileSystem
    place: str
    name: str

    @property
    def around(self) -> tuple[str, str]:
        """The folder that it is in, and what it is called there."""
        folder, _, own = self.place.rpartition("/")
        return folder, own

    def digest(self, place: str = "") -> str:
        """Return the SHA-256 of its bytes as they are now, or of those of another file beside it."""
        with self.files.open_input_stream(place or self.place, compression=None) as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True)
class Landing:
    """The landing folder of a lake, and a key of the column `entity_key`; files are named by its `mark` alone."""

    lake: Lake
    settings: Settings
    entity_key: str
    key: str
    mark: str

    def count(self, source: Source) -> int:
        """Return how many lines of a source's files are the key's; they are read to their ends.

        What others are about to put in the place of a file may be of before, and counts as a line.

        Raises:
            FileFault: a file cannot be read, or names no column of the key.
        """
        beside = [file for file in self._beside(source) if not self._is_left(file)]
        return len(beside) + sum(self._counted(file) for file in self._files(source))

    def erase(self, source: Source) -> int:
        """Rewrite the files of a source that have such lines, and return how many lines went.

        Each is whole at any moment, the old one or the new one; what it counts as is on record before.

        Raises:
            FileFault: a file cannot be read to its end, or not be written.
            Fenced: others rewrite a file all the time.
        """
        for file in self._beside(source):
            if self._is_left(file):
                file.files.delete_file(file.place)
        return sum(self._rewritten(file) for file in self._files(source))

    def _files(self, source: Source) -> list[File]:
        pattern = source.landing.replace("{day}", "*")
        found = FileSystem(self.lake.spark, self.settings.landing).glob(pattern)
        depth = pattern.count("/") + 1
        return [File(*arrow_files(path), "/".join(path.split("/")[-depth:])) for path, _ in found]

    def _beside(self, source: Source) -> list[File]:
        """Return what erasures are about to put in the place of files, or would have been."""
        folder = source.landing.replace("{day}", "*").rpartition("/")[0]
        found = FileSystem(self.lake.spark, self.settings.landing).glob(f"{folder}/{PREFIX}*")
        return [File(*arrow_files(path), path) for path, _ in found]

    def _is_left(self, file: File) -> bool:
        """Tell whether nobody is at work any more on a file beside: the same erasure is run again, or it is old."""
        (info,) = file.files.get_file_info([file.place])
        is_old = info.mtime is not None and info.mtime < datetime.now(UTC) - GRACE
        return is_old or file.around[1].startswith(self._prefix)

    @property
    def _prefix(self) -> str:
        return f"{PREFIX}{self.mark[:12]}-"

    def _counted(self, file: File) -> int:
        with _faults_of(file):
            return sum(is_of_key for _, is_of_key in self._judged(file))

    def _rewritten(self, file: File) -> int:
        gone = self._counted(file)
        if not gone:
            return 0
        for _ in range(TRIES):
            with _faults_of(file):
                if self._is_replaced(file):
                    return gone
        raise Fenced(f"{file.name}: others rewrote it at the same moment, {TRIES} times: run the erasure again")

    def _is_replaced(self, file: File) -> bool:
        """Put what is left of a file in its place, unless another one is there by now; return whether that is so."""
        folder, own = file.around
        was, beside = file.digest(), f"{folder}/{self._prefix}{uuid4().hex[:8]}-{own}"
        with file.files.open_output_stream(beside) as out:
            for line, is_of_key in self._judged(file):
                if not is_of_key:
                    out.write(line)
        self._record(file.name, was, file.digest(beside))
        if file.digest() != was:
            file.files.delete_file(beside)
            return False
        with suppress(FileNotFoundError):
            file.files.delete_file(f"{folder}/.{own}.crc")  # of Hadoop, for what was there
        file.files.move(beside, file.place)
        return True

    def _judged(self, file: File) -> Iterator[tuple[bytes, bool]]:
        """Give the lines of a file, each with whether it is the key's; the header is nobody's."""
        with file.files.open_input_stream(file.place) as stream:
            lines = _lines(stream)
            for header in islice(lines, 1):
                yield header, False
                of_key = self._lines_of(file, header)
                yield from ((line, of_key.has(line)) for line in lines)

    def _lines_of(self, file: File, header: bytes) -> Lines:
        columns = tuple(header_of(header.decode("utf-8", "replace").rstrip("\r\n")))
        if self.entity_key not in columns:
            raise FileFault(
                f"{file.name}:1: no column is called {self.entity_key}, so that nobody can tell which lines are the "
                "key's; put the right header above them, or take the file out of the landing folder"
            )
        return Lines(self.key, columns, self.entity_key)

    def _record(self, name: str, was: str, digest: str) -> None:
        now = datetime.now(UTC)
        file = LandingFile("", "", name, now.date(), was)
        counts_as = as_delivered([file], self.settings)[0].digest
        kinds = [("source_file", name), ("digest", digest), ("counts_as", counts_as)]
        row = {column: pa.array([value], pa.string()) for column, value in kinds}
        at = pa.array([now], pa.timestamp("us", "UTC"))
        write_deltalake(self.settings.table(NAME), pa.table({**row, "at": at}), mode="append")


@contextmanager
def _faults_of(file: File) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, csv.Error) as fault:
        raise FileFault(
            f"{file.name}: it cannot be read or rewritten without the key ({fault}); make it readable, or take it out "
            "of the landing folder"
        ) from fault


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Give the lines of a stream with their ends, as Spark tells them apart: line feeds, carriage returns, or both."""
    rest = b""
    while chunk := stream.read(CHUNK):
        parts = (rest + chunk).splitlines(keepends=True)
        # Of the last one, the end may be yet to come.
        rest = parts.pop()
        yield from parts
    yield from rest.splitlines(keepends=True)


def _parsed(text: str, dialect: dict[str, Any]) -> Sequence[str]:
    with suppress(csv.Error):
        return next(csv.reader([text], **dialect), [])
    return []
