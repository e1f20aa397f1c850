"""How the servers behind a URL are asked, whoever carries the questions.

Nothing here talks to Redis. A course is a generator: it yields what to ask of which servers, is sent what each of them
answered, and returns the replies in the end. `wire.connection` carries the questions of jobs, `wire.link` those of
lookups.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

from redis.exceptions import AuthenticationError, AuthorizationError, ClusterDownError, ReadOnlyError, TryAgainError
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as TooLate

from serving.errors import StoreUnavailable
from serving.wire.target import Place

Command = tuple[str | bytes | int, ...]
Reply = Any  # bytes, int, None, a list of these, or redis' exception in its place
Answer = list[Reply] | Exception  # of one server: a reply to each command, or why there is none
Answers = Mapping[Place, Answer]
Questions = Mapping[Place, list[Command]]
Course = Generator[Questions, Answers, list[Reply]]

# To the client, what is refused at the door is a fault of the connection.
REFUSED = (AuthenticationError, AuthorizationError)
PASSING = (NotConnected, TooLate, StoreUnavailable, ClusterDownError, TryAgainError, ReadOnlyError)
NO_REPLICAS = "NOREPLICAS"  # says a master that has just taken over, where min-replicas-to-write is set


class Route(Protocol):
    """How the servers behind one URL are asked.

    A course raises why no server gave an answer, or what it said that will pass, if no other is to be asked. Where
    several have the keys, a fault of one of them stands in place of its replies.
    """

    def to_keys(self, commands: Sequence[Command]) -> Course:
        """Ask for each command the master that has its key; the replies come in the order of the commands."""
        ...

    def to_all(self, command: Command) -> Course:
        """Ask every master one command; the replies come in any order."""
        ...


def will_pass(fault: Exception) -> bool:
    """Return whether asking again may help: nobody answered, or a master or a slot is on the move."""
    return (isinstance(fault, PASSING) and not isinstance(fault, REFUSED)) or str(fault).startswith(NO_REPLICAS)


def fault_of(answer: Answer) -> Exception | None:
    """Return why an answer is none, or the first reply that says what will pass."""
    if isinstance(answer, Exception):
        return answer
    return next((reply for reply in answer if isinstance(reply, Exception) and will_pass(reply)), None)


def sound(answer: Answer) -> list[Reply]:
    """Return the replies of an answer that has no such fault, or raise the fault."""
    fault = fault_of(answer)
    if fault is not None:
        raise fault
    return cast("list[Reply]", answer)


def faults_in(replies: Iterable[Reply]) -> Iterator[Exception]:
    """Give each fault that stands in place of a reply, also for a key of an `MGET`."""
    for reply in replies:
        if isinstance(reply, Exception):
            yield reply
        elif isinstance(reply, list):
            yield from faults_in(reply)


def first_replies(answers: Answers) -> dict[Place, Reply]:
    """Return the first reply of each server that gave one."""
    lists = {place: answer for place, answer in answers.items() if not isinstance(answer, Exception)}
    return {place: replies[0] for place, replies in lists.items() if not isinstance(replies[0], Exception)}


def worst_of(answers: Answers) -> Exception | None:
    """Return a fault of the servers' answers, rather one that will not pass."""
    firsts = [answer if isinstance(answer, Exception) else answer[0] for answer in answers.values()]
    return min((first for first in firsts if isinstance(first, Exception)), key=will_pass, default=None)
