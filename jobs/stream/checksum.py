"""The version checksum beside a commit: what Spark would have to run a job for, to learn that it has not changed."""

import json
import logging
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow.fs import FileSystem

from jobs.arrowfiles import arrow_files

LOG = logging.getLogger(__name__)
SAME = ("metadata", "protocol")


class Checksums:
    """Writes the version checksums of a table at `path`, as Delta's protocol has them ("Version Checksum File").

    Spark writes one with each of its commits, delta-rs does not. Without it Spark reads the log back to its last
    checkpoint at each new version, in a job of its own: a fifth of what a micro-batch takes.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.known: dict[str, Any] = {}  # metadata and protocol, to the letter, for so Spark compares them
        self.known_as: tuple[str, ...] = ()  # as delta-rs reads them
        self.fails = False

    def write(self, table: DeltaTable) -> None:
        """Write that of the version that `table` is at; what fails is not tried again, for nobody depends on it."""
        if self.fails:
            return
        try:
            self._write(table)
        except Exception as fault:  # noqa: BLE001  reason: the commit is made, and must not seem to have failed
            self.fails = True
            LOG.warning("%s: no checksums are written, and Spark takes longer to follow it: %s", self.path, fault)

    def _write(self, table: DeltaTable) -> None:
        files, folder = arrow_files(self.path)
        version = table.version()
        if not self._knows(table, files, f"{folder}/{_name(version - 1)}"):
            return
        sizes = pa.chunked_array(table.get_add_actions()["size_bytes"])
        counted = {"tableSizeBytes": pc.sum(sizes).as_py() or 0, "numFiles": len(sizes)}
        told = {**counted, "numMetadata": 1, "numProtocol": 1, **self.known}
        with files.open_output_stream(f"{folder}/{_name(version)}") as file:
            file.write(json.dumps(told).encode())

    def _knows(self, table: DeltaTable, files: FileSystem, before: str) -> bool:
        """Tell whether metadata and protocol are known: from the checksum before, where they have changed since."""
        seen = (str(table.metadata()), str(table.protocol()), table.schema().to_json())
        if seen != self.known_as:
            try:
                with files.open_input_stream(before) as file:
                    told = json.loads(file.read())
            except FileNotFoundError:
                return False
            self.known, self.known_as = {name: told[name] for name in SAME}, seen
        return True


def _name(version: int) -> str:
    return f"_delta_log/{version:020}.crc"
