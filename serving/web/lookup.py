"""The endpoints: each resolves one head and answers from that generation, and what is fresher than it."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serving.answers import (
    Batch,
    Health,
    Keys,
    MaxAge,
    Missing,
    ModelVersion,
    NothingLive,
    Pipelines,
    PipelineStatus,
    RefusedDate,
    Score,
    Segment,
    Source,
    Wishes,
)
from serving.apikeys import ANYONE, Caller, require
from serving.clock import Clock, instant
from serving.errors import AnswerTooOld, LookupRefused, ServingError, StoreUnavailable, UnknownKey
from serving.head import Head
from serving.heads import Live
from serving.layout import SCORE, Row
from serving.question import Found, Fresher
from serving.reader import Reader
from serving.web.journal import Journal
from serving.web.metrics import Metrics
from serving.web.problems import log_fault, problem_of


class Lookup:
    """What the service answers; faults leave as this package's errors and become problem documents."""

    def __init__(self, reader: Reader, clock: Clock, journal: Journal) -> None:
        self.reader = reader
        self.clock = clock
        self.journal = journal
        self.metrics = Metrics(reader, journal)

    async def score(
        self,
        request: Request,
        pipeline: str,
        key: str,
        segment: Annotated[Segment | None, Query()] = None,
        max_age: Annotated[MaxAge | None, Query()] = None,
    ) -> Score:
        """The score of one key, which stands percent-encoded in the path and may hold any character, slashes too."""
        _, (answer,) = await self._answers(request, pipeline, [key], Wishes(segment, max_age))
        if isinstance(answer, ServingError):
            raise answer
        return answer

    async def scores(self, request: Request, pipeline: str, keys: Keys) -> Batch:
        """One answer for each of up to 1,000 keys (the pipeline's own limit is in `/v1/pipelines`), in their order."""
        head, found = await self._answers(request, pipeline, keys.keys, Wishes(keys.segment, keys.max_age))
        pairs = zip(keys.keys, found, strict=True)
        answers = [
            Missing(key=key, problem=problem_of(answer)) if isinstance(answer, ServingError) else answer
            for key, answer in pairs
        ]
        return Batch(pipeline=pipeline, generation=head.token, answers=answers)

    async def pipelines(self, request: Request) -> Pipelines:
        """What is live, for every pipeline that the caller may read and whose head can be read, and what is not."""
        live, now, caller = await self.reader.live(), self.clock.now(), _caller(request)
        shown = [_status(head, live, now) for head in live.heads if caller.may_read(head.pipeline)]
        headless = (name for name in live.headless if caller.may_read(name))
        without = [NothingLive(pipeline=name, refusals=_refused(name, live)) for name in headless]
        return Pipelines(pipelines=shown, not_live=without)

    async def healthz(self) -> Health:
        """The process is up."""
        return Health()

    async def readyz(self) -> Health:
        """The service can answer lookups: Redis answers it."""
        await self.reader.ping()
        return Health()

    async def scrape(self) -> Response:
        """All metrics, as Prometheus text; they are there while Redis is not."""
        return Response(self.metrics.scrape(await self._live(), self.clock.now()), media_type=CONTENT_TYPE_LATEST)

    async def _live(self) -> Live | None:
        """Return what is live; None where Redis does not answer, nothing where it refuses to say."""
        try:
            return await self.reader.live()
        except StoreUnavailable:
            return None
        except ServingError as fault:
            log_fault(fault)
            return Live([])

    async def _answers(
        self, request: Request, pipeline: str, keys: Sequence[str], wishes: Wishes
    ) -> tuple[Head, list[Score | ServingError]]:
        request.state.keys = len(keys)
        require(_caller(request), pipeline)
        head, rows = await self.reader.lookup(pipeline, keys)
        now = self.clock.now()
        answers = [_answer(head, (key, row), wishes, now) for key, row in zip(keys, rows, strict=True)]
        for source, count in Counter(map(_source, answers)).items():
            self.journal.looked_up(pipeline, source).keys += count
        return head, answers


def _caller(request: Request) -> Caller:
    caller: Caller = getattr(request.state, "caller", ANYONE)
    return caller


def _source(answer: Score | ServingError) -> str:
    if isinstance(answer, Score):
        return answer.source
    return "none" if isinstance(answer, LookupRefused) else "fault"


def _answer(head: Head, asked: tuple[str, Found], wishes: Wishes, now: datetime) -> Score | ServingError:
    """Return the score of a key by what is known of it; where that is nothing, or too old, the fallback if any."""
    key, found = asked
    if isinstance(found, ServingError):
        return found
    known = _known(head, key, found, now) if found is not None else None
    if known is not None and (wishes.max_age is None or known.age_seconds <= wishes.max_age):
        return known
    if head.fallback is not None:
        return _score(head, (key, head.as_of, head.fallback.score_of(wishes.segment), "fallback"), now)
    if known is not None:
        return AnswerTooOld(
            f"the score of {key!r} is as of {known.as_of}, more than {wishes.max_age:g} s ago, and {head.pipeline} "
            "declares no fallback: allow a larger max_age"
        )
    return unknown(head, key)


def unknown(head: Head, key: str) -> UnknownKey:
    """Return what a key of which nothing is known is answered with, where the pipeline declares no fallback."""
    return UnknownKey(
        f"{head.pipeline} has no score for {key!r} in generation {head.token}, and no fallback: correct the key, or "
        "declare a fallback"
    )


def _known(head: Head, key: str, found: Row | Fresher, now: datetime) -> Score:
    place = head.layout.places[SCORE]
    if isinstance(found, Fresher):
        return _score(head, (key, found.as_of, float(found.row[place]), "stream"), now)
    return _score(head, (key, head.as_of, float(found[place]), "batch"), now)


def _score(head: Head, told: tuple[str, int, float, Source], now: datetime) -> Score:
    key, since, score, source = told
    as_of = instant(since)
    return Score(
        key=key,
        score=score,
        as_of=as_of,
        age_seconds=(now - as_of).total_seconds(),
        source=source,
        generation=head.token,
        model=None if source == "fallback" else _model(head),
    )


def _model(head: Head) -> ModelVersion:
    return ModelVersion(name=head.model.name, version=head.model.version)


def _status(head: Head, live: Live, now: datetime) -> PipelineStatus:
    as_of = instant(head.as_of)
    return PipelineStatus(
        pipeline=head.pipeline,
        generation=head.token,
        epoch=head.epoch,
        as_of=as_of,
        age_seconds=(now - as_of).total_seconds(),
        published_at=instant(head.published_at),
        run_id=head.run_id,
        rows=head.rows,
        model=_model(head),
        fallback=head.fallback.score if head.fallback else None,
        max_keys=head.limits.batch,
        max_key_bytes=head.limits.key_bytes,
        refusals=_refused(head.pipeline, live),
    )


def _refused(pipeline: str, live: Live) -> list[RefusedDate]:
    return [
        RefusedDate(as_of=day, verdict=why.verdict, reason=why.reason, at=instant(why.at))
        for day, why in live.refusals.get(pipeline, {}).items()
    ]
