"""What the runtime remembers between two commands: files that are written whole, and read with mistrust."""

import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
PRIVATE, PUBLIC = 0o600, 0o644


def write(path: Path, text: str, mode: int = PUBLIC) -> None:
    """Make the file appear with this text at once or not at all, whenever this process is killed."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def read(path: Path, understand: Callable[[str], T]) -> T | None:
    """Return what `understand` makes of a file's text; None where there is no file, or none that can be understood.

    The latter is said once, for a person.
    """
    try:
        return understand(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _say(f"{path} cannot be read ({type(error).__name__}: {error}), and counts as absent")
        return None


def read_json(path: Path, understand: Callable[[Any], T]) -> T | None:
    """Return what `understand` makes of a JSON file; None as `read` does."""
    return read(path, lambda text: understand(json.loads(text)))


@cache
def _say(text: str) -> None:
    print(text, file=sys.stderr)
