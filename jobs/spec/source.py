"""From a pipeline's YAML file to its type, with every mistake named by file, line, field and remedy."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from jobs.errors import SpecError
from jobs.spec.pipeline import Pipeline, Source
from jobs.spec.settings import Settings


def load_pipelines(folder: Path) -> dict[str, Pipeline]:
    """Return all pipelines that the YAML files of `folder` declare, by name.

    Raises:
        SpecError: one of them is wrong, or two mean different things by a source of one name.
    """
    found = [read_pipeline(path) for path in pipeline_files(folder)]
    for one, other in combinations(found, 2):
        _refuse_other_meaning(folder, one, other)
        _refuse_two_loaders(folder, one, other)
    return {pipeline.name: pipeline for pipeline in found}


def load_pipeline(folder: Path, name: str) -> Pipeline:
    """Return the pipeline `name`, declared in `folder/name.yaml`.

    Raises:
        SpecError: there is no such file, it is wrong, or another pipeline means something else by one of its sources.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(file.stem for file in pipeline_files(folder)) or "none"
        raise SpecError(
            f"there is no pipeline '{name}': {path} does not exist (known: {known}); write it or correct the name"
        )
    pipeline = read_pipeline(path)
    for other in _readable(folder):
        _refuse_other_meaning(folder, pipeline, other)
        _refuse_two_loaders(folder, pipeline, other)
    return pipeline


def missing_files(project: Settings, pipeline: Pipeline) -> list[str]:
    """Return what a pipeline's YAML needs beside it and is not there: SQL files and suites, each with its path."""
    sql = [project.sql(pipeline.name, kind) for kind in ("population", "features", "labels")]
    names = [*(source.suite for source in pipeline.sources.values()), pipeline.features.suite, pipeline.scores.suite]
    suites = [project.suites / pipeline.name / f"{name}.yaml" for name in names]
    return [f"{path} does not exist: write it" for path in (*sql, *suites) if not path.is_file()]


def pipeline_files(folder: Path) -> list[Path]:
    """Return the YAML files of `folder`, sorted by name."""
    return sorted(folder.glob("*.yaml"))


def read_pipeline(path: Path) -> Pipeline:
    """Return the pipeline that the file `path` declares.

    Raises:
        SpecError: it is not YAML, or not a pipeline; the message has a line for each mistake.
    """
    document = _parse(path)
    try:
        pipeline = Pipeline.model_validate(_plain(document))
    except ValidationError as error:
        lines = [_explain(path, document, mistake) for mistake in error.errors()]
        raise SpecError("\n".join(lines)) from None
    if pipeline.name != path.stem:
        place = f"{path}:{_line(document, ('name',))}: name:"
        raise SpecError(f"{place} '{pipeline.name}' is not the file's name; write name: {path.stem} or rename the file")
    return pipeline


def _readable(folder: Path) -> Iterator[Pipeline]:
    """Give the pipelines of `folder` whose files are right: a mistake in one is no concern of the others."""
    for path in pipeline_files(folder):
        with suppress(SpecError):
            yield read_pipeline(path)


def _refuse_other_meaning(folder: Path, one: Pipeline, other: Pipeline) -> None:
    """Refuse two pipelines that share a source's tables by its name, and differ in its declaration or its suite."""
    for name in sorted(one.sources.keys() & other.sources.keys()):
        mine, theirs = one.sources[name], other.sources[name]
        what = "declare" if mine != theirs else "judge"
        if mine != theirs or _suite(folder, one, mine) != _suite(folder, other, theirs):
            place = f"{folder / one.name}.yaml: sources.{name}"
            raise SpecError(
                f"{place}: {one.name} and {other.name} {what} this source differently, but share its tables; "
                f"make both (and their suite {mine.suite}) the same, or call one of the sources otherwise"
            )


def _refuse_two_loaders(folder: Path, one: Pipeline, other: Pipeline) -> None:
    """Refuse two pipelines that would append the same messages: the streams of both read the same table."""
    if one.name != other.name and one.topic and other.topic and one.events[0] == other.events[0]:
        raise SpecError(
            f"{folder / one.name}.yaml: stream.kafka: {other.name} fills the same table, events/{one.events[0]}; "
            "keep kafka: in one of them, the other one's stream sees its events too"
        )


def _suite(folder: Path, pipeline: Pipeline, source: Source) -> bytes:
    path = folder.joinpath("..", "..", "expectations", "suites", pipeline.name, f"{source.suite}.yaml")
    return path.read_bytes() if path.is_file() else b""


def _parse(path: Path) -> CommentedMap:
    try:
        document = YAML(typ="rt").load(StringIO(path.read_text("utf-8")))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(
            f"{path}:{line}: this is not YAML: {error.problem}; check quotes, colons and indentation"
        ) from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}:1: this file is not UTF-8 text; save it as UTF-8") from None
    except ValueError as error:  # ruamel builds dates and numbers as it reads, and names no line
        raise SpecError(
            f"{path}: a value in this file is none ({error}); look for a date that no calendar has"
        ) from None
    except YAMLError as error:
        said = " ".join(str(error).split())
        raise SpecError(f"{path}:1: this is not YAML: {said}; remove what no editor shows") from None
    if not isinstance(document, CommentedMap):
        raise SpecError(f"{path}:1: this file declares no pipeline; begin with name: {path.stem}")
    return document


def _plain(node: Any) -> Any:
    """Return the document as plain dicts and lists: what is validated must not know where it came from."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return node


def _explain(path: Path, document: CommentedMap, mistake: Any) -> str:
    location = tuple(part for part in mistake["loc"] if part != "[key]")
    field = ".".join(str(part) for part in location) or "pipeline"
    return f"{path}:{_line(document, location)}: {field}: {_remedy(mistake)}"


def _remedy(mistake: Any) -> str:
    kind, given = mistake["type"], mistake["input"]
    if kind == "missing":
        return f"this field is missing; write {mistake['loc'][-1]}: and its value"
    if kind == "extra_forbidden":
        return "there is no such field; remove it or correct its name"
    if kind == "literal_error":
        return f"'{given}' is not one of the choices; write {mistake['ctx']['expected']}"
    if kind == "value_error":
        return str(mistake["ctx"]["error"])
    message = mistake["msg"][0].lower() + mistake["msg"][1:]
    return f"{message}, not '{given}'; write such a value"


def _line(document: CommentedMap, location: tuple[Any, ...]) -> int:
    """Return the 1-based line of a field, or of the nearest field around it."""
    node: Any = document
    line = document.lc.line
    for part in location:
        if isinstance(node, CommentedMap) and part in node:
            line = node.lc.key(part)[0]
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line = node.lc.item(part)[0]
        else:
            break
        node = node[part]
    return int(line) + 1
