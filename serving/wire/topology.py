"""Where commands go: to one server, to the master that sentinels name, or to each key's master in a cluster."""

from collections import Counter
from collections.abc import Generator, Sequence

from redis.exceptions import ConnectionError as NotConnected

from serving.wire.cluster import ClusterRoute
from serving.wire.route import (
    Answer,
    Answers,
    Command,
    Course,
    Questions,
    Route,
    fault_of,
    first_replies,
    sound,
    worst_of,
)
from serving.wire.target import Place, Target

ROLE: Command = ("ROLE",)


def route_of(target: Target) -> Route:
    """Return the route to a target's servers; so far it knows only those that the target names."""
    if target.kind == "cluster":
        return ClusterRoute(target)
    return SentinelRoute(target) if target.kind == "sentinel" else ServerRoute(target)


class ServerRoute:
    """One server has all keys."""

    def __init__(self, target: Target) -> None:
        (self._place,) = target.places

    def to_keys(self, commands: Sequence[Command]) -> Course:
        """Ask the server."""
        return sound((yield {self._place: list(commands)})[self._place])

    def to_all(self, command: Command) -> Course:
        """Ask the server."""
        return self.to_keys([command])


class SentinelRoute:
    """One master has all keys: the server that most of the sentinels name, who are asked again where it fails."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._master: Place | None = None

    def to_keys(self, commands: Sequence[Command]) -> Course:
        """Ask the master, and where it fails or is none any more another one that the sentinels name by now."""
        if self._master is None:
            self._master = yield from self._named()
        master = self._master
        answer = yield from self._ask(master, commands)
        if fault_of(answer) is not None:
            self._master = yield from self._named()
            if self._master != master:
                answer = yield from self._ask(self._master, commands)
        return sound(answer)

    def to_all(self, command: Command) -> Course:
        """Ask the master."""
        return self.to_keys([command])

    def _ask(self, master: Place, commands: Sequence[Command]) -> Generator[Questions, Answers, Answer]:
        """Ask a master that says it is one: as a replica it would answer readers, with what it has so far."""
        answer = (yield {master: [ROLE, *commands]})[master]
        if isinstance(answer, Exception):
            return answer
        role, *replies = answer
        if isinstance(role, Exception):
            return role
        return replies if role[0] == b"master" else NotConnected(f"{master} is no master any more")

    def _named(self) -> Generator[Questions, Answers, Place]:
        question: Command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._target.service)
        answers = yield {place: [question] for place in self._target.places}
        named = [(bytes(host).decode(), int(port)) for host, port in filter(None, first_replies(answers).values())]
        if not named:
            raise worst_of(answers) or NotConnected(f"no sentinel knows a master of {self._target.service}")
        return self._target.master.at(*Counter(named).most_common(1)[0][0])
