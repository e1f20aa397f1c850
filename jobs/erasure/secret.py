"""The secret with which erased keys are hashed: in a file that nobody else may read, and that must not be lost."""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from jobs.errors import ErasureKeyLost

BYTES = 32
VARIABLE = "SCORELINE_ERASURE_KEY_FILE"


@dataclass(frozen=True)
class Secret:
    """What tells an erased key by its hash; never shown, not even where an object is printed."""

    value: bytes

    def __repr__(self) -> str:
        return "Secret(...)"

    @property
    def id(self) -> str:
        """What tells this secret from another one, and nothing of it."""
        return self.hash_of("", "id")[:16]

    def hash_of(self, entity_key: str, key: str) -> str:
        """Return the HMAC-SHA256 of a key of the name space `entity_key`, in hexadecimal."""
        return hmac.digest(self.value, f"{entity_key}\0{key}".encode(), hashlib.sha256).hex()


def read_secret(path: Path) -> Secret:
    """Return the secret in a file.

    Raises:
        ErasureKeyLost: it is not there, or not a secret.
    """
    try:
        value = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as fault:
        raise ErasureKeyLost(f"{path}: {fault}; {remedy()}") from fault
    if len(value) != BYTES:
        raise ErasureKeyLost(f"{path}: {len(value)} bytes in place of {BYTES}; {remedy()}")
    return Secret(value)


def made_secret(path: Path) -> Secret:
    """Return the secret in a file, which is made where there is none: before the first erasure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-") as beside:  # nobody else may read it
            beside.write(secrets.token_hex(BYTES) + "\n")
            beside.flush()
            os.fsync(beside.fileno())
            with suppress(FileExistsError):  # another one was faster
                os.link(beside.name, path)
    return read_secret(path)


def remedy() -> str:
    """Return what to do where the secret is lost."""
    return (
        "without the secret that keys were erased with nobody can tell them when they come again: put the file back "
        f"from its copy, or correct {VARIABLE}"
    )
