"""Who may read which pipelines: random keys, of which a file holds the digests alone."""

import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from serving.errors import CallerUnknown, KeyLineRefused, PipelineForbidden, SettingsError
from serving.keys import PIPELINE_NAME

ALL = "*"  # in place of a pipeline's name: all of them, those to come too
VARIABLE = "SCORELINE_API_KEYS_FILE"
REMEDY = "write lines as `scoreline api-key new NAME --pipeline P` prints them"
PREFIX = "slk_"  # lets scanners of leaked secrets know ours
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who has a key, and the pipelines that the key may read."""

    name: str
    pipelines: frozenset[str]

    def may_read(self, pipeline: str) -> bool:
        """Return whether the key may read a pipeline."""
        return pipeline in self.pipelines or ALL in self.pipelines


ANYONE = Caller("anyone", frozenset({ALL}))  # who asks a service that knows no keys


class KeyLine(BaseModel):
    """One line of the file, which is JSON."""

    name: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    pipelines: list[Annotated[str, Field(pattern=rf"{PIPELINE_NAME}|^\*$")]]


def new_key(name: str, pipelines: Iterable[str]) -> tuple[str, str]:
    """Return a new key, which is kept nowhere, and the line that makes it known; or raise `KeyLineRefused`."""
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        line = KeyLine(name=name, sha256=digest(key).hex(), pipelines=sorted(set(pipelines)))
    except ValidationError as fault:
        raise KeyLineRefused(f"no API key for {name!r}: {_told(fault)}: correct it") from fault
    return key, line.model_dump_json()


def digest(key: str) -> bytes:
    """Return what is kept of a key: keys are long and random, so that no salt and no slow hash is needed."""
    return sha256(key.encode(errors="surrogateescape")).digest()


class KeyRing:
    """The keys of a file, which is read again when it changes; without a file everybody may read everything.

    A key is found by its digest, so that the time which that takes says nothing about the keys that there are.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.callers: Mapping[bytes, Caller] = {}
        self._seen: object = None
        if path is not None:
            self._seen = _stamp(path)
            self.callers = read_keys(path)

    def refresh(self) -> None:
        """Read the file again if it has changed; what cannot be read is logged, and changes nothing."""
        if self.path is None or (stamp := _stamp(self.path)) == self._seen:
            return
        self._seen = stamp
        try:
            self.callers = read_keys(self.path)
        except SettingsError as fault:
            LOG.error("the API keys stay as they were: %s", fault)  # noqa: TRY400  reason: the message says where
        else:
            LOG.info("%d API keys read from %s", len(self.callers), self.path)

    def caller(self, key: str | None) -> Caller:
        """Return who has a key, or raise `CallerUnknown`."""
        if self.path is None:
            return ANYONE
        caller = self.callers.get(digest(key)) if key else None
        if caller is None:
            what = "this API key is not known" if key else "this request has no API key, or two"
            raise CallerUnknown(f"{what}: send one as `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        return caller


def require(caller: Caller, pipeline: str) -> None:
    """Raise `PipelineForbidden` where a caller may not read a pipeline."""
    if not caller.may_read(pipeline):
        raise PipelineForbidden(f"the API key of {caller.name} may not read {pipeline[:128]}: ask for one that may")


def read_keys(path: Path) -> dict[bytes, Caller]:
    """Return the callers of a file by the digests of their keys, or raise `SettingsError` naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise SettingsError(f"{VARIABLE}: {path} cannot be read ({fault}): {REMEDY}") from fault
    callers = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            parsed = _parsed(line, f"{path}, line {number}")
            callers[bytes.fromhex(parsed.sha256)] = Caller(parsed.name, frozenset(parsed.pipelines))
    return callers


def _parsed(line: str, where: str) -> KeyLine:
    try:
        return KeyLine.model_validate(json.loads(line))
    except ValueError as fault:
        told = _told(fault) if isinstance(fault, ValidationError) else str(fault)
    raise SettingsError(f"{VARIABLE}: {where}: {told}: {REMEDY}")


def _told(fault: ValidationError) -> str:
    first = fault.errors(include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _stamp(path: Path) -> object:
    """Return what changes with a file: a new one may stand under its name, with the time of the old."""
    try:
        found = path.stat()
    except OSError as fault:
        return fault.errno
    return found.st_mtime_ns, found.st_size, found.st_ino
