"""A publisher as a process of its own, to be killed.

`python -m tests.serving.publisher URL PIPELINE TOKEN NUMBER KEYS`; generation NUMBER is as of
JUNE_2 + 10 * NUMBER microseconds, and has NUMBER as the score of each key.
"""

import sys
from dataclasses import replace

from serving.head import Head, Overlay
from serving.store import Store
from tests.serving.publishing import JUNE_2, head_for, write

STEP = 10  # microseconds from one generation to the next; overlay entries lie between


def keys(count: int) -> list[str]:
    """Return the keys that all generations have."""
    return [f"key-{number}" for number in range(count)]


def numbered(pipeline: str, token: int, number: int, count: int) -> tuple[Head, dict[str, float]]:
    """Return head and scores of a generation that tells its number."""
    scores = dict.fromkeys(keys(count), float(number))
    head = replace(head_for(pipeline, token, scores), as_of=JUNE_2 + STEP * number, overlay=Overlay(50))
    return head, scores


def main() -> None:
    """Publish: claim, write, read back, swap; the exit code says whether it went live."""
    url, pipeline, token, number, count = sys.argv[1:]
    head, scores = numbered(pipeline, int(token), int(number), int(count))
    with Store(url) as store:
        if not store.claim(pipeline, head.token):
            sys.exit("unclaimed")
        live = store.head(pipeline)
        head = replace(head, epoch=live.epoch if live else 1)
        write(store, head, scores)
        store.register(pipeline)
        outcome = store.swap(head)
    sys.exit(0 if outcome == "live" else outcome)


if __name__ == "__main__":
    main()
