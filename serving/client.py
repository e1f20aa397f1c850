"""Clients of the lookup service, one that blocks and one that awaits: typed answers over kept connections."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import httpx

from serving.answers import Missing, PipelineStatus, Score, Wishes
from serving.dialogue import Ask, Dialogue, Dialogues, Portions, RetryBudget
from serving.errors import ServiceError

T = TypeVar("T")

SECONDS = 5.0
# Kept for less long than the service does. More than 20 idle ones cost a pass over all of them at each request.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=60)
JSON = {"Content-Type": "application/json"}


class Client:
    """Looks up scores at `url`, such as http://127.0.0.1:8700, with an API key where the service wants one.

    Every method raises `ServiceError` for what the service refuses (and, unsent, for text that no request can hold) or
    for an answer that is none of the service's, and `ServiceUnreachable` where nothing answers within `seconds`: here,
    but not with `AsyncClient`, connecting, sending and the answer's head may each take what is left of them. What is
    unavailable for a moment is asked for again, within that time and as often as `budget` allows. The service is asked
    directly, never through a proxy that the environment names. Close the client, or use it in a `with` statement;
    threads may share it.
    """

    def __init__(
        self, url: str, seconds: float = SECONDS, *, api_key: str | None = None, budget: RetryBudget | None = None
    ) -> None:
        # With a transport of its own httpx leaves HTTP_PROXY aside, and still takes SSL_CERT_FILE.
        self._http = httpx.Client(transport=_Transport(limits=LIMITS), **_options(url, api_key))
        self._dialogues = Dialogues(str(self._http.base_url), seconds, budget or RetryBudget())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def score(self, pipeline: str, key: str, *, segment: str | None = None, max_age: float | None = None) -> Score:
        """Return the score of one key, or the pipeline's fallback.

        The fallback is that of `segment`, where the pipeline declares one for it. An answer that is older than
        `max_age` seconds becomes the fallback, or a `ServiceError` with the code `answer-too-old`.
        """
        return self._run(self._dialogues.score(pipeline, key, Wishes(segment, max_age)))

    def scores(
        self, pipeline: str, keys: Iterable[str], *, segment: str | None = None, max_age: float | None = None
    ) -> Iterator[Score | Missing]:
        """Yield an answer for each key, in order; each request of up to 1,000 keys is answered from one generation.

        A pipeline that allows fewer keys in a request is asked for as many as it allows. `segment` and `max_age` are
        those of `score`; a key that has no answer is `Missing`, with the problem that `score` would raise.
        """
        portions, wishes = Portions(keys), Wishes(segment, max_age)
        while portion := portions.next():
            try:
                answers = self._run(self._dialogues.batch(pipeline, portion, wishes))
            except ServiceError as refused:
                portions.again(portion, self._run(self._dialogues.allowed(pipeline, len(portion), refused)))
            else:
                yield from answers

    def pipelines(self) -> list[PipelineStatus]:
        """Return what is live, for every pipeline that the API key may read."""
        return self._run(self._dialogues.pipelines())

    def _run(self, dialogue: Dialogue[T]) -> T:
        heard: httpx.Response | Exception | None = None
        try:
            while True:
                heard = self._carry(dialogue.send(heard))
        except StopIteration as end:
            told: T = end.value
            return told

    def _carry(self, step: Ask | float) -> httpx.Response | Exception | None:
        if not isinstance(step, Ask):
            time.sleep(step)
            return None
        try:
            return self._http.request(step.method, step.path, content=step.body, headers=JSON, timeout=step.seconds)
        except (httpx.RequestError, httpx.InvalidURL) as fault:
            return fault


class AsyncClient:
    """What `Client` is, for asyncio: methods are awaited, `scores` is iterated with `async for`."""

    def __init__(
        self, url: str, seconds: float = SECONDS, *, api_key: str | None = None, budget: RetryBudget | None = None
    ) -> None:
        self._http = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(limits=LIMITS), **_options(url, api_key))
        self._dialogues = Dialogues(str(self._http.base_url), seconds, budget or RetryBudget())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def score(
        self, pipeline: str, key: str, *, segment: str | None = None, max_age: float | None = None
    ) -> Score:
        """Return the score of one key, as `Client.score` does."""
        return await self._run(self._dialogues.score(pipeline, key, Wishes(segment, max_age)))

    async def scores(
        self, pipeline: str, keys: Iterable[str], *, segment: str | None = None, max_age: float | None = None
    ) -> AsyncIterator[Score | Missing]:
        """Yield an answer for each key, in order, as `Client.scores` does."""
        portions, wishes = Portions(keys), Wishes(segment, max_age)
        while portion := portions.next():
            try:
                answers = await self._run(self._dialogues.batch(pipeline, portion, wishes))
            except ServiceError as refused:
                portions.again(portion, await self._run(self._dialogues.allowed(pipeline, len(portion), refused)))
            else:
                for answer in answers:
                    yield answer

    async def pipelines(self) -> list[PipelineStatus]:
        """Return what is live, for every pipeline that the API key may read."""
        return await self._run(self._dialogues.pipelines())

    async def _run(self, dialogue: Dialogue[T]) -> T:
        heard: httpx.Response | Exception | None = None
        try:
            while True:
                heard = await self._carry(dialogue.send(heard))
        except StopIteration as end:
            told: T = end.value
            return told

    async def _carry(self, step: Ask | float) -> httpx.Response | Exception | None:
        if not isinstance(step, Ask):
            await asyncio.sleep(step)
            return None
        try:
            async with asyncio.timeout(step.seconds):
                return await self._http.request(step.method, step.path, content=step.body, headers=JSON, timeout=None)
        except TimeoutError as fault:
            return httpx.ReadTimeout(str(fault))
        except (httpx.RequestError, httpx.InvalidURL) as fault:
            return fault


class _Transport(httpx.HTTPTransport):
    """Bounds the time to read an answer, of which httpx bounds each part alone."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, which is still to be read."""
        until = time.monotonic() + request.extensions["timeout"]["read"]
        response = super().handle_request(request)
        response.stream = _Bounded(cast("httpx.SyncByteStream", response.stream), until)
        return response


class _Bounded(httpx.SyncByteStream):
    """What is read until a moment of the monotonic clock."""

    def __init__(self, stream: httpx.SyncByteStream, until: float) -> None:
        self._stream, self._until = stream, until

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            if time.monotonic() > self._until:
                raise httpx.ReadTimeout("the answer came too slowly")
            yield part

    def close(self) -> None:
        self._stream.close()


def _options(url: str, api_key: str | None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return {"base_url": url, "headers": headers}
