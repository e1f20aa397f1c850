"""Which model a run scores with: today's champion, the one that scored that date last, or a version by its number."""

from datetime import date
from functools import partial

from jobs.errors import DataFault
from jobs.recorded import recorded
from jobs.registry import ModelVersion, numbered, resolve, resolve_for_run
from jobs.spec import Pipeline, Settings

CHAMPION, RECORDED = "champion", "recorded"


def chosen(settings: Settings, pipeline: Pipeline, wish: str, as_of: date) -> ModelVersion:
    """Return the model that `wish` names now: "champion" (what the alias names), "recorded" or a version's number.

    Raises:
        DataFault: "recorded", and the date has no scores, or those of another registered model.
        ModelMissing: there is no such model, alias or version.
        ArtefactRefused: no digest is on record for it.
    """
    model = pipeline.model
    if wish == RECORDED:
        found = recorded(settings, pipeline, [as_of])
        if as_of not in found:
            raise unrecorded(pipeline, as_of)
        if found[as_of].model.name != model.name:
            raise _renamed(pipeline, found[as_of].model, as_of)
        return found[as_of].model
    if wish == CHAMPION:
        return resolve(settings.mlflow_uri, model.name, model.alias)
    return numbered(settings.mlflow_uri, model.name, wish)


def chosen_for_run(settings: Settings, pipeline: Pipeline, wish: str, run: tuple[str, date]) -> ModelVersion:
    """Return the model of a run, by the name of its record and its as_of: chosen when first asked, the same ever after.

    Raises what `chosen` and `resolve_for_run` raise.
    """
    name, as_of = run
    return resolve_for_run(settings.mlflow_uri, pipeline, name, partial(chosen, settings, pipeline, wish, as_of))


def _renamed(pipeline: Pipeline, was: ModelVersion, as_of: date) -> DataFault:
    return DataFault(
        f"scores/{pipeline.name} as of {as_of} are of model {was.name} version {was.version}, and the pipeline's model "
        f"is {pipeline.model.name} now: `scoreline backfill {pipeline.name} --model {RECORDED}` scores the date with it"
    )


def unrecorded(pipeline: Pipeline, as_of: date) -> DataFault:
    """Return what to say where a date has no scores that name their model."""
    return DataFault(
        f"scores/{pipeline.name} has no scores as of {as_of}, so that no model is recorded for that date: "
        f"choose `{CHAMPION}` or the number of a version as its model"
    )
