"""The page that Airflow shows with a pipeline's DAG: what it is, and what to do with it."""

from dags.patience import retries
from jobs.spec import Pipeline

PAGE = """
# {name}

{description}

| | |
|---|---|
| Owner | {owner} |
| Scheduled | `{cron}` (UTC), from {start} {end}; a run scores the day of its logical date |
| By hand, backfill | any day that is over, from {first_day} {end}; more under *Days that cannot run* |
| Model | `{model}@{alias}`, resolved once a run to a version and the digest of its artefact |
| Scores | Delta table `scores/{name}`, one partition a day and arm; asset `{name}.scores` |
| Publication | the newest {keep} generations in Redis; asset `{name}.publication` |

| Source | Kind | Landing files | Awaited until |
|---|---|---|---|
{sources}

## What to do

All of it has no double effects: a day that runs again replaces its own partition and nothing else, and only scores
that are at least as new as the live ones are published.

| To | Do |
|---|---|
| run one day | trigger it with logical date = 00:00 UTC of that day; the data interval shown then does not count |
| run many days | `airflow backfill create --dag-id {name} --from-date FIRST --to-date LAST` \
(unpause the DAG first: a paused one runs no backfill) |
| run a long range at once | trigger `{name}_backfill` with the days `from` and `to`: one Spark job scores all of them |
| run days again | the same with `--reprocess-behavior completed`; parameters as in *Parameters* |
| run one task again | clear it, with its downstream tasks; it uses the model and the events that its run recorded |
| load history | `scoreline ingest {name} --from DAY --to DAY`: one job, not hundreds of runs |
| take a model back | move the alias `{alias}` in MLflow to the version before; runs that start from then on use it |
| go back to the generation before | pause the DAG, then `scoreline rollback {name}`: at once, without a run |
| see what is live, and why a date is not | `scoreline status {name}` |
| publish against the rails, or an older date | its day with `publish` = `force` and a `reason`, kept on record |
| schedule on it (a backfill updates it) | `schedule=[Asset(name="{name}.scores", uri="x-scoreline://scores/{name}")]` |

## Parameters

In the form of *Trigger*, of *Backfill*, or as `--dag-run-conf '{{"restate": true, "model": "recorded"}}'`:

| Parameter | Says |
|---|---|
| `restate` | read the newest events and dimensions, not those that the date was scored from: late data come in. \
What that replaces is in `scores_superseded` and `features_superseded` |
| `model` | `champion` (what `{alias}` names at the run's start), `recorded` (what scored the date), or a version |
| `publish` | `newest` (unless a newer date is live), `no` (history only), `force` (against rails and order) |
| `reason` | why; on record. `force` needs one |

A run that is cleared resolves no other model; one that is told of another `model` does.

## Days that cannot run

{limit}Airflow has no message for this: for a day before {first_day}, or after an end date, a run by hand has no \
tasks, ends as a success and has done nothing.

## What Airflow must have

The pool `spark`, as large as Spark jobs may run at a time, and the connection `spark_default`. `make up` makes both; \
elsewhere:

```
airflow pools set spark 1 "Spark jobs at a time"
airflow connections add spark_default --conn-type spark --conn-host 'local[2]'
```

Without the pool, Airflow never schedules the Spark tasks: they wait, and no error is shown.

## When a task fails

| Task | Usual reason | Then |
|---|---|---|
| resolve_model | the run has no logical date, or no version has the alias | the message names what to give |
| wait_for_… | no file came by the deadline | deliver it, clear the task |
| ingest, score, publish | they stay scheduled: the pool `spark` is missing or full | see *What Airflow must have* |
| ingest, score | the data broke an expectation; nothing of it is visible, what was live still is \
| open the report that the message names, mend the data, clear the task |
| score | the champion knows labels from after that day | train one with an earlier `--as-of`, or run a later day |
| publish | the scores are further from the live ones than the pipeline's rails allow; what was live still is \
| mend the data and score again, or force it |
| resolve_model, publish | MLflow or Redis is away | Airflow tries again by itself, {patience} times |

JobRefused, LandingMissing and RunRefused are about the data or the run itself: Airflow does not retry these.
"""

LIMIT = "The data end on {end}: for later days, first move `end_date` in the pipeline's YAML. "


def describe(pipeline: Pipeline) -> str:
    """Return the page of a pipeline, in Markdown."""
    schedule = pipeline.schedule
    return PAGE.format(
        name=pipeline.name,
        description=pipeline.description,
        owner=pipeline.owner,
        cron=schedule.cron,
        start=schedule.start_date,
        first_day=pipeline.events[1].first_day,
        limit=LIMIT.format(end=schedule.end_date) if schedule.end_date else "",
        patience=retries(pipeline),
        end=f"to {schedule.end_date}" if schedule.end_date else "without end",
        model=pipeline.model.name,
        alias=pipeline.model.alias,
        keep=pipeline.publication.keep,
        sources="\n".join(
            f"| {name} | {source.kind} | `{source.landing}` | {source.deadline_hours:g} h after the interval's end |"
            for name, source in pipeline.sources.items()
        ),
    )
