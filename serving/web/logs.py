"""The service's log: JSON lines, faults at once, requests in bulk."""

import json
import logging
import os
from datetime import UTC, datetime
from queue import SimpleQueue
from threading import Thread

STDERR = 2
MOST_WAITING = 2**24  # bytes that may wait for a slow reader of the log
FLUSH_SECONDS = 2.0


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, and request_id and fault where there are."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", None):
            line["request_id"] = request_id
        if record.exc_info:
            line["fault"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging() -> None:
    """Send what this process logs to standard error, as JSON lines."""
    handler = BulkHandler(BulkWriter(STDERR))
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("serving").setLevel(logging.INFO)


class BulkWriter:
    """Writes to a file descriptor from a thread of its own, so that a slow reader of it holds nobody up."""

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0  # pieces that found too much waiting
        self._descriptor = descriptor
        self._waiting = 0
        self._pieces: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def write(self, piece: bytes) -> None:
        """Have a piece written soon; while too much waits it is dropped and counted."""
        if self._waiting > MOST_WAITING:
            self.dropped += 1
            return
        self._waiting += len(piece)
        self._pieces.put(piece)

    def close(self) -> None:
        """Write what waits, and give up on a reader that does not take it within two seconds."""
        self._pieces.put(None)
        self._thread.join(FLUSH_SECONDS)

    def _write(self) -> None:
        while (piece := self._pieces.get()) is not None:
            left = memoryview(piece)
            try:
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError:  # whoever read the log is gone
                self.dropped += 1
            self._waiting -= len(piece)


class BulkHandler(logging.Handler):
    """Has records written by a `BulkWriter`, one a line."""

    def __init__(self, writer: BulkWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record over."""
        try:
            self._writer.write(f"{self.format(record)}\n".encode())
        except Exception:  # noqa: BLE001  reason: what cannot be logged fails nobody, as with Python's own handlers
            self.handleError(record)

    def close(self) -> None:
        """Write what waits; Python does so at the end of the process."""
        self._writer.close()
        super().close()
