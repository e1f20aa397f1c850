"""The files that were delivered for an interval: found, identified by content, and refused as a whole if at fault."""

import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta

from jobs.errors import FileFault
from jobs.filesystem import FileSystem
from jobs.spec import Source

READERS = 8
LONGEST_HEADER = 2**20


@dataclass(frozen=True)
class LandingFile:
    """A delivered file: its path and URI, its name below the landing folder, its day and the SHA-256 of its bytes."""

    path: str
    uri: str
    name: str
    day: date
    digest: str


def days_between(first: date, last: date) -> list[date]:
    """Return all days from `first` to `last`, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def delivered(files: FileSystem, source: Source, days: Sequence[date]) -> list[LandingFile]:
    """Return the files of `days`, each with the digest of its bytes and a header as declared.

    Raises:
        FileFault: a day has no file, or a file is empty, unreadable or of another shape.
    """
    found = [(day, path, size) for day in days for path, size in _of_day(files, source, day)]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda item: _inspect(files, source, *item), found))


def _of_day(files: FileSystem, source: Source, day: date) -> Iterator[tuple[str, int]]:
    pattern = _pattern(source, day)
    found = files.glob(pattern)
    if not found:
        raise FileFault(
            f"no file for {day}: nothing matches {files.root}/{pattern}; deliver it (a header alone is a quiet day)"
        )
    yield from found


def _pattern(source: Source, day: date) -> str:
    return source.landing.replace("{day}", day.isoformat())


def _inspect(files: FileSystem, source: Source, day: date, path: str, size: int) -> LandingFile:
    name = _name(source, day, path)
    if size == 0:
        raise FileFault(f"{name}: the file has no bytes; deliver it again (a header alone is a quiet day)")
    try:
        header, digest = files.first_line(path, LONGEST_HEADER), files.sha256(path)
    except OSError as error:
        raise FileFault(
            f"{name}: the file can't be read to its end ({error}); make it readable, or deliver it again"
        ) from None
    _check_header(name, header, list(source.columns))
    return LandingFile(path, files.uri(path), name, day, digest)


def _name(source: Source, day: date, path: str) -> str:
    """Return the part of a path below the landing folder, which is as deep as the pattern."""
    depth = _pattern(source, day).count("/") + 1
    return "/".join(path.split("/")[-depth:])


def header_of(line: str) -> list[str]:
    """Return the columns that a file's first line names."""
    return [column.strip() for column in next(csv.reader([line.removeprefix("\ufeff")]), [])]


def _check_header(name: str, line: str | None, declared: list[str]) -> None:
    if line is None:
        raise FileFault(f"{name}: the file is empty inside; deliver it again (a header alone is a quiet day)")
    header = header_of(line)
    if header == declared:
        return
    missing = [column for column in declared if column not in header]
    added = [column for column in header if column not in declared]
    what = [f"column '{column}' is missing" for column in missing]
    what += [f"column '{column}' is not declared" for column in added]
    raise FileFault(
        f"{name}:1: {', '.join(what) or 'the columns are in another order'}; expected {','.join(declared)} "
        f"but found {','.join(header)}; ask for the declared columns, or change `columns` in the pipeline's YAML"
    )
