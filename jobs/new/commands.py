"""The command that writes a new pipeline."""

import sys
from typing import Any

import click

from jobs.spec import settings

LONGEST_HORIZON = 90  # days: the example's files must reach three times as far
QUESTIONS = {
    "entity_key": "Column of the key that a score belongs to",
    "source": "Name of the source, and of its table",
    "horizon_days": "Days that the label looks ahead",
    "owner": "Who answers for it",
}
HORIZON = click.IntRange(1, LONGEST_HORIZON)


@click.command()
@click.argument("name")
@click.option("--entity-key", help="Column of the key that a score belongs to; default: customer_id.")
@click.option("--source", help="Name of the source, and of its table; default: NAME_orders.")
@click.option("--horizon-days", type=HORIZON, help="Days that the label looks ahead; default: 14.")
@click.option("--owner", help="Who answers for it; default: nobody yet.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the defaults for what is not given.")
def new(name: str, yes: bool, **given: Any) -> None:  # noqa: FBT001  reason: click passes flags so
    """Write the files of a pipeline called NAME, which runs at once on a small example, for you to change."""
    from jobs.new.outline import Outline
    from jobs.new.writing import write

    defaults = {"entity_key": "customer_id", "source": f"{name}_orders", "horizon_days": 14, "owner": "nobody yet"}
    asks = not yes and is_terminal()
    chosen = {field: _chosen(field, given[field], default, asks=asks) for field, default in defaults.items()}
    outline = Outline(name=name, **chosen)
    for place in write(settings(), outline):
        click.echo(f"wrote {place}")
    click.echo("CHANGE in these files says where. Next, on the example's files:")
    for command in outline.next_commands():
        click.echo(f"  {command}")


def is_terminal() -> bool:
    """Return whether there is somebody to ask."""
    return sys.stdin.isatty()


def _chosen(field: str, given: Any, default: Any, *, asks: bool) -> Any:
    if given is not None or not asks:
        return default if given is None else given
    return click.prompt(QUESTIONS[field], default=default, type=HORIZON if field == "horizon_days" else str)
