"""What a check found: that something is fine, is worth knowing, or is at fault."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from expectations.errors import ExpectationsError
from jobs.errors import DataFault, RegistryUnavailable


@dataclass(frozen=True)
class Finding:
    """What one check says of one thing."""

    verdict: Literal["ok", "note", "FAULT"]
    about: str
    said: str

    @property
    def is_fault(self) -> bool:
        """Whether the pipeline must not run so."""
        return self.verdict == "FAULT"

    @property
    def line(self) -> str:
        """The finding in one line."""
        return " ".join(f"{self.verdict:<5} {self.about}: {self.said}".split("\n"))


def fine(about: str, said: str) -> Finding:
    """Return that all is well."""
    return Finding("ok", about, said)


def noted(about: str, said: str) -> Finding:
    """Return what one should know, though nothing is wrong."""
    return Finding("note", about, said)


def faulty(about: str, said: str) -> Finding:
    """Return what is wrong."""
    return Finding("FAULT", about, said)


@contextmanager
def faults_of(about: str, found: list[Finding]) -> Iterator[None]:
    """Put on `found` what the block refuses, so that the other checks still have their say."""
    try:
        yield
    except (DataFault, ExpectationsError, RegistryUnavailable) as fault:
        found.append(faulty(about, str(fault)))
