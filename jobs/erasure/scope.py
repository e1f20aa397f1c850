"""What an erasure is about: the pipelines that know the key, and the sources that bring it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs.erasure.tombstones import EVERY
from jobs.errors import EntityKeyUnclear
from jobs.spec import Pipeline, Source


@dataclass(frozen=True)
class Scope:
    """Pipelines whose keys are values of the column `entity_key`, all that share a source with one of them.

    `sources`, by name, are theirs, and of an erasure of all those too that have the column and are read by pipelines of
    other keys alone. `neighbours` are pipelines that read one of them, and have other keys: of them the stream's state
    knows the rows.
    """

    entity_key: str
    pipelines: tuple[Pipeline, ...]
    neighbours: tuple[Pipeline, ...]
    sources: Mapping[str, Source]
    bars: tuple[str, ...]  # the sources that bring the key no more

    @property
    def readers(self) -> tuple[Pipeline, ...]:
        """All pipelines whose streams may hold the key, and whose reports may show it."""
        return self.pipelines + self.neighbours


def scope_of(asked: Pipeline, declared: Mapping[str, Pipeline]) -> Scope:
    """Return the scope of one pipeline: with it go all of the same entity key that read its sources, and so on."""
    found = {asked.name: asked}
    while more := [each for each in declared.values() if each.name not in found and _is_with(each, found.values())]:
        found |= {each.name: each for each in more}
    sources = _sources(found.values())
    return Scope(asked.entity_key, tuple(found.values()), _readers(sources, found, declared), sources, tuple(sources))


def scope_of_all(entity_key: str, declared: Mapping[str, Pipeline]) -> Scope:
    """Return the scope of all pipelines of an entity key, and of all sources that there will ever be."""
    mine = {name: each for name, each in declared.items() if each.entity_key == entity_key}
    sources = {name: each for name, each in _sources(declared.values()).items() if entity_key in each.columns}
    return Scope(entity_key, tuple(mine.values()), _readers(sources, mine, declared), sources, (EVERY,))


def one_entity_key(asked: str, declared: Mapping[str, Pipeline]) -> str:
    """Return the entity key that is asked for, "" for the only one.

    Raises:
        EntityKeyUnclear: there are several, or none of that name: the same text may be the key of somebody else.
    """
    known = sorted({each.entity_key for each in declared.values()})
    if asked in known or (not asked and len(known) == 1):
        return asked or known[0]
    raise EntityKeyUnclear(
        f"{f'no pipeline has the entity key {asked}' if asked else 'the same text may be a key of several'}: "
        f"say with --entity-key of which column it is one: {', '.join(known)}"
    )


def _sources(pipelines: Iterable[Pipeline]) -> dict[str, Source]:
    return dict(sorted({name: source for each in pipelines for name, source in each.sources.items()}.items()))


def _readers(
    sources: Mapping[str, Source], known: Mapping[str, Pipeline], declared: Mapping[str, Pipeline]
) -> tuple[Pipeline, ...]:
    """Return the pipelines that read one of the sources, and are not known already."""
    others = (each for name, each in declared.items() if name not in known)
    return tuple(each for each in others if each.sources.keys() & sources.keys())


def _is_with(one: Pipeline, others: Iterable[Pipeline]) -> bool:
    return any(one.entity_key == other.entity_key and one.sources.keys() & other.sources.keys() for other in others)
