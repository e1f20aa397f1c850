"""Whom a course asks and believes where servers disagree: a matter of moments, so their answers are given here."""

from collections.abc import Mapping

import pytest
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, ClusterDownError, MovedError, TryAgainError
from redis.exceptions import ConnectionError as NotConnected

from serving.wire.cluster import REDIRECTIONS
from serving.wire.route import Answer, Command, Course, Reply
from serving.wire.target import Place, target_of
from serving.wire.topology import route_of

SENTINELS = target_of("redis+sentinel://a:1,b:2,c:3/scores")
NODES = target_of("redis+cluster://a:1,b:2,c:3")
A, B, C = NODES.places
MASTER: Answer = [[b"master"], b"value"]
GET: Command = ("GET", "scoreline:x")
HALF = 8192
HIGH = "scoreline:z"  # its slot is above HALF, that of "scoreline:x" below


def asked(course: Course, answers: Mapping[Place, Answer] | None = None) -> set[str]:
    """Give a course what servers answered, and return whom it asks next."""
    return set(map(str, next(course) if answers is None else course.send(answers)))


def ended(course: Course, answers: Mapping[Place, Answer]) -> list[Reply]:
    """Give a course the last answers, and return what it makes of them all."""
    with pytest.raises(StopIteration) as end:
        course.send(answers)
    return list(end.value.value)


def shares(*masters: tuple[str, int]) -> Answer:
    """Return what a node says whose cluster has two masters."""
    ends = ((0, HALF - 1), (HALF, 2 * HALF - 1))
    return [[[*ends[number], [host.encode(), port, b"id"]] for number, (host, port) in enumerate(masters)]]


def test_the_master_is_who_most_sentinels_name_and_who_says_so() -> None:
    course = route_of(SENTINELS).to_keys([GET])
    assert asked(course) == {"a:1", "b:2", "c:3"}
    a, b, c = SENTINELS.places
    stale = {a: [[b"old", b"1"]], b: [[b"new", b"2"]], c: [[b"new", b"2"]]}
    assert asked(course, stale) == {"new:2"}
    master = SENTINELS.master.at("new", 2)
    assert asked(course, {master: [[b"slave"], b"value"]}) == {"a:1", "b:2", "c:3"}
    with pytest.raises(NotConnected, match="new:2 is no master any more"):
        course.send(stale)


def test_a_refusal_is_told_rather_than_silence() -> None:
    course = route_of(SENTINELS).to_keys([GET])
    next(course)
    silence = NotConnected("refused")
    a, b, c = SENTINELS.places
    with pytest.raises(AuthenticationError):
        course.send({a: silence, b: AuthenticationError("NOAUTH"), c: silence})


def test_slots_are_where_most_nodes_see_them() -> None:
    course = route_of(NODES).to_keys([GET])
    assert asked(course) == {"a:1", "b:2", "c:3"}
    new = shares(("a", 1), ("b", 2))
    (answered,) = asked(course, {A: new, B: new, C: shares(("c", 3), ("c", 3))})
    assert answered in {"a:1", "b:2"}


def test_who_the_masters_are_is_asked_each_time_all_are_meant() -> None:
    """One that has been replaced would be waited for, and the one in its place left out."""
    route = route_of(NODES)
    views = dict.fromkeys((A, B, C), shares(("a", 1), ("b", 2)))
    for _ in range(2):
        course = route.to_all(("INFO", "memory"))
        assert asked(course) == {"a:1", "b:2", "c:3"}
        assert asked(course, views) == {"a:1", "b:2"}


def test_keys_that_never_arrive_are_given_up() -> None:
    course = route_of(NODES).to_keys([GET])
    next(course)
    views = dict.fromkeys((A, B, C), shares(("a", 1), ("a", 1)))
    assert asked(course, views) == {"a:1"}
    for _ in range(REDIRECTIONS - 1):
        assert asked(course, {A: [MovedError("1 a:1")]}) == {"a:1", "b:2", "c:3"}
        assert asked(course, views) == {"a:1"}
    (fault,) = ended(course, {A: [MovedError("1 a:1")]})
    assert isinstance(fault, TryAgainError)
    assert "still moves" in str(fault)


def test_a_slot_without_a_master_is_told_of_its_keys_and_asked_for_again() -> None:
    route = route_of(NODES)
    for _ in range(2):
        course = route.to_keys([("GET", HIGH), ("MGET", "scoreline:x", HIGH), GET])
        assert asked(course) == {"a:1", "b:2", "c:3"}
        assert asked(course, dict.fromkeys((A, B, C), shares(("a", 1)))) == {"a:1"}
        fault, (value, missing), other = ended(course, {A: [b"v1", b"v2"]})
        assert (value, other) == (b"v1", b"v2")
        assert isinstance(fault, ClusterDownError)
        assert str(fault) == str(missing) == f"no master of the cluster has slot {key_slot(HIGH.encode())}"


def test_a_fault_of_a_server_is_that_of_its_keys() -> None:
    route = route_of(NODES)
    course = route.to_keys([GET, ("GET", HIGH)])
    next(course)
    views = dict.fromkeys((A, B, C), shares(("a", 1), ("b", 2)))
    assert asked(course, views) == {"a:1", "b:2"}
    assert asked(course, {A: NotConnected("refused"), B: [b"value"]}) == {"b:2", "c:3"}
    fault, value = ended(course, {B: views[B], C: views[C]})
    assert isinstance(fault, NotConnected)
    assert value == b"value"


def test_a_command_without_a_key_is_for_any_server_that_answers() -> None:
    course = route_of(NODES).to_keys([("PING",)])
    next(course)
    views = dict.fromkeys((A, B, C), shares(("a", 1), ("b", 2)))
    assert asked(course, views) == {"a:1"}
    assert asked(course, {A: NotConnected("refused")}) == {"b:2", "c:3"}
    assert asked(course, {B: views[B], C: views[C]}) == {"b:2"}
    assert ended(course, {B: [b"PONG"]}) == [b"PONG"]
