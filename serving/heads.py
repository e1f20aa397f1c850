"""Which generation of each pipeline is live, as the service last read it."""

import logging
import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from itertools import count

from redis.exceptions import RedisError

from serving.errors import HeadLost, HeadUnreadable, ServingError, StreamUnreadable, UnknownPipeline
from serving.head import Head, parse_head
from serving.keys import PIPELINE_NAME, PIPELINES, head_key, refusals_key, stream_key
from serving.question import Plan
from serving.refusals import Refusal, parse_refusals
from serving.sparing import SparingLog
from serving.stream import StreamRecord, parse_stream
from serving.wire.link import CountedLink
from serving.wire.route import Command, Reply, will_pass

LOG = SparingLog(logging.getLogger(__name__))


@dataclass(frozen=True)
class Live:
    """What is live: the heads of all pipelines, by name, and how many others have an unreadable one.

    `refusals` says of a pipeline why the scores of some dates are not live, the newest date first; `headless` are those
    of which nothing is live yet; `streams` have what each pipeline's stream last said of itself.
    """

    heads: list[Head]
    unreadable: int = 0
    refusals: dict[str, dict[date, Refusal]] = field(default_factory=dict)
    headless: list[str] = field(default_factory=list)
    streams: dict[str, StreamRecord] = field(default_factory=dict)


class Heads:
    """The heads of a Redis. What is kept of one saves work, and is no answer: `current` says whether it still holds."""

    def __init__(self, link: CountedLink) -> None:
        self.plans: dict[str, Plan] = {}
        self.regressions = 0
        self._link = link
        self._last: dict[str, tuple[int, int, int]] = {}
        self._numbers = count(1)
        self._heard: dict[str, int] = {}  # by pipeline with a head, the latest ask that was answered

    async def resolve(self, pipeline: str) -> Plan:
        """Return the plan of the live generation, or raise as `current` does."""
        if not re.fullmatch(PIPELINE_NAME, pipeline):
            raise UnknownPipeline(f"{pipeline[:128]!r} is no name of a pipeline: see /v1/pipelines")
        asked = self.number()
        (record,) = await self._link.ask([("GET", head_key(pipeline))])
        return self.current(pipeline, record, asked)

    def number(self) -> int:
        """Return the number of an ask that is about to be sent: replies may come in another order, as in a cluster."""
        return next(self._numbers)

    async def live(self) -> Live:
        """Return all heads; one that cannot be read is logged and counted, and hides no other.

        Raises `StoreUnavailable` or `StoreRefused` where there is none to return, and one is away or refused.
        """
        (names,) = await self._link.ask([("SMEMBERS", PIPELINES)])
        pipelines = sorted(name.decode(errors="replace") for name in self._link.accept(names))
        commands: list[Command] = [("GET", head_key(name)) for name in pipelines]
        commands += [("HGETALL", refusals_key(name)) for name in pipelines]
        commands += [("GET", stream_key(name)) for name in pipelines]
        asked = self.number()
        replies = await self._link.ask(commands) if pipelines else []
        many = len(pipelines)
        records, refusals, streams = replies[:many], replies[many : 2 * many], replies[2 * many :]
        plans = [
            self._shown(name, record, asked)
            for name, record in zip(pipelines, records, strict=True)
            if record is not None
        ]
        heads = [plan.head for plan in plans if isinstance(plan, Plan)]
        told = dict(zip(pipelines, map(_refusals, refusals), strict=True))
        headless = [name for name, record in zip(pipelines, records, strict=True) if record is None]
        if not heads:
            _raise_first(plans)
        return Live(heads, len(plans) - len(heads), told, headless, _streams(pipelines, streams))

    def verified(self, plan: Plan, record: Reply, asked: int) -> Plan | ServingError:
        """Return the plan of a record that was just read, which is `plan` unless the head has changed; or the fault."""
        try:
            found = self.current(plan.head.pipeline, record, asked)
        except ServingError as fault:
            return fault
        return plan if record == plan.record else found

    def current(self, pipeline: str, record: Reply, asked: int) -> Plan:
        """Return the plan of a record that was just read, the one that is kept where the head has not changed.

        What was asked for before another record that has come already says nothing of what is live now: it is not kept.
        Raises `UnknownPipeline` where there never was one, `HeadLost` where there was, and `HeadUnreadable`.
        """
        told = self._link.accept(record)
        late = self._is_late(pipeline, asked)
        if told is None:
            if not late:
                self.plans.pop(pipeline, None)
            if pipeline in self._last:
                raise HeadLost(f"Redis has lost what was live of {pipeline}: `scoreline republish` brings it back")
            raise UnknownPipeline(f"no generation of pipeline {pipeline} is live: see /v1/pipelines, or publish one")
        plan = self.plans.get(pipeline)
        if plan is None or plan.record != record:
            plan = Plan(record, parse_head(record))
            if not late:
                self.plans[pipeline], self._heard[pipeline] = plan, asked
                self._watch(pipeline, plan.head)
        return plan

    def _is_late(self, pipeline: str, asked: int) -> bool:
        """Return whether a later ask has been answered; if not, this is the latest, of a pipeline that has a head."""
        heard = self._heard.get(pipeline)
        if heard is None or asked < heard:
            return heard is not None
        self._heard[pipeline] = asked
        return False

    def _watch(self, pipeline: str, head: Head) -> None:
        """Notice a head that was brought back, as by a failover that lost a swap; it is what is there, and serves."""
        last = self._last.get(pipeline, head.order)
        self._last[pipeline] = head.order
        if head.order < last:
            self.regressions += 1
            LOG.tell(
                f"HeadRegression of pipeline {pipeline}",
                f"its epoch, as_of and token were {last} and are {head.order}: a failover may have lost the "
                "publication; publish again",
            )

    def _shown(self, pipeline: str, record: Reply, asked: int) -> Plan | ServingError:
        try:
            if isinstance(record, RedisError) and not will_pass(record):
                raise HeadUnreadable(f"a head that is no record ({record}): publish again")
            return self.current(pipeline, record, asked)
        except ServingError as fault:
            LOG.tell(f"{type(fault).__name__} of pipeline {pipeline}", fault)
            return fault


def _raise_first(plans: list[Plan | ServingError]) -> None:
    """Raise the first fault that is not of a head."""
    for plan in plans:
        if isinstance(plan, ServingError) and not isinstance(plan, HeadUnreadable):
            raise plan


def _streams(pipelines: list[str], replies: list[Reply]) -> dict[str, StreamRecord]:
    """Return the streams that have said something; of one that cannot be read nothing is known."""
    found = {}
    for name, reply in zip(pipelines, replies, strict=True):
        with suppress(StreamUnreadable):
            if isinstance(reply, bytes):
                found[name] = parse_stream(reply)
    return found


def _refusals(reply: Reply) -> dict[date, Refusal]:
    """RESP lists the fields and values of a hash in turn."""
    return parse_refusals(dict(zip(reply[::2], reply[1::2], strict=True))) if isinstance(reply, list) else {}
