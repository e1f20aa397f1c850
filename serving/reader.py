"""The asynchronous side of the Redis contract, for the service: resolves a head, reads that generation alone."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from traceback import format_exception

from serving.errors import KeyRefused, ServingError, TooManyKeys, TornGeneration, Unforeseen
from serving.head import Head
from serving.heads import Heads, Live
from serving.question import Found, Plan, Question
from serving.sparing import SparingLog
from serving.wire.link import CountedLink, Link
from serving.wire.route import Command, Reply
from serving.wire.routed import link

LOG = SparingLog(logging.getLogger(__name__))
ROUND_KEYS = 500  # from which on the next lookups take another round trip, which Redis is busy with meanwhile


class Reader:
    """One Redis behind a link; methods raise `StoreUnavailable` and `StoreRefused`.

    The head of each pipeline is kept, to know the names of the blocks without asking, and each round trip reads it
    again before its blocks: an answer is given only by the head that was live when its blocks were read. Lookups of
    one tick of the event loop share a round trip, or a few where they have many keys.
    """

    def __init__(self, link: Link, url: str) -> None:
        self.link = CountedLink(link, url)
        self.heads = Heads(self.link)
        self._waiting: list[Question] = []
        self._rounds: set[asyncio.Task[None]] = set()

    @classmethod
    def at(cls, redis_url: str) -> "Reader":
        """Return the reader of the Redis that a URL names."""
        return cls(link(redis_url), redis_url)

    async def close(self) -> None:
        """Close the connections."""
        await self.link.close()

    async def ping(self) -> None:
        """Return when Redis answers."""
        (pong,) = await self.link.ask([("PING",)])
        self.link.accept(pong)

    async def head(self, pipeline: str) -> Head:
        """Return the head of the live generation, or raise `UnknownPipeline` or `HeadUnreadable`."""
        return (await self.heads.resolve(pipeline)).head

    async def live(self) -> Live:
        """Return what is live of all pipelines."""
        return await self.heads.live()

    async def lookup(self, pipeline: str, keys: Sequence[str]) -> tuple[Head, list[Found]]:
        """Return the live head, and for each key what is known of it, or why it is refused or cannot be read.

        A generation may go between the reading of its head and that of its blocks: the head is then resolved once
        more, and only a second gap is `TornGeneration`. Raises `UnknownPipeline` and `HeadUnreadable`, and
        `TooManyKeys` by the limits in the head.
        """
        plan = await self.heads.resolve(pipeline)
        limits = plan.head.limits
        if len(keys) > limits.batch:
            raise TooManyKeys(f"{len(keys)} keys in one request: {limits.batch} is the most; split them")
        answers: dict[str, Found] = {key: _refusal(plan.head, key) for key in keys}
        known = [key for key, refused in answers.items() if refused is None]
        plan, found = await self._answered(plan, known) if known else (plan, [])
        answers.update(zip(known, found, strict=True))
        return plan.head, [answers[key] for key in keys]

    def ask(self, question: Question) -> None:
        """Have a question answered with the others of this tick."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._start)
        self._waiting.append(question)

    async def _answered(self, plan: Plan, keys: Sequence[str]) -> tuple[Plan, list[Found]]:
        answered: asyncio.Future[tuple[Plan, list[Found]]] = asyncio.get_running_loop().create_future()

        def answer(by: Plan, found: list[Found] | ServingError) -> None:
            if answered.done():  # the caller has gone
                return
            if isinstance(found, ServingError):
                answered.set_exception(found)
            else:
                answered.set_result((by, found))

        self.ask(Question(plan, keys, answer))
        return await answered

    def _start(self) -> None:
        questions, self._waiting = self._waiting, []
        for some in _shares(questions):
            task = asyncio.get_running_loop().create_task(self._round(some))
            self._rounds.add(task)
            task.add_done_callback(self._rounds.discard)

    async def _round(self, questions: list[Question]) -> None:
        """Ask all in one round trip, and answer them or ask again; whatever happens, nobody waits for nothing."""
        plans = list(dict.fromkeys([question.plan for question in questions]))
        asked = self.heads.number()
        try:
            replies = await self.link.ask(_commands(plans, questions))
            blocks = self.link.accept(replies[len(plans)])
            heads = zip(plans, replies, strict=False)
            live = {plan: self.heads.verified(plan, record, asked) for plan, record in heads}
        except Exception as fault:  # noqa: BLE001  reason: it is told to all who wait, and logged
            told = _known(fault)
            for question in questions:
                question.begun = True  # none joins what is over
                _tell(question, told)
            return
        block, entry = 0, len(plans) + 1
        for question in questions:
            past, end = block + len(question.names), entry + len(question.entries)
            self._settle(question, live[question.plan], blocks[block:past], replies[entry:end])
            block, entry = past, end

    def _settle(
        self, question: Question, live: Plan | ServingError, blocks: Sequence[Reply], entries: Sequence[Reply]
    ) -> None:
        if live is question.plan:
            self._read(question, blocks, entries)
        elif isinstance(live, ServingError):
            _tell(question, live)
        else:  # another generation has gone live: its blocks are asked for now
            question.plan = live
            self.ask(question)

    def _read(self, question: Question, blocks: Sequence[Reply], entries: Sequence[Reply]) -> None:
        try:
            found = question.read(blocks, entries, self.link.named)
        except TornGeneration:  # perhaps it was removed just now: the head will say
            question.torn = True
            self.ask(question)
        except Exception as fault:  # noqa: BLE001  reason: it is told to who waits, and logged
            _tell(question, _known(fault))
        else:
            _tell(question, found)


def _shares(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """Give the questions of each round trip, in their order."""
    some: list[Question] = []
    keys = 0
    for question in questions:
        some.append(question)
        keys += len(question.keys)
        if keys >= ROUND_KEYS:
            yield some
            some, keys = [], 0
    if some:
        yield some


def _commands(plans: Sequence[Plan], questions: Sequence[Question]) -> list[Command]:
    """Begin questions, and return what asks for all of them: heads first, then blocks, then entries of overlays."""
    for question in questions:
        question.begin()
    commands = [plan.resolve for plan in plans]
    commands.append(("MGET", *[name for question in questions for name in question.names]))
    for question in questions:
        commands += question.entries
    return commands


def _refusal(head: Head, key: str) -> KeyRefused | None:
    size = len(key.encode())
    if 1 <= size <= head.limits.key_bytes:
        return None
    return KeyRefused(f"a key of {size} bytes: send one of 1 to {head.limits.key_bytes} bytes in UTF-8")


def _tell(question: Question, found: list[Found] | ServingError) -> None:
    try:
        question.answer(question.plan, found)
    except Exception as fault:  # noqa: BLE001  reason: it is told to who waits, and logged; others wait for their turn
        told = _known(fault)
        with suppress(Exception):  # it has been logged once
            question.answer(question.plan, told)


def _known(fault: Exception) -> ServingError:
    """Return a fault by the names of this package; one that nobody foresaw is logged with where it was."""
    if isinstance(fault, ServingError):
        return fault
    LOG.tell("Unforeseen", "".join(format_exception(fault)))
    return Unforeseen("a fault of the service, which its log explains")
