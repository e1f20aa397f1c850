"""The names of all keys in Redis; what stands in braces decides the slot in a cluster."""

PIPELINES = "scoreline:pipelines"
PIPELINE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"


def head_key(pipeline: str) -> str:
    """Return the key of the record that names the live generation."""
    return f"scoreline:{{{pipeline}}}:head"


def block_key(pipeline: str, token: int, bucket: int) -> str:
    """Return the key of one block of the generation `token`."""
    return f"scoreline:{{{pipeline}:{bucket}}}:{token}"
