"""A key in text that is no row: what counts as showing it."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress

# A word ends where no letter or digit follows; but 11 is no word of 11.50, 1998-06-11 or 11:30.
BEFORE = r"(?<!{word})(?!(?<={digit}[.:\-]){digit})"
AFTER = r"(?!{word})(?!(?<={digit})[.:\-]{digit})"
PYTHON = {"word": r"\w", "digit": r"\d"}
JAVA = {"word": r"[\p{L}\p{N}_]", "digit": r"\p{Nd}"}
# What a key may be made of, cut at all that separates values, and at what may stand within a key as well.
WORDS = (
    re.compile(BEFORE.format(**PYTHON) + r"\w+" + AFTER.format(**PYTHON)),
    re.compile(r"[^\s,;|\"'<>(){}\[\]=]+"),
)


def words(text: str) -> Iterator[str]:
    """Give all that may be a key in a text."""
    for each in WORDS:
        yield from each.findall(text)


def named(text: str, column: str) -> str | None:
    """Return what a JSON object has in a field; None where it has none, or is none."""
    with suppress(ValueError):
        found = json.loads(text, parse_int=str, parse_float=str)
        value = found.get(column) if isinstance(found, dict) else None
        return value if isinstance(value, str) else None
    return None


def named_in_sql(text: str, column: str) -> str:
    """Return the same as an SQL expression; in brackets, as what follows a first JSON value is passed over silently."""
    return f"try_variant_get(try_parse_json(concat('[', {text}, ']')), '$[0].{column}', 'string')"


def shown(key: str) -> re.Pattern[str]:
    """Return what finds a key in a text, as a word."""
    return re.compile(f"{BEFORE.format(**PYTHON)}(?:{'|'.join(map(re.escape, _written(key)))}){AFTER.format(**PYTHON)}")


def shown_in_java(key: str) -> str:
    """Return the same as a pattern of Java."""
    quoted = "|".join(r"\Q" + each.replace(r"\E", r"\E\\E\Q") + r"\E" for each in _written(key))
    return f"{BEFORE.format(**JAVA)}(?:{quoted}){AFTER.format(**JAVA)}"


def _written(key: str) -> list[str]:
    """Return a key as text has it, and as JSON has it."""
    return sorted({key, json.dumps(key)[1:-1], json.dumps(key, ensure_ascii=False)[1:-1]})
