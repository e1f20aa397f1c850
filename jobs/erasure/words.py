"""A key in text that is no row: what counts as showing it."""

import json
import re
from collections.abc import Iterator

# What a key may be made of, cut at all that separates values, and at what may stand within a key as well.
WORDS = (re.compile(r"\w+"), re.compile(r"[^\s,;|\"'<>(){}\[\]=]+"))


def words(text: str) -> Iterator[str]:
    """Give all that may be a key in a text."""
    for each in WORDS:
        yield from each.findall(text)


def shown(key: str) -> re.Pattern[str]:
    """Return what finds a key in a text, where no letter or digit stands next to it."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, _written(key)))})(?!\w)")


def shown_in_java(key: str) -> str:
    """Return the same as a pattern of Java."""
    quoted = "|".join(r"\Q" + each.replace(r"\E", r"\E\\E\Q") + r"\E" for each in _written(key))
    return rf"(?<![\p{{L}}\p{{N}}_])(?:{quoted})(?![\p{{L}}\p{{N}}_])"


def _written(key: str) -> list[str]:
    """Return a key as text has it, and as JSON has it."""
    return sorted({key, json.dumps(key)[1:-1], json.dumps(key, ensure_ascii=False)[1:-1]})
