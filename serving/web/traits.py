"""What the headers of a plain request say, read once for all requests that have the same."""

import re
from typing import NamedTuple

from serving.apikeys import KeyRing, digest
from serving.web.intake import presented_id, presented_key

MOST_KEPT = 4096  # different headers; clients repeat theirs, but for the id and the length
MOST_BYTES = 1024  # of headers that are kept
LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?[ \t]*")
# Headers that may change what a request means or how it is answered; those that are not here do not.
HEEDED = frozenset((b"authorization", b"content-length", b"content-type", b"host", b"x-api-key", b"x-request-id"))
UNUSUAL = frozenset((b"expect", b"transfer-encoding", b"upgrade", b"content-encoding", b"te", b"trailer"))
KEPT_OPEN = (b"keep-alive", b"Keep-Alive")
LENGTH = re.compile(rb"[0-9]{1,9}")
JSON = b"application/json"


class Traits(NamedTuple):
    """What a plain request says beside its target: digest of its API key, its id, bytes of a body, if that is JSON."""

    digest: bytes | None
    request_id: str | None
    length: int
    json: bool


class TraitsCache:
    """Finds the traits of blocks of header lines; only short ones of known callers that will come again are kept."""

    def __init__(self, keyring: KeyRing) -> None:
        self._keyring = keyring
        self._kept: dict[bytes, Traits] = {}

    def of(self, block: bytes) -> Traits | None:
        """Return the traits of header lines, each with its end, or None where they are not those of a plain request."""
        if (kept := self._kept.get(block)) is not None:
            return kept
        traits = traits_of(block)
        if traits is not None and self._comes_again(traits) and len(block) <= MOST_BYTES:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[block] = traits
        return traits

    def _comes_again(self, traits: Traits) -> bool:
        known = self._keyring.path is None or traits.digest in self._keyring.callers
        return known and traits.request_id is None


def traits_of(block: bytes) -> Traits | None:
    """Return the traits of header lines, each with its end, or None where they are not those of a plain request."""
    lines = [LINE.fullmatch(line) for line in block.split(b"\r\n")[:-1]]
    pairs = [(line[1].lower(), line[2] or b"") for line in lines if line is not None]
    if len(pairs) < len(lines):
        return None
    heeded = [pair for pair in pairs if pair[0] in HEEDED]
    found = dict(heeded)
    if len(found) < len(heeded) or b"host" not in found or not all(_usual(*pair) for pair in pairs):
        return None
    length, given = found.get(b"content-length", b"0"), presented_id(heeded)
    if not LENGTH.fullmatch(length) or (b"x-request-id" in found and given is None):
        return None
    key = presented_key(heeded)
    return Traits(digest(key) if key else None, given, int(length), found.get(b"content-type") == JSON)


def _usual(name: bytes, value: bytes) -> bool:
    return name not in UNUSUAL and (name != b"connection" or value in KEPT_OPEN)
