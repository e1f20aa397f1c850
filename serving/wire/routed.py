"""The link to whatever stands behind a URL: one server, or those to which sentinels or a cluster's nodes point."""

import asyncio
from collections.abc import Sequence

from serving.errors import ServingError
from serving.wire.connection import redis_faults
from serving.wire.link import Link, ServerLink
from serving.wire.route import Answer, Answers, Command, Questions, Reply
from serving.wire.target import Place, target_of
from serving.wire.topology import route_of


def link(url: str) -> Link:
    """Return the link of a URL; it connects at its first use, and again after a fault."""
    target = target_of(url)
    return ServerLink(target.places[0]) if target.kind == "server" else RoutedLink(url)


class RoutedLink:
    """The link to the master that sentinels name, or to the masters of a cluster: one connection to each server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._route = route_of(target_of(url))
        self._links: dict[Place, ServerLink] = {}

    async def ask(self, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies; when a master fails or its slots move, whoever has taken over is asked once."""
        course = self._route.to_keys(commands)
        with redis_faults(self.url):
            try:
                questions = next(course)
                while True:
                    questions = course.send(await self._answers(questions))
            except StopIteration as end:
                return list(end.value)

    async def close(self) -> None:
        """Close all connections."""
        for each in self._links.values():
            await each.close()

    async def _answers(self, questions: Questions) -> Answers:
        asked = [self._answer(place, commands) for place, commands in questions.items()]
        answers = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)  # a task each costs time
        return dict(zip(questions, answers, strict=True))

    async def _answer(self, place: Place, commands: list[Command]) -> Answer:
        if place not in self._links:
            self._links[place] = ServerLink(place)
        try:
            return await self._links[place].ask(commands)
        except ServingError as fault:
            return fault
