"""What other DAGs may be scheduled on: the assets of a pipeline."""

from airflow.sdk import Asset


def scores_asset(pipeline: str) -> Asset:
    """Return the asset that a new partition of the scores table updates."""
    return Asset(name=f"{pipeline}.scores", uri=f"x-scoreline://scores/{pipeline}")


def publication_asset(pipeline: str) -> Asset:
    """Return the asset that a publication to Redis, or a verdict "history only", updates."""
    return Asset(name=f"{pipeline}.publication", uri=f"x-scoreline://publications/{pipeline}")
