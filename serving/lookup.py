"""The endpoints: each resolves one head and answers from that generation alone."""

from collections.abc import Sequence
from datetime import datetime

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST

from serving.answers import Batch, Health, Keys, Missing, ModelVersion, Pipelines, PipelineStatus, Score, Source
from serving.clock import Clock, instant
from serving.errors import KeyRefused, LookupRefused, ServingError, StoreUnavailable, UnknownKey
from serving.head import Head
from serving.layout import SCORE
from serving.metrics import Metrics
from serving.problems import log_fault, problem_of
from serving.reader import Found, Live, Reader


class Lookup:
    """What the service answers; faults leave as this package's errors and become problem documents."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self.reader = reader
        self.clock = clock
        self.metrics = Metrics()

    async def score(self, pipeline: str, key: str) -> Score:
        """The score of one key, which stands percent-encoded in the path and may hold any character, slashes too."""
        _, (answer,) = await self._answers(pipeline, [key])
        if isinstance(answer, LookupRefused):
            raise answer
        return answer

    async def scores(self, pipeline: str, keys: Keys) -> Batch:
        """One answer for each of up to 1,000 keys (the pipeline's own limit is in `/v1/pipelines`), in their order."""
        head, found = await self._answers(pipeline, keys.keys)
        pairs = zip(keys.keys, found, strict=True)
        answers = [
            Missing(key=key, problem=problem_of(answer)) if isinstance(answer, LookupRefused) else answer
            for key, answer in pairs
        ]
        return Batch(pipeline=pipeline, generation=head.token, answers=answers)

    async def pipelines(self) -> Pipelines:
        """What is live, for every pipeline whose head can be read."""
        now = self.clock.now()
        return Pipelines(pipelines=[_status(head, now) for head in (await self.reader.heads()).heads])

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
            return await self.reader.heads()
        except StoreUnavailable:
            return None
        except ServingError as fault:
            log_fault(fault)
            return Live([])

    async def _answers(self, pipeline: str, keys: Sequence[str]) -> tuple[Head, list[Score | LookupRefused]]:
        head, rows = await self.reader.lookup(pipeline, keys)
        now = self.clock.now()
        answers = [_answer(head, key, row, now) for key, row in zip(keys, rows, strict=True)]
        self.metrics.lookups(pipeline, answers)
        return head, answers


def _answer(head: Head, key: str, found: Found, now: datetime) -> Score | LookupRefused:
    """Return the score of a key by its row in the generation; an unknown key has the fallback, if there is one."""
    if isinstance(found, KeyRefused):
        return found
    if found is not None:
        return _score(head, key, now, ("batch", float(found[head.layout.places[SCORE]])))
    if head.fallback is not None:
        return _score(head, key, now, ("fallback", head.fallback.score))
    return UnknownKey(f"{head.pipeline} has no score for {key!r} in generation {head.token}, and no fallback")


def _score(head: Head, key: str, now: datetime, found: tuple[Source, float]) -> Score:
    as_of = instant(head.as_of)
    source, score = found
    return Score(
        key=key,
        score=score,
        as_of=as_of,
        age_seconds=(now - as_of).total_seconds(),
        source=source,
        generation=head.token,
        model=_model(head) if source == "batch" else None,
    )


def _model(head: Head) -> ModelVersion:
    return ModelVersion(name=head.model.name, version=head.model.version)


def _status(head: Head, now: datetime) -> PipelineStatus:
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
    )
