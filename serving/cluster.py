"""Where commands go in a cluster: to the master that has the key's slot, wherever it has moved."""

from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from serving.route import Answers, Command, Course, Questions, Reply, fault_of, first_replies, sound, worst_of
from serving.target import Place, Target

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
        """Ask each key's master; the keys of an `MGET` may lie anywhere, those of any other command in one slot."""
        errands = [[_Errand(single) for single in _singles(command)] for command in commands]
        left = [errand for several in errands for errand in several]
        for _ in range(REDIRECTIONS):
            if not self._masters:
                yield from self._learn({})
            left = yield from self._round(left)
            if not left:
                return [_joined(*pair) for pair in zip(commands, errands, strict=True)]
        raise TryAgainError(f"keys still move after {REDIRECTIONS} redirections")

    def to_all(self, command: Command) -> Course:
        """Ask every master that there is now."""
        yield from self._learn({})
        answers = yield {place: [command] for place in set(self._masters) if place is not None}
        return [reply for answer in answers.values() for reply in sound(answer)]

    def _round(self, errands: list[_Errand]) -> Generator[Questions, Answers, list[_Errand]]:
        """Ask once, and return the errands that are to go elsewhere now."""
        batches = defaultdict[Place, list[_Errand]](list)
        for errand in errands:
            batches[errand.at or self._master_of(errand.command)].append(errand)
        answers = yield {place: _parts(batch) for place, batch in batches.items()}
        faults = {place: fault for place, answer in answers.items() if (fault := fault_of(answer)) is not None}
        left = []
        for place in batches.keys() - faults.keys():
            replies = iter(sound(answers[place]))
            left += [errand for errand in batches[place] if self._redirected(errand, place, replies)]
        if faults:
            yield from self._learn(faults)
        for place, fault in faults.items():
            left += [self._elsewhere(errand, place, fault) for errand in batches[place]]
        return left

    def _redirected(self, errand: _Errand, place: Place, replies: Iterator[Reply]) -> bool:
        """Take the reply to an errand, and return whether it says where else to go."""
        if errand.asking:
            next(replies)
        errand.reply = reply = next(replies)
        if not isinstance(reply, AskError):
            return False
        errand.at = place.at(reply.host or place.host, int(reply.port))
        errand.asking = not isinstance(reply, MovedError)
        if not errand.asking:
            self._masters = []
        return True

    def _elsewhere(self, errand: _Errand, place: Place, fault: Exception) -> _Errand:
        """Return an errand that failed at `place` for its key's master now; raise the fault if that is the same."""
        if self._master_of(errand.command) == place:
            raise fault
        errand.at, errand.asking = None, False
        return errand

    def _master_of(self, command: Command) -> Place:
        if command[0] in KEYLESS:
            return next(place for place in self._masters if place is not None)
        key = command[3 if command[0] == "EVAL" else 1]
        slot = key_slot(key.encode() if isinstance(key, str) else bytes(key))
        master = self._masters[slot]
        if master is None:
            self._masters = []
            raise ClusterDownError(f"no master of the cluster has slot {slot}")
        return master

    def _learn(self, faults: Mapping[Place, Exception]) -> Generator[Questions, Answers, None]:
        """Ask all nodes but those with faults who has which slots, and believe the most."""
        asked = (self._nodes | set(self._target.places)) - faults.keys()
        answers = yield {place: [("CLUSTER", "SLOTS")] for place in asked}
        views = [_view(place, rows) for place, rows in first_replies(answers).items()]
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
    replies = [errand.reply for errand in errands]
    if command[0] != "MGET":
        return replies[0]
    return next((reply for reply in replies if isinstance(reply, Exception)), replies)


def _parts(errands: Iterable[_Errand]) -> list[Command]:
    return [part for errand in errands for part in ([ASKING, errand.command] if errand.asking else [errand.command])]
