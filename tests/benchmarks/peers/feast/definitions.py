"""One score a customer, as Feast's users declare it."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float32

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
offline = FileSource(path="scores.parquet", timestamp_field="event_timestamp")
scores = FeatureView(
    name="scores",
    entities=[customer],
    ttl=timedelta(days=365),
    schema=[Field(name="score", dtype=Float32)],
    source=offline,
)
