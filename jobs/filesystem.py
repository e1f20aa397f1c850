"""Files on any Hadoop file system, through the JVM that Spark runs on; no file is ever held in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession


@dataclass(frozen=True)
class FileSystem:
    """The file system below one root folder or URI."""

    spark: SparkSession
    root: str

    @property
    def _jvm(self) -> Any:
        return self.spark._jvm  # noqa: SLF001  reason: PySpark has no public way to Hadoop's FileSystem

    @property
    def _configuration(self) -> Any:
        return self.spark._jsc.hadoopConfiguration()  # noqa: SLF001  reason: as above

    def _path(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(f"{self.root.rstrip('/')}/{name}".rstrip("/"))

    def _of(self, path: Any) -> Any:
        return path.getFileSystem(self._configuration)

    def glob(self, pattern: str) -> list[tuple[str, int]]:
        """Return (path, size in bytes) of the files that match, sorted.

        Names that begin with _ or . count only where the pattern's own begins so.
        """
        hidden = pattern.rpartition("/")[2].startswith(("_", "."))
        named = ((file.getPath(), int(file.getLen())) for file in self._matching(pattern) if file.isFile())
        return sorted((place.toString(), size) for place, size in named if hidden or place.getName()[0] not in "_.")

    def folders(self, pattern: str) -> list[str]:
        """Return the paths of the folders that match, sorted."""
        return sorted(each.getPath().toString() for each in self._matching(pattern) if each.isDirectory())

    def _matching(self, pattern: str) -> Any:
        path = self._path(pattern)
        return self._of(path).globStatus(path) or []

    def uri(self, path: str) -> str:
        """Return a path's URI, in which a space is %20: how Spark names the file that a row is from."""
        return str(self._jvm.org.apache.hadoop.fs.Path(path).toUri().toString())

    def sha256(self, path: str) -> str:
        """Return the SHA-256 of a file's bytes, in hexadecimal.

        Raises:
            OSError: the file can't be read.
        """
        with self._opened(path) as stream:
            return str(self._jvm.org.apache.commons.codec.digest.DigestUtils.sha256Hex(stream))

    def first_line(self, path: str, longest: int) -> str | None:
        """Return a text file's first line, unpacked as its name says; None when it has not one.

        A packed file is read to its end, so that a truncated one is noticed here and not in the middle of a job.

        Raises:
            OSError: the file can't be read, ends too early, or has no end of a line within `longest` bytes.
        """
        factory = self._jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(self._configuration)
        codec = factory.getCodec(self._jvm.org.apache.hadoop.fs.Path(path))
        with self._opened(path) as stream:
            unpacked = stream if codec is None else codec.createInputStream(stream)
            line = self._line(unpacked, longest)
            if codec is not None:
                unpacked.transferTo(self._jvm.java.io.OutputStream.nullOutputStream())
        return line

    def _line(self, stream: Any, longest: int) -> str | None:
        start = self._jvm.org.apache.commons.io.input.BoundedInputStream(stream, longest + 1)
        line = self._jvm.java.io.BufferedReader(self._jvm.java.io.InputStreamReader(start, "UTF-8")).readLine()
        if line is not None and len(str(line).encode("utf-8", "replace")) > longest:
            raise OSError(f"its first line is longer than {longest} bytes, so it is no CSV text")
        return None if line is None else str(line)

    def write_line(self, name: str, line: str) -> None:
        """Write a text file of one line below the root, in place of what is there: all of it, or nothing.

        As Spark writes its checkpoints: beside it first, then renamed, as well as the file system can.
        """
        path = self._path(name)
        self._of(path).mkdirs(path.getParent())
        # The checksum of what is there goes first: a file and its checksum are not renamed at once.
        checksum = self._jvm.org.apache.hadoop.fs.Path(path.getParent(), f".{path.getName()}.crc")
        self._of(checksum).delete(checksum, False)  # noqa: FBT003  reason: Java's signature; False is one file
        managers = self._jvm.org.apache.spark.sql.execution.streaming.checkpointing.CheckpointFileManager
        stream = managers.create(path.getParent(), self._configuration).createAtomic(path, True)  # noqa: FBT003  reason: Java's signature; True overwrites
        try:
            stream.write(bytearray(f"{line}\n".encode()))
        except BaseException:
            stream.cancel()
            raise
        stream.close()

    def make_folder(self, name: str) -> None:
        """Make a folder below the root."""
        path = self._path(name)
        self._of(path).mkdirs(path)

    def has(self, name: str) -> bool:
        """Return whether there is a file or folder of that name below the root."""
        path = self._path(name)
        return bool(self._of(path).exists(path))

    def delete(self, name: str) -> None:
        """Delete a folder below the root, if it is there."""
        path = self._path(name)
        self._of(path).delete(path, True)  # noqa: FBT003  reason: Java's signature; True is recursive

    @contextmanager
    def _opened(self, path: str) -> Iterator[Any]:
        """Give a file's stream, and what Java says of it as an OSError."""
        try:
            place = self._jvm.org.apache.hadoop.fs.Path(path)
            stream = self._of(place).open(place)
            try:
                yield stream
            finally:
                stream.close()
        except Py4JJavaError as error:
            raise OSError(str(error.java_exception.toString())) from None
