"""Feast's own materialization, in a process that is warm; its last line has the seconds."""

import sys
import time
from datetime import UTC, datetime, timedelta

from feast import FeatureStore

store = FeatureStore(".")
now = datetime.now(UTC)
store.materialize(now - timedelta(days=2), now - timedelta(hours=12))  # a few scores: what it imports is there now
start = time.monotonic()
store.materialize(now - timedelta(hours=12), now)
sys.stdout.write(f"{time.monotonic() - start}\n")
