"""Writes a new pipeline and its example, or nothing."""

import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from jobs.errors import DataFault, SpecError
from jobs.new.example import COLUMNS, example
from jobs.new.outline import Outline
from jobs.spec import Settings, load_pipeline, read_pipeline
from jobs.spec.pipeline import IDENTIFIER


def write(settings: Settings, outline: Outline) -> list[Path]:
    """Write the pipeline's files and its example's, and return the folders and files that are new, the YAML last.

    Raises:
        DataFault: one of them is there already, or the landing folder is not on this machine. Nothing is written then.
        SpecError: a name is not one, or another pipeline has a source of that name. Nothing is left then.
    """
    for name in (outline.name, outline.source, outline.entity_key):
        if not IDENTIFIER.fullmatch(name):
            raise SpecError(f"'{name}' is not a name: write lower-case letters, digits and _, a letter first")
    if outline.entity_key in COLUMNS:
        raise SpecError(f"the example has another column '{outline.entity_key}': give the entity key another name")
    with ExitStack() as staged:
        project, landing = (_staging(staged, root) for root in (settings.project, _landing(settings)))
        _put(project, outline.files())
        _put(landing, example(outline))
        read_pipeline(project / _yaml(outline))
        folders = (f"jobs/sql/{outline.name}", f"expectations/suites/{outline.name}")
        moves = [(project / each, settings.project / each) for each in folders]
        moves.append((landing / outline.source, _landing(settings) / outline.source))
        # A pipeline is there when its YAML is.
        moves.append((project / _yaml(outline), settings.project / _yaml(outline)))
        _move(moves, lambda: load_pipeline(settings.pipelines, outline.name))
    return [place for _, place in moves]


def _yaml(outline: Outline) -> str:
    return f"dags/pipelines/{outline.name}.yaml"


def _landing(settings: Settings) -> Path:
    if "://" in settings.landing:
        raise DataFault(f"the example's files cannot be put into {settings.landing}: set SCORELINE_LANDING to a folder")
    return Path(settings.landing.removeprefix("file:"))


def _staging(staged: ExitStack, root: Path) -> Path:
    """Return a new folder beside what is to be written, which is gone at the end."""
    folder = root / f".new-{uuid4().hex}"
    staged.callback(shutil.rmtree, folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _put(folder: Path, texts: Iterable[tuple[str, str]]) -> None:
    for name, text in texts:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def _move(moves: list[tuple[Path, Path]], prove: Callable[[], object]) -> None:
    """Move all to their places and prove what is there then; where one of these fails, take all back."""
    for _, place in moves:
        if place.exists():
            raise DataFault(f"{place} is there already: choose another name, or remove it; nothing was written")
    with ExitStack() as back:
        for source, place in moves:
            place.parent.mkdir(parents=True, exist_ok=True)
            source.rename(place)
            back.callback(place.rename, source)
        prove()
        back.pop_all()
