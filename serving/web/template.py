"""The JSON of answers, with all that a generation's answers have in common written once."""

import json
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii
from typing import cast

from serving.answers import Missing
from serving.clock import instant
from serving.errors import ServingError
from serving.layout import SCORE
from serving.question import Found, Fresher, Plan
from serving.web.journal import Journal
from serving.web.lookup import unknown
from serving.web.problems import problem_of

SOURCES = ("batch", "stream", "fallback", "none", "fault")
COMPACT = (",", ":")
Told = str | ServingError  # the JSON of an answer, or why there is none


class Template:
    """Writes what `lookup` answers to plain lookups by one plan, as ASCII text, and counts it by source."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        head = plan.head
        model = json.dumps({"name": head.model.name, "version": head.model.version}, separators=COMPACT)
        self.plan = plan
        self._from = {source: journal.looked_up(head.pipeline, source) for source in SOURCES}
        self._own = self._from["batch"]
        self._place, self._as_of, self._since = head.layout.places[SCORE], head.as_of, _since(head.as_of)
        self._batch = f',"source":"batch","generation":{head.token},"model":{model}}}'
        self._stream = f',"source":"stream","generation":{head.token},"model":{model}}}'
        self._fallback = f',"source":"fallback","generation":{head.token},"model":null}}'

    def told(self, keys: Sequence[str], found: Sequence[Found], now: int) -> list[Told]:
        """Return what is told of each key; `now` is in microseconds."""
        place, other = self._place, self._other
        tail = f"{self._since}{_seconds(now - self._as_of)}{self._batch}"
        # What is no plain tuple, None, a Fresher or a fault is rarer.
        self._own.keys += list(map(type, found)).count(tuple)
        return [
            f'{{"key":{encode_basestring_ascii(key)},"score":{float(known[place])!r}{tail}'  # type: ignore[arg-type]  # reason: mypy takes a Fresher for a tuple
            if type(known) is tuple
            else other(key, known, now)
            for key, known in zip(keys, found, strict=True)
        ]

    def body(self, keys: Sequence[str], told: Sequence[Told]) -> str:
        """Return the body that holds what is told of several keys."""
        head = self.plan.head
        texts = [one if isinstance(one, str) else _missing(key, one) for key, one in zip(keys, told, strict=True)]
        return f'{{"pipeline":"{head.pipeline}","generation":{head.token},"answers":[{",".join(texts)}]}}'

    def _other(self, key: str, known: Found, now: int) -> Told:
        head = self.plan.head
        start = f'{{"key":{encode_basestring_ascii(key)},"score":'
        if type(known) is Fresher:
            self._from["stream"].keys += 1
            as_of, row = known
            return f"{start}{float(row[self._place])!r}{_since(as_of)}{_seconds(now - as_of)}{self._stream}"
        if known is not None:
            self._from["fault"].keys += 1
            return cast("ServingError", known)
        if head.fallback is not None:
            self._from["fallback"].keys += 1
            return f"{start}{head.fallback.score!r}{self._since}{_seconds(now - self._as_of)}{self._fallback}"
        self._from["none"].keys += 1
        return unknown(head, key)


def _seconds(microseconds: int) -> str:
    """The decimal of exactly that many microseconds, which reads back as the quotient does; its repr costs twice."""
    if microseconds < 0:
        return repr(microseconds / 1_000_000)
    return f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}"


def _since(as_of: int) -> str:
    return f',"as_of":"{instant(as_of).isoformat().removesuffix("+00:00")}Z","age_seconds":'


def _missing(key: str, fault: ServingError) -> str:
    return json.dumps(Missing(key=key, problem=problem_of(fault)).model_dump(), separators=COMPACT)
