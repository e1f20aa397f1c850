"""What may be said of a run when it is triggered or backfilled: the parameters in Airflow's forms."""

from typing import Any

from airflow.sdk import Context, Param

from dags.errors import RunRefused

# The values that the templates of tasks take, each as one argument whatever is in it.
RESTATE = "--{{ '' if params.restate else 'no-' }}restate"
PUBLISH = ["--publish", "{{ params.publish }}", "--reason={{ params.reason or '' }}"]

CHOICES = {
    "restate": Param(
        False,  # noqa: FBT003  reason: it is the default, and named by its key
        type="boolean",
        title="Restate: let late data in",
        description="Read the newest version of events and dimensions in place of the one that the date was scored "
        "from before. What this replaces goes to `scores_superseded` and `features_superseded`.",
    ),
    "model": Param(
        "champion",
        type="string",
        pattern="^(champion|recorded|[1-9][0-9]*)$",
        title="Model to score with",
        description="`champion`: what the alias names when the run starts. `recorded`: what scored this date last. "
        "Or the number of a version. A run that is cleared keeps what it resolved.",
    ),
    "publish": Param(
        "newest",
        type="string",
        enum=["newest", "no", "force"],
        title="Let the scores go live",
        description="`newest`: unless those of a newer date are live. `no`: fill history only. `force`: against the "
        "rails and the order of dates, which takes a reason.",
    ),
    "reason": Param(
        None,
        type=["null", "string"],
        title="Reason",
        description="Why: it goes on record. `force` needs one.",
    ),
}
DAYS = {
    "from": Param(type="string", format="date", title="First day", description="As of its end it is scored first."),
    "to": Param(
        type="string",
        format="date",
        title="Last day",
        description="Included; it must be over. Its scores alone are published.",
    ),
}


def choices_of(context: Context) -> dict[str, Any]:
    """Return what a run was told.

    Raises:
        RunRefused: it is told what its DAG knows nothing of, or is to be published by force and nobody says why.
    """
    found, known = dict(context["params"]), context["dag"].params
    if unknown := sorted(found.keys() - known.keys()):
        raise RunRefused(f"This DAG has no parameter {', '.join(unknown)}: it has {', '.join(known)}.")
    if found["publish"] == "force" and not str(found["reason"] or "").strip():
        raise RunRefused("This run is to be published by force, and nobody says why: give it the parameter `reason`.")
    return found
