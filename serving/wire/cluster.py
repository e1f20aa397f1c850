"""Where commands go in a cluster: to the master that has the key's slot, wherever it has moved."""

from collections import Counter, defaultdict
from collections.abc import Container, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from serving.wire.route import (
    Answer,
    Answers,
    Command,
    Course,
    Questions,
    Reply,
    first_replies,
    sound,
    will_pass,
    worst_of,
)
from serving.wire.target import Place, Target

REDIRECTIONS = 5  # a key moves once in a while; more at a time means that nodes disagree
KEYLESS = frozenset(("PING", "INFO", "CONFIG"))
NO_HOST = ("", "?")  # a node that does not know how it is called
ASKING: Command = ("ASKING",)

View = tuple[tuple[int, int, Place], ...]  # first and last slot, and their master


@dataclass(eq=False)
class _Errand:
    """A command on its way through a cluster; `at` is where a node sent it, and `asking` that its slot is moving."""

    command: Command
    at: Place | None = None
    asking: bool = False
    reply: Reply = None


class ClusterRoute:
    """Each slot has a master, as most of the nodes see it; they are asked again when one fails or knows better."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._nodes: frozenset[Place] = frozenset()
        self._masters: list[Place | None] = []  # by slot; empty where it must be learnt (again)

    def to_keys(self, commands: Sequence[Command]) -> Course:
        """Ask each key's master; the keys of an `MGET` may lie anywhere, those of any other command in one slot.

        Where a master gives no answer, why stands in place of the replies to its keys, and in the list of an `MGET`.
        """
        errands = [[_Errand(single) for single in _singles(command)] for command in commands]
        left = [errand for several in errands for errand in several]
        for _ in range(REDIRECTIONS):
            if not self._masters:
                yield from self._learn({})
            left = yield from self._round(left)
            if not left:
                break
        for errand in left:
            errand.reply = TryAgainError(f"the key still moves after {REDIRECTIONS} redirections")
        return [_joined(*pair) for pair in zip(commands, errands, strict=True)]

    def to_all(self, command: Command) -> Course:
        """Ask every master that there is now."""
        yield from self._learn({})
        answers = yield {place: [command] for place in set(self._masters) if place is not None}
        return [reply for answer in answers.values() for reply in sound(answer)]

    def _round(self, errands: list[_Errand]) -> Generator[Questions, Answers, list[_Errand]]:
        """Ask once, and return the errands that are to go elsewhere now; the others have their replies, or faults."""
        batches = self._batches(errands)
        answers = yield {place: _parts(batch) for place, batch in batches.items()}
        left, failed = list[_Errand](), list[tuple[Place, _Errand]]()
        for place, batch in batches.items():
            for errand, reply in zip(batch, _replies(batch, answers[place]), strict=True):
                errand.reply = reply
                if isinstance(reply, AskError):
                    self._redirect(errand, place, reply)
                    left.append(errand)
                elif isinstance(reply, Exception) and (reply is answers[place] or will_pass(reply)):
                    failed.append((place, errand))
        if failed:
            left += yield from self._elsewhere(failed)
        return left

    def _batches(self, errands: Iterable[_Errand]) -> dict[Place, list[_Errand]]:
        """Return who is asked what; an errand to whose slot no master is known has its reply then."""
        batches, lost = defaultdict[Place, list[_Errand]](list), False
        for errand in errands:
            place = errand.at or self._master_of(errand.command)
            if place is None:
                lost = True
                errand.reply = ClusterDownError(f"no master of the cluster has slot {_slot(errand.command)}")
            else:
                batches[place].append(errand)
        if lost:
            self._masters = []
        return batches

    def _redirect(self, errand: _Errand, place: Place, told: AskError) -> None:
        """Send an errand where a node says that its key is."""
        errand.at = place.at(told.host or place.host, int(told.port))
        errand.asking = not isinstance(told, MovedError)
        if not errand.asking:
            self._masters = []

    def _elsewhere(self, failed: Sequence[tuple[Place, _Errand]]) -> Generator[Questions, Answers, list[_Errand]]:
        """Return the errands that failed and whose keys have another master by now; the others keep their faults."""
        faults = {place: errand.reply for place, errand in failed}
        yield from self._learn(faults)
        left = []
        for place, errand in failed:
            master = self._master_of(errand.command, faults)
            if master is not None and master != place:
                errand.at, errand.asking = master, False
                left.append(errand)
        return left

    def _master_of(self, command: Command, away: Container[Place] = ()) -> Place | None:
        """Return the master of a command's key, or for one without a key any that is not away."""
        if command[0] in KEYLESS:
            return next((place for place in self._masters if place is not None and place not in away), None)
        return self._masters[_slot(command)]

    def _learn(self, faults: Mapping[Place, Exception]) -> Generator[Questions, Answers, None]:
        """Ask all nodes but those with faults who has which slots, and believe the most."""
        asked = (self._nodes | set(self._target.places)) - faults.keys()
        answers = yield {place: [("CLUSTER", "SLOTS")] for place in asked}
        views = [_view(place, rows) for place, rows in first_replies(answers).items() if rows]
        if not views:
            raise worst_of({**faults, **answers}) or ClusterDownError("no node of the cluster names any slot")
        masters: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, master in Counter(view for view, _ in views).most_common(1)[0][0]:
            masters[first : last + 1] = [master] * (last + 1 - first)
        self._masters, self._nodes = masters, frozenset().union(*(nodes for _, nodes in views))


def _view(at: Place, rows: Sequence[Any]) -> tuple[View, set[Place]]:
    """Return the ranges of slots with their masters, and all nodes, as the node `at` sees them."""
    ranges, nodes = [], set[Place]()
    for first, last, *named in rows:
        places = [_named(at, node) for node in named]
        ranges.append((int(first), int(last), places[0]))
        nodes.update(places)
    return tuple(sorted(ranges, key=itemgetter(0))), nodes


def _named(at: Place, node: Sequence[Any]) -> Place:
    """Return the place of a node; one without a host is where the one asked is."""
    host = bytes(node[0] or b"").decode()
    return at.at(at.host if host in NO_HOST else host, int(node[1]))


def _singles(command: Command) -> list[Command]:
    return [("GET", key) for key in command[1:]] if command[0] == "MGET" else [command]


def _joined(command: Command, errands: list[_Errand]) -> Reply:
    return [errand.reply for errand in errands] if command[0] == "MGET" else errands[0].reply


def _slot(command: Command) -> int:
    key = command[3 if command[0] == "EVAL" else 1]
    return int(key_slot(key.encode() if isinstance(key, str) else bytes(key)))


def _replies(errands: Iterable[_Errand], answer: Answer) -> Iterator[Reply]:
    """Give the reply to each errand, which is why there is none where its server gave no answer."""
    replies = repeat(answer) if isinstance(answer, Exception) else iter(answer)
    for errand in errands:
        if errand.asking:
            next(replies)
        yield next(replies)


def _parts(errands: Iterable[_Errand]) -> list[Command]:
    return [part for errand in errands for part in ([ASKING, errand.command] if errand.asking else [errand.command])]
