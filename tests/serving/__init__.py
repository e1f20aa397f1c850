"""Tests of the Redis contract, the store, the lookup service and its client."""
