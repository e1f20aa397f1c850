"""Suites: YAML lists in the vocabulary of Great Expectations, read strictly."""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any

from great_expectations.compatibility.pydantic import ValidationError
from great_expectations.exceptions import GreatExpectationsError
from great_expectations.expectations.registry import get_expectation_impl, list_registered_expectation_implementations
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from expectations.errors import SuiteError, SuiteMissing

FIELDS = ("type", "kwargs", "severity", "meta", "description", "notes")
COLUMN_FIELDS = ("column", "column_A", "column_B", "column_list")
# What the gate itself decides, what only a store of Great Expectations needs, or what it will not take much longer.
NOT_KWARGS = frozenset(
    {
        *("id", "batch_id", "rendered_content", "result_format", "catch_exceptions"),
        *("condition_parser", "windows", "library_metadata"),
    }
)
ROW_CONDITION = "write one such as {type: pass_through, pass_through_filter: amount > 0}"


@dataclass(frozen=True)
class Check:
    """One expectation of a suite, with its place in the file.

    Attributes:
        line: The line where it starts, for messages; several may share one.
        entry: Its place in the list, from 0, by which its result is found again.
    """

    expectation: Any  # an Expectation of Great Expectations, which has no types to offer
    kwargs: dict[str, Any]
    line: int
    entry: int

    @property
    def type(self) -> str:
        """The expectation's name, such as expect_column_values_to_not_be_null."""
        return str(self.expectation.expectation_type)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it speaks of; none for an expectation of the table."""
        named = (self.kwargs.get(field, ()) for field in COLUMN_FIELDS)
        return tuple(column for value in named for column in ([value] if isinstance(value, str) else value))

    @property
    def expected(self) -> str:
        """What it expects, such as min_value=0, mostly=0.95."""
        return ", ".join(f"{name}={_text(value)}" for name, value in self.kwargs.items() if name not in COLUMN_FIELDS)

    @property
    def severity(self) -> str:
        """One of critical, warning, info; only the first stops anything."""
        return str(self.expectation.severity.value)

    @property
    def is_critical(self) -> bool:
        """Whether rows that break it are refused."""
        return self.severity == "critical"


@dataclass(frozen=True)
class Suite:
    """What rows must be before anybody sees them."""

    name: str
    path: Path
    checks: tuple[Check, ...]


def load_suite(path: Path) -> Suite:
    """Read a suite: a YAML list of expectations, each with `type`, `kwargs` and, if wanted, `severity` and `meta`.

    Raises:
        SuiteMissing: There is no such file.
        SuiteError: The file is wrong; the message names the line, the field and what to write instead.
    """
    if not path.is_file():
        raise SuiteMissing(
            f"{path}: there is no such suite: write the file, or correct its name in the pipeline's YAML"
        )
    entries = _parse(path)
    checks = tuple(_check(_Place(path, entries.lc.item(i)[0] + 1, i), entry) for i, entry in enumerate(entries))
    _refuse_twins(path, checks)
    return Suite(path.stem, path, checks)


@dataclass(frozen=True)
class _Place:
    """A line of a file and the entry that it belongs to; words what is wrong there."""

    path: Path
    line: int
    entry: int = 0

    def error(self, field: str, wrong: str, remedy: str) -> SuiteError:
        return SuiteError(f"{self.path}, line {self.line}, {field}: {wrong}: {remedy}")

    def of(self, entries: CommentedMap, field: str) -> "_Place":
        return replace(self, line=entries.lc.key(field)[0] + 1 if field in entries else self.line)


def _parse(path: Path) -> CommentedSeq:
    try:
        entries = YAML().load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _Place(path, line).error("syntax", str(error.problem), "write valid YAML") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise _Place(path, 1).error("syntax", str(error), "write valid YAML in UTF-8") from error
    if not isinstance(entries, CommentedSeq) or not entries:
        wrong = "it is no list of expectations" if entries else "it expects nothing"
        raise _Place(path, 1).error("suite", wrong, "write a list of entries such as '- type: expect_...'")
    return entries


def _check(place: _Place, entry: object) -> Check:
    if not isinstance(entry, CommentedMap):
        raise place.error("entry", f"{entry!r} is no mapping", "write 'type: expect_...' and 'kwargs: {...}'")
    _require_known(place, entry, FIELDS)
    kwargs = _mapping(place, entry, "kwargs", "{column: ...}")
    _mapping(place, entry, "meta", "{owner: ...}")
    expectation = _implementation(place, entry)
    fields = sorted(set(expectation.__fields__) - NOT_KWARGS - set(FIELDS))
    _require_known(place, kwargs, fields)
    if isinstance(kwargs.get("row_condition"), str):
        raise place.of(kwargs, "row_condition").error("row_condition", "it is a string", ROW_CONDITION)
    if "min_value" in fields and "threshold" not in fields:
        _require_range(place.of(entry, "kwargs"), _plain(kwargs))
    return _build(place, entry, kwargs, expectation)


def _mapping(place: _Place, entry: CommentedMap, field: str, example: str) -> CommentedMap:
    found = entry.get(field, CommentedMap())
    if not isinstance(found, CommentedMap):
        raise place.of(entry, field).error(field, f"{found!r} is no mapping", f"write '{field}: {example}'")
    return found


def _require_known(place: _Place, entries: CommentedMap, known: Iterable[str]) -> None:
    for field in entries:
        if field not in known:
            raise place.of(entries, field).error(str(field), "there is no such field", _instead(str(field), known))


def _require_range(place: _Place, kwargs: dict[str, Any]) -> None:
    """Great Expectations finds these only while it reads the rows."""
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is None and high is None:
        raise place.error("min_value", "there is no bound", "write min_value, max_value or both")
    for field, bound in (("min_value", low), ("max_value", high)):
        if isinstance(bound, float) and isnan(bound):
            raise place.error(field, "nothing compares with NaN", "write a number, or leave it out")
    if low is not None and high is not None and _is_above(place, low, high):
        raise place.error("max_value", f"{high} is below min_value {low}", "write max_value >= min_value")


def _is_above(place: _Place, low: Any, high: Any) -> bool:
    try:
        return bool(low > high)
    except TypeError as error:
        wrong = f"{high!r} does not compare with min_value {low!r}"
        raise place.error("max_value", wrong, "write two numbers, two dates or two texts") from error


def _instead(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"write {close[0]}" if close else f"write one of {', '.join(known)}"


def _implementation(place: _Place, entry: CommentedMap) -> Any:
    name = entry.get("type")
    known = sorted(list_registered_expectation_implementations())
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=3) or known[:3]
        raise place.of(entry, "type").error("type", f"{name!r} is no expectation", f"write {' or '.join(close)}")
    return get_expectation_impl(name)


def _build(place: _Place, entry: CommentedMap, kwargs: CommentedMap, expectation: Any) -> Check:
    plain = _plain(kwargs)
    rest = {field: _plain(entry[field]) for field in FIELDS[2:] if field in entry}
    # By its number an entry is found again among the results, which Great Expectations sorts anew; lines may be shared.
    rest["meta"] = {**rest.get("meta", {}), "line": place.line, "entry": place.entry}
    try:
        return Check(expectation(**plain, **rest), plain, place.line, place.entry)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        at = place.of(kwargs, field) if field in kwargs else place.of(entry, field)
        raise at.error(field, _wrong(field, {**rest, **plain}), _remedy(field, first["msg"])) from error
    except (GreatExpectationsError, TypeError, ValueError) as error:
        raise place.error("kwargs", str(error), "correct them") from error


def _wrong(field: str, values: dict[str, Any]) -> str:
    return f"{values[field]!r} is not allowed" if field in values else "it is missing or wrong"


def _remedy(field: str, message: str) -> str:
    return ROW_CONDITION if field == "row_condition" else f"write what it asks for ({' '.join(message.split())})"


def _refuse_twins(path: Path, checks: tuple[Check, ...]) -> None:
    seen: dict[str, Check] = {}
    for check in checks:
        twin = seen.setdefault(json.dumps([check.type, check.kwargs], default=str, sort_keys=True), check)
        if twin is not check:
            raise _Place(path, check.line).error("entry", f"it repeats line {twin.line}", "remove one of the two")


def _plain(value: Any) -> Any:
    """Strip what ruamel adds: Great Expectations copies and serializes values, which its own types do not survive."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    plain = (base for base in (bool, int, float, str) if isinstance(value, base))
    return next((base(value) for base in plain), value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
