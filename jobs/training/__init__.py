"""Training: a point-in-time set, a calibrated champion against two baselines, a report, and the registry."""

from jobs.training.job import first_training_as_of, has_champion, train

__all__ = ["first_training_as_of", "has_champion", "train"]
