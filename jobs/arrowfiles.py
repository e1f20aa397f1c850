"""Arrow's file systems for the paths of a lake and a landing folder, which are written as Hadoop has them."""

from pathlib import Path

from pyarrow import fs


def arrow_files(path: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a path (a folder, relative or not, or a URI), and how the path is called there."""
    if path.startswith("file:"):
        return fs.LocalFileSystem(), "/" + path.removeprefix("file:").lstrip("/")
    if "://" not in path:
        return fs.LocalFileSystem(), str(Path(path).resolve())
    found, place = fs.FileSystem.from_uri(path.replace("s3a://", "s3://", 1))
    return found, str(place)
