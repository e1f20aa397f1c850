"""Spark programs: ingest, train, score, publish, and what they share."""
