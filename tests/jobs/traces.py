"""Where the bytes of a key are, in all that a project has on disk and in Redis."""

import bz2
import gzip
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from serving.store import Store
from tests.project import Project


def traces(project: Project, key: str) -> list[str]:
    """Return the files below lake, landing and reports that have the key's bytes, packed or not."""
    settings = project.settings
    roots = (Path(settings.lake), Path(settings.landing), settings.reports)
    files = (path for root in roots for path in root.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(project.folder)) for path in files if _has(path, key.encode()))


def traces_in_redis(store: Store, key: str) -> list[str]:
    """Return the names of the values that have the key's bytes, or are named by them."""
    names = store.ask("KEYS", "*")
    assert isinstance(names, list)
    return [
        name for name in names if key.encode() in name or any(key.encode() in each for each in _values(store, name))
    ]


def _has(path: Path, key: bytes) -> bool:
    return any(key in content for content in _contents(path))


def _contents(path: Path) -> Iterator[bytes]:
    raw = path.read_bytes()
    yield raw
    if path.suffix == ".gz":
        yield gzip.decompress(raw)
    elif path.suffix == ".bz2":
        yield bz2.decompress(raw)
    elif path.suffix == ".parquet":
        yield str(pq.read_table(path, partitioning=None).to_pylist()).encode()


def _values(store: Store, name: bytes) -> list[bytes]:
    kind = store.ask("TYPE", name)
    if kind == b"hash":
        found = store.ask("HGETALL", name)
    elif kind == b"set":
        found = store.ask("SMEMBERS", name)
    else:
        found = [store.ask("GET", name)]
    return [each for each in found if isinstance(each, bytes)]
