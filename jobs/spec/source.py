"""From a pipeline's YAML file to its type, with every mistake named by file, line, field and remedy."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from jobs.errors import SpecError
from jobs.spec.pipeline import Pipeline


def load_pipelines(folder: Path) -> dict[str, Pipeline]:
    """Return all pipelines that the YAML files of `folder` declare, by name.

    Raises:
        SpecError: one of them is wrong.
    """
    return {pipeline.name: pipeline for pipeline in map(read_pipeline, pipeline_files(folder))}


def load_pipeline(folder: Path, name: str) -> Pipeline:
    """Return the pipeline `name`, declared in `folder/name.yaml`.

    Raises:
        SpecError: there is no such file, or it is wrong.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(file.stem for file in pipeline_files(folder)) or "none"
        raise SpecError(
            f"there is no pipeline '{name}': {path} does not exist (known: {known}); write it or correct the name"
        )
    return read_pipeline(path)


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
