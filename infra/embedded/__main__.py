"""`python -m infra.embedded up | down | status | demo | stream PIPELINE`: the embedded default."""

import argparse
import signal
import sys
from collections.abc import Callable
from inspect import signature

from rich.console import Console

from infra.embedded import lifecycle
from infra.embedded.errors import EmbeddedError, ServiceFailed
from infra.embedded.settings import settings
from infra.embedded.tables import hints, services_table

LOG_WIDTH = 120
console = Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
INTERRUPTED = 130


def up() -> None:
    """Start the services and say where they are."""
    asked = settings()
    with console.status("starting") as status:
        lifecycle.up(lambda text: status.update(f"starting: {text}"), asked)
    show()


def down() -> None:
    """Stop them."""
    stopped = lifecycle.down()
    console.print(f"stopped {stopped} processes" if stopped else "nothing was running")


def show() -> None:
    """Say where the services are.

    Raises:
        ServiceFailed: one of them is dead.
    """
    dead = lifecycle.dead()
    if not dead and not lifecycle.alive():
        console.print("nothing is running: make up")
        return
    console.print(services_table())
    if dead:
        raise ServiceFailed(f"dead: {', '.join(dead)}: `make up` starts what is missing, `make down` stops the rest")
    console.print(hints(), soft_wrap=True)


def demo() -> None:
    """Take 17 months of real purchases from landing files to scores over HTTP."""
    from infra.embedded.demo import run

    run(console, settings())


def stream(pipeline: str) -> None:
    """Start the stream of a pipeline, unless it runs or somebody stopped it."""
    lifecycle.start_stream(pipeline, "--unless-stopped")


COMMANDS: dict[str, Callable[..., None]] = {"up": up, "down": down, "status": show, "demo": demo, "stream": stream}


def main() -> None:
    """Run the command named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.embedded", description=__doc__)
    actions = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        action = actions.add_parser(name, help=str(command.__doc__).splitlines()[0])
        for argument in signature(command).parameters:
            action.add_argument(argument)
    for ending in (signal.SIGINT, signal.SIGTERM):  # also where a shell started us with SIGINT ignored
        signal.signal(ending, signal.default_int_handler)
    try:
        given = vars(parser.parse_args())
        COMMANDS[given.pop("command")](**given)
    except EmbeddedError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
