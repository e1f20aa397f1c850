"""The command that proves pipelines before they run."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from jobs.errors import CheckFailed, SpecError
from jobs.spec import load_pipeline, pipeline_files, settings

if TYPE_CHECKING:
    from jobs.check.findings import Finding


@click.command()
@click.argument("pipeline", required=False)
def check(pipeline: str | None) -> None:
    """Prove a pipeline (or all) before it runs: its files, SQL, model, what its history demands; no look ahead."""
    names = [pipeline] if pipeline else [path.stem for path in pipeline_files(settings().pipelines)]
    faults: dict[str, int] = {}
    for name in names:
        click.echo(name)
        for finding in _findings(name):
            click.echo(f"  {finding.line}")
            if finding.is_fault:
                faults[name] = faults.get(name, 0) + 1
    if faults:
        told = ", ".join(f"{name} has {many}" for name, many in faults.items())
        raise CheckFailed(f"{told} of the faults above; mend them, then run `scoreline check` again")


def _findings(name: str) -> "Iterator[Finding]":
    from jobs.check.findings import faulty

    found = settings()
    try:
        declared = load_pipeline(found.pipelines, name)
    except SpecError as fault:  # before Spark: a slip in the YAML should not cost a cold start
        yield from (faulty(f"{name}.yaml", line) for line in str(fault).splitlines())
        return
    from jobs.check.job import Check
    from jobs.lake import Lake
    from jobs.session import spark_session

    yield from Check(Lake(spark_session("check"), found.lake), found, declared).findings()
