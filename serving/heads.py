"""Which generation of each pipeline is live, as the service last read it."""

import logging
import re
from dataclasses import dataclass, field
from datetime import date
from time import monotonic

from redis.exceptions import RedisError

from serving.errors import HeadUnreadable, ServingError, UnknownPipeline
from serving.head import Head, parse_head
from serving.keys import PIPELINE_NAME, PIPELINES, head_key, refusals_key
from serving.link import CountedLink
from serving.question import Plan
from serving.refusals import Refusal, parse_refusals
from serving.route import Command, Reply
from serving.sparing import SparingLog

LOG = SparingLog(logging.getLogger(__name__))


@dataclass(frozen=True)
class Live:
    """What is live: the heads of all pipelines, by name, and how many others have an unreadable one.

    `refusals` says of a pipeline why the scores of some dates are not live, the newest date first; `headless` are those
    of which nothing is live yet.
    """

    heads: list[Head]
    unreadable: int = 0
    refusals: dict[str, dict[date, Refusal]] = field(default_factory=dict)
    headless: list[str] = field(default_factory=list)


class Heads:
    """The heads of a Redis. What is kept of one saves work, and is no answer: `current` says whether it still holds."""

    def __init__(self, link: CountedLink) -> None:
        self.plans: dict[str, Plan] = {}
        self.regressions = 0
        self._link = link
        self._last: dict[str, tuple[int, int, int]] = {}

    async def resolve(self, pipeline: str) -> Plan:
        """Return the plan of the live generation, or raise `UnknownPipeline` or `HeadUnreadable`."""
        if not re.fullmatch(PIPELINE_NAME, pipeline):
            raise UnknownPipeline(f"{pipeline[:128]!r} is no name of a pipeline: see /v1/pipelines")
        (record,) = await self._link.ask([("GET", head_key(pipeline))])
        return self.current(pipeline, record)

    async def live(self) -> Live:
        """Return all heads; one that cannot be read is logged and counted, and hides no other."""
        (names,) = await self._link.ask([("SMEMBERS", PIPELINES)])
        pipelines = sorted(name.decode(errors="replace") for name in self._link.accept(names))
        commands: list[Command] = [("GET", head_key(name)) for name in pipelines]
        commands += [("HGETALL", refusals_key(name)) for name in pipelines]
        replies = await self._link.ask(commands) if pipelines else []
        records, refusals = replies[: len(pipelines)], replies[len(pipelines) :]
        plans = [
            self._shown(name, record) for name, record in zip(pipelines, records, strict=True) if record is not None
        ]
        heads = [plan.head for plan in plans if plan is not None]
        told = dict(zip(pipelines, map(_refusals, refusals), strict=True))
        headless = [name for name, record in zip(pipelines, records, strict=True) if record is None]
        return Live(heads, len(plans) - len(heads), told, headless)

    def verified(self, plan: Plan, record: Reply) -> Plan | ServingError:
        """Return the plan of a record that was just read, which is `plan` unless the head has changed; or the fault."""
        try:
            return self.current(plan.head.pipeline, record)
        except ServingError as fault:
            return fault

    def current(self, pipeline: str, record: Reply) -> Plan:
        """Return the plan of a record that was just read, the one that is kept where the head has not changed.

        Raises `UnknownPipeline` where there is none, and `HeadUnreadable`.
        """
        if self._link.accept(record) is None:
            self.plans.pop(pipeline, None)
            raise UnknownPipeline(f"no generation of pipeline {pipeline} is live: see /v1/pipelines, or publish one")
        plan = self.plans.get(pipeline)
        if plan is None or plan.record != record:
            plan = self.plans[pipeline] = Plan(record, parse_head(record))
            self._watch(pipeline, plan.head)
        plan.checked = monotonic()
        return plan

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

    def _shown(self, pipeline: str, record: Reply) -> Plan | None:
        if isinstance(record, RedisError):
            LOG.tell(f"HeadUnreadable of pipeline {pipeline}", f"a head that is no record ({record}): publish again")
            return None
        try:
            return self.current(pipeline, record)
        except HeadUnreadable as fault:
            LOG.tell(f"HeadUnreadable of pipeline {pipeline}", fault)
            return None


def _refusals(reply: Reply) -> dict[date, Refusal]:
    """RESP lists the fields and values of a hash in turn."""
    return parse_refusals(dict(zip(reply[::2], reply[1::2], strict=True))) if isinstance(reply, list) else {}
