"""What is a key's and what is not: lines, words, pipelines; and the secret that hashes are made with."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import fs

from jobs.arrowfiles import arrow_files
from jobs.erasure.files import Lines
from jobs.erasure.reports import Reports
from jobs.erasure.scope import one_entity_key, scope_of, scope_of_all
from jobs.erasure.secret import made_secret, read_secret
from jobs.erasure.tombstones import Erased
from jobs.erasure.words import shown, words
from jobs.errors import EntityKeyUnclear, ErasureKeyLost
from jobs.spec import Pipeline, load_pipelines
from tests.conftest import ROOT

LINES = Lines("42", ("customer_id", "day", "cds"), "customer_id")


@pytest.mark.parametrize(
    ("line", "is_of_key"),
    [
        ("42,1998-06-01,1\n", True),
        ('"42",1998-06-01,1\r\n', True),
        ("42,1998-06-01\n", True),
        ("x;42;1998-06-01;1\n", True),
        ("7,1998-06-01,42\n", False),
        ("042,1998-06-01,1\n", False),
        ("421,1998-06-01\n", False),
        ("\n", False),
        ('"42,1998-06-01,1\n', True),
        ("7,1998-06-01,1,9,42.50\n", False),
        ("7,1998-06-42,1,9,9\n", False),
    ],
)
def test_a_row_is_known_by_its_column_and_what_is_no_row_by_its_words(line: str, *, is_of_key: bool) -> None:
    assert LINES.has(line.encode()) == is_of_key


@pytest.mark.parametrize("key", ['a"b', "a\\b", "ä,ö", "o'neil"])
def test_a_key_that_csv_writes_in_several_ways_is_found(key: str) -> None:
    lines = replace(LINES, key=key)
    quoted = [f'"{key.replace(mark, escaped)}",1998-06-01,1\n' for mark, escaped in (('"', '""'), ('"', '\\"'))]
    assert any(lines.has(line.encode()) for line in quoted)
    assert not lines.has(b'"other",1998-06-01,1\n')


@pytest.mark.parametrize(
    ("key", "text", "is_shown"),
    [
        ("a-1", '{"customer_id":"a-1"}', True),
        ("a-1", "aa-1, a-12", False),
        ("11", "11.50", False),
        ("50", "11.50", False),
        ("11", "1998-06-11", False),
        ("11", "11:30", False),
        ("11", "id:11, or 11.", True),
        ("11", "a-11", True),
    ],
)
def test_a_word_is_no_part_of_another_one(key: str, text: str, *, is_shown: bool) -> None:
    assert bool(shown(key).search(text)) == is_shown
    assert (key in words(text)) == is_shown


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "var" / "erasure.key"
    made = made_secret(path)
    assert made == made_secret(path) == read_secret(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert made.value.hex() not in repr(made)
    assert made.hash_of("customer_id", "42") != made.hash_of("shop_id", "42")


def test_who_is_killed_while_a_secret_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "erasure.key"

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", cut)
    with pytest.raises(KeyboardInterrupt):
        made_secret(path)
    assert not path.exists()
    monkeypatch.undo()
    assert made_secret(path) == read_secret(path)


@pytest.mark.parametrize("place", ["lake/scores", "{tmp}/a lake/scores", "file:{tmp}/a lake/scores"])
def test_arrow_finds_what_hadoop_has_a_path_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    files, found = arrow_files(place.format(tmp=tmp_path))
    assert isinstance(files, fs.LocalFileSystem)
    assert found == str(tmp_path / ("lake/scores" if place.startswith("lake") else "a lake/scores"))


def test_arrow_finds_what_hadoop_calls_s3a() -> None:
    files, found = arrow_files("s3a://bucket/lake/scores?region=eu-west-1")
    assert (files.type_name, found) == ("s3", "bucket/lake/scores")


@pytest.mark.parametrize("text", [None, "", "no hexadecimal", "00ff"])
def test_a_secret_that_is_lost_or_spoiled_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "erasure.key"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ErasureKeyLost, match=r"erasure\.key: .*put the file back from its copy"):
        read_secret(path)


def test_an_erased_key_is_known_in_a_text_that_is_no_row(tmp_path: Path) -> None:
    secret = made_secret(tmp_path / "key")
    erased = Erased(secret, "id", frozenset(secret.hash_of("id", key) for key in ("42", "a-b@c.d")))
    assert [erased.has(key) for key in ("42", "042", None)] == [True, False, False]
    assert erased.shows("x;42;1998")
    assert erased.shows('{"id":"a-b@c.d"}')
    assert not erased.shows("421,142")
    assert not erased.shows('{"id":"7","amount":"42"}'), "its field says whose it is"
    assert erased.shows('{"id":42}')


def test_who_shares_a_source_goes_with_it_and_who_has_other_keys_is_a_neighbour() -> None:
    one = load_pipelines(ROOT / "dags" / "pipelines")["purchase_propensity"]
    source = dict(one.sources)["transactions"]
    two = one.model_copy(update={"name": "two", "sources": {**one.sources, "shops": source}})
    three = one.model_copy(update={"name": "three", "sources": {"shops": source}})
    four = one.model_copy(update={"name": "four", "sources": {"other": source}})
    five = one.model_copy(update={"name": "five", "entity_key": "cds"})
    visits = source.model_copy(update={"columns": {**source.columns, "shop": "string"}})
    six = one.model_copy(update={"name": "six", "entity_key": "shop", "sources": {"visits": visits}})
    other = source.model_copy(update={"columns": {"shop": "string"}})
    seven = six.model_copy(update={"name": "seven", "sources": {"deliveries": other}})
    declared: dict[str, Pipeline] = {each.name: each for each in (one, two, three, four, five, six, seven)}
    scope = scope_of(one, declared)
    assert [each.name for each in scope.pipelines] == [one.name, "two", "three"]
    assert [each.name for each in scope.neighbours] == ["five"]
    assert scope.bars == ("shops", "transactions")
    every = scope_of_all("customer_id", declared)
    assert (len(every.pipelines), [each.name for each in every.neighbours]) == (4, ["five", "six"])
    assert (list(every.sources), every.bars) == (["other", "shops", "transactions", "visits"], ("*",))


def test_a_key_of_all_is_one_of_an_entity_key_that_is_named_where_there_are_several() -> None:
    one = load_pipelines(ROOT / "dags" / "pipelines")["purchase_propensity"]
    two = one.model_copy(update={"name": "two", "entity_key": "shop_id"})
    assert one_entity_key("", {"one": one}) == "customer_id"
    assert one_entity_key("shop_id", {"one": one, "two": two}) == "shop_id"
    with pytest.raises(EntityKeyUnclear, match="say with --entity-key of which column it is one: customer_id, shop_id"):
        one_entity_key("", {"one": one, "two": two})
    with pytest.raises(EntityKeyUnclear, match="no pipeline has the entity key city"):
        one_entity_key("city", {"one": one, "two": two})


def test_a_report_that_shows_the_key_goes_whole_and_the_others_stay(tmp_path: Path) -> None:
    pages = {
        "p/features/1998-06-01/index.html": "nothing",
        "p/features/1998-06-01/validations/x/y.html": "<td>42</td>",
        "p/features/1998-06-02/index.html": "421",
        "q/features/1998-06-01/index.html": "42",
    }
    for name, text in pages.items():
        page = tmp_path / "expectations" / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)
    reports = Reports(tmp_path, ("p", "none"), "42")
    assert (reports.erase(), reports.erase()) == (1, 0)
    left = {path.relative_to(tmp_path / "expectations").as_posix() for path in tmp_path.rglob("*.html")}
    assert left == {"p/features/1998-06-02/index.html", "q/features/1998-06-01/index.html"}
