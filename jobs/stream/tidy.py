"""Short logs: who looks at a Delta table lists its log's folder, where live appends leave thousands of files."""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyarrow.fs import FileInfo, FileSelector, FileSystem

from jobs.arrowfiles import arrow_files

# Spark lists the log three times a micro-batch, at 13 us a file: these are 2,400 files at four commits a second.
KEPT = timedelta(minutes=10)
CHECKSUMS = 20  # of which the newest alone is ever read
NAME = re.compile(r"(\d{20})\.(json|crc|checkpoint\.parquet)")


@dataclass(frozen=True)
class LogFile:
    """A file of a log: of which version it is, what it is, and when it was written."""

    path: str
    version: int
    kind: str
    written: datetime

    @classmethod
    def of(cls, info: FileInfo) -> "LogFile | None":
        """Return a commit, a checksum or a checkpoint; None for anything else."""
        found = NAME.fullmatch(info.base_name)
        return cls(info.path, int(found[1]), found[2], info.mtime) if found and info.is_file else None

    def is_needless(self, in_checkpoint: int, summed: int, old: datetime) -> bool:
        """Tell whether nobody needs it: a checksum up to version `summed`, or what is old and before a checkpoint."""
        if self.kind == "crc":
            return self.version <= summed
        return self.version < in_checkpoint and self.written < old


def tidy(table: str, read: int, newest: int) -> int:
    """Remove what nobody needs of the log of the table at a path, and return how many files that were.

    These are commits and checkpoints before version `read` that a later checkpoint has, some minutes after they were
    written, and all but the newest checksums. `read` is the version from which the caller, a stream, goes on when it
    is started again: another one that is behind by more than those minutes begins anew.

    Raises:
        OSError, ValueError: the log cannot be listed or changed there.
    """
    files, folder = arrow_files(f"{table}/_delta_log")
    old, in_checkpoint = datetime.now(UTC) - KEPT, min(read, _checkpoint(files, folder))
    needless = [
        each.path
        for each in map(LogFile.of, files.get_file_info(FileSelector(folder)))
        if each is not None and each.is_needless(in_checkpoint, newest - CHECKSUMS, old)
    ]
    for path in needless:
        with suppress(FileNotFoundError):  # another stream of the same events was faster
            files.delete_file(path)
    return len(needless)


def _checkpoint(files: FileSystem, folder: str) -> int:
    """Return the version of the last checkpoint; 0 where there is none."""
    try:
        with files.open_input_stream(f"{folder}/_last_checkpoint") as file:
            return int(json.loads(file.read())["version"])
    except FileNotFoundError:
        return 0
