"""Backfills: the dates of a range, many in one pass over the tables."""
