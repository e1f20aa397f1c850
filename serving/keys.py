"""The names of all keys in Redis; what stands in braces decides the slot in a cluster."""

PIPELINES = "scoreline:pipelines"
PIPELINE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"


def head_key(pipeline: str) -> str:
    """Return the key of the record that names the live generation."""
    return f"scoreline:{{{pipeline}}}:head"


def claim_key(pipeline: str) -> str:
    """Return the key of the token that may go live: that of the newest publisher, in the slot of the head."""
    return f"scoreline:{{{pipeline}}}:claim"


def removed_key(pipeline: str, token: int) -> str:
    """Return the key that says that a generation is being removed, in the slot of the head."""
    return f"scoreline:{{{pipeline}}}:removed:{token}"


def refusals_key(pipeline: str) -> str:
    """Return the key of the hash that says, by date, why the scores as of that date did not go live."""
    return f"scoreline:{{{pipeline}}}:refusals"


def stream_key(pipeline: str) -> str:
    """Return the key of what the pipeline's stream last said of itself."""
    return f"scoreline:{{{pipeline}}}:stream"


def stream_wish_key(pipeline: str) -> str:
    """Return the key that says, while it is there, that the pipeline's stream is to stand still."""
    return f"scoreline:{{{pipeline}}}:stream:stop"


def block_key(pipeline: str, token: int, bucket: int) -> str:
    """Return the key of one block of the generation `token`."""
    before, after = around_bucket(pipeline, token)
    return f"{before}{bucket}{after}"


def around_bucket(pipeline: str, token: int) -> tuple[str, str]:
    """Return what stands before the bucket and behind it in the keys of the blocks of the generation `token`."""
    return f"scoreline:{{{pipeline}:", f"}}:{token}"


def overlay_key(pipeline: str, epoch: int, bucket: int) -> str:
    """Return the key of one bucket of the overlay of an epoch, a hash by entity key."""
    return f"scoreline:{{{pipeline}:{bucket}}}:overlay:{epoch}"
