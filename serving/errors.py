"""The errors of this package; each message says what is wrong, where, and what to do.

ServingError
├── SettingsError        an environment variable that cannot be used
├── LayoutError          arrays or a block that do not fit the layout
│   ├── HashCollision    two keys of one block with one hash: draw another salt
│   └── BlockCorrupt     a block that is not what its writer wrote
├── HeadUnreadable       a head record of another format, or damaged
├── StreamUnreadable     what a stream said of itself is of another format, or damaged
├── StoreUnavailable     Redis does not answer
├── StoreRefused         Redis answers, and refuses the user or the command
│   └── EvictionRefused  Redis may evict blocks under memory pressure
├── Unforeseen           a fault of the service itself
├── GenerationLive       the live generation is never removed
├── TornGeneration       a block of the generation is missing
├── LookupRefused        a lookup that cannot be answered with a score
│   ├── UnknownPipeline
│   ├── UnknownKey
│   ├── AnswerTooOld
│   ├── KeyRefused
│   └── TooManyKeys
├── KeyLineRefused       a name or a pipeline that no API key can have
├── CallerRefused        who asks may not have the answer
│   ├── CallerUnknown    no API key, or none that is known
│   └── PipelineForbidden
└── ServiceError         (client) what the service answered in place of scores
    └── ServiceUnreachable
"""


class ServingError(Exception):
    """The root of this package's errors."""


class SettingsError(ServingError):
    """An environment variable that cannot be used."""


class LayoutError(ServingError):
    """Arrays or a block that do not fit the layout."""


class HashCollision(LayoutError):
    """Two keys have the same hash: the publication draws another salt."""


class BlockCorrupt(LayoutError):
    """A block is not what its writer wrote."""


class HeadUnreadable(ServingError):
    """A head record of another format, or a damaged one."""


class StreamUnreadable(ServingError):
    """What a stream said of itself is of another format, or damaged."""


class HeadLost(ServingError):
    """A pipeline was live and Redis has no head of it any more: it was emptied, or came back without its data."""


class StoreUnavailable(ServingError):
    """Redis does not answer; trying again may help."""


class StoreRefused(ServingError):
    """Redis answers and refuses the user or the command: wrong password, out of memory, no permission, read-only."""


class EvictionRefused(StoreRefused):
    """The eviction policy of this Redis could drop blocks of a live generation."""


class Unforeseen(ServingError):
    """A fault of the service itself, while it answered."""


class GenerationLive(ServingError):
    """The generation to remove is the one that the head names."""


class TornGeneration(ServingError):
    """A block of a generation is missing: the generation was removed, or never written in full."""


class LookupRefused(ServingError):
    """A lookup that cannot be answered with a score."""


class UnknownPipeline(LookupRefused):
    """No generation of this pipeline is live."""


class UnknownKey(LookupRefused):
    """The live generation does not have the key, and the pipeline declares no fallback."""


class AnswerTooOld(LookupRefused):
    """What is known of the key is older than the caller takes, and the pipeline declares no fallback."""


class KeyRefused(LookupRefused):
    """The key is empty or too long."""


class TooManyKeys(LookupRefused):
    """More keys in one request than the pipeline allows."""


class KeyLineRefused(ServingError):
    """A name or a pipeline that no API key can have."""


class CallerRefused(ServingError):
    """Who asks may not have the answer."""


class CallerUnknown(CallerRefused):
    """The request has no API key, or one that the service does not know."""


class PipelineForbidden(CallerRefused):
    """The API key is known, and may not read this pipeline."""


class ServiceError(ServingError):
    """The lookup service answered with a problem document.

    `status` is the HTTP status (0 where nothing answered), `code` the last part of the problem's type; the client's own
    codes are `http` and `unreadable-answer` (what answered is not the service), `unreachable` and `timeout`.
    """

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class ServiceUnreachable(ServiceError):
    """The lookup service does not answer."""
