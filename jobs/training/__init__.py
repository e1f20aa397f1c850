"""Training: a point-in-time set, a calibrated champion against two baselines, a report, and the registry."""

from jobs.training.job import has_champion, train

__all__ = ["has_champion", "train"]
