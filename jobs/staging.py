"""From delivered text to typed rows: pure transforms in which a cell that is not of its type leaves a word."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, StringType, StructField, StructType, TimestampType

from jobs.landing import LandingFile
from jobs.spec import Source

DELIVERY = ("day", "source_file", "file_digest")
# What readers leave: what is wrong with a row as a whole, or NULL; and an id of it, where upstream gives none.
_SHAPE, _ID = "_shape", "_id"
_CORRUPT, _JSON = "_corrupt", "_json"
# An event that is up to a day ahead of its message is taken: by then the file of its day would have been, too.
AHEAD = timedelta(days=1)
# Spark's casts also take '1998', '19980601' and '1998-6-1': as dates upstream never wrote, they are refused.
_ISO = {
    "date": r"^\d{4}-\d{2}-\d{2}$",
    "timestamp": r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?$",
}
_FILES = StructType(
    [
        StructField("uri", StringType(), nullable=False),
        StructField("source_file", StringType(), nullable=False),
        StructField("file_digest", StringType(), nullable=False),
        StructField("day", DateType(), nullable=False),
        StructField("delivered_at", TimestampType(), nullable=False),
    ]
)


def read_rows(spark: SparkSession, source: Source, files: Sequence[LandingFile]) -> DataFrame:
    """Return the files' rows as text: the declared columns, what is wrong, and which file each row is from."""
    text = StructType([StructField(name, StringType()) for name in (*source.columns, _CORRUPT)])
    reader = spark.read.schema(text).option("header", value=True).option("columnNameOfCorruptRecord", _CORRUPT)
    rows = reader.csv([file.path for file in files]).withColumn("uri", _plain_uri(F.col("_metadata.file_path")))
    known = [(_without_slashes(file.uri), file.name, file.digest, file.day, delivered_at(file)) for file in files]
    found = rows.join(F.broadcast(spark.createDataFrame(known, _FILES)), "uri").drop("uri")
    shape = F.when(F.col(_CORRUPT).isNotNull(), F.lit(f"the row does not have {len(source.columns)} values"))
    raw = F.coalesce(_CORRUPT, F.to_json(F.struct(*source.columns)))
    return _numbered(found.withColumn("raw", raw).withColumn(_SHAPE, shape).drop(_CORRUPT))


def read_messages(messages: DataFrame, source: Source, now: datetime) -> DataFrame:
    """Return the messages of a topic as text, as `read_rows` does: the declared fields of the JSON object in each.

    A field that is missing is at fault, and so is a number for a string: its leading zeros are lost. A message is a
    file of its own, named by topic, partition and offset; a topic that is made anew has these again, not their time.
    """
    text, place = F.col("value").cast("string"), F.concat_ws("/", "topic", "partition", "offset")
    known = messages.select(
        F.make_valid_utf8(text).alias("raw"),
        F.when(~F.is_valid_utf8(text), F.lit("it is not UTF-8")).alias(_SHAPE),
        F.concat_ws("/", place, F.unix_millis("timestamp")).alias(_ID),
        F.concat(F.lit("kafka:"), place).alias("source_file"),
        F.sha2("value", 256).alias("file_digest"),
        F.lit(now.date()).alias("day"),
        F.lit(now + AHEAD).alias("delivered_at"),
    )
    # In brackets, because what follows a first JSON value is passed over without a word.
    parsed = known.withColumn(_JSON, F.try_parse_json(F.concat(F.lit("["), "raw", F.lit("]"))))
    fields = [F.try_variant_get(_JSON, f"$[0].{name}", "string").alias(name) for name in source.columns]
    return parsed.select("*", *fields).withColumn(_SHAPE, _shape_of_message(source)).drop(_JSON)


def _shape_of_message(source: Source) -> Column:
    whole = F.expr(f"schema_of_variant(try_variant_get({_JSON}, '$[0]', 'variant')) LIKE 'OBJECT<%'")
    alone = F.try_variant_get(_JSON, "$[1]", "variant").isNull()
    words = [_shape_of_field(name, kind) for name, kind in source.columns.items()]
    is_object = F.coalesce(whole & alone, F.lit(False))  # noqa: FBT003  reason: SQL's false
    told = F.when(is_object, F.concat_ws("; ", *words)).otherwise("it is not one JSON object")
    text = F.concat_ws("; ", _SHAPE, told)
    return F.when(text != "", text)


def _shape_of_field(name: str, kind: str) -> Column:
    field = F.try_variant_get(_JSON, f"$[0].{name}", "variant")
    found = F.when(field.isNull(), F.lit(f"{name}: it is missing"))
    if kind != "string":
        return found
    is_text = F.schema_of_variant(field).isin("STRING", "VOID")
    return found.when(~is_text, F.concat(F.lit(f"{name}: "), F.substring(name, 1, 40), F.lit(" is not in quotes")))


def delivered_at(file: LandingFile) -> datetime:
    """Return when an interval's file counts as delivered: at the interval's end, whenever our job ran."""
    return datetime.combine(file.day + timedelta(days=1), time(), UTC)


def staged(rows: DataFrame, source: Source, key: str) -> DataFrame:
    """Return typed rows: identity, declared columns, delivery, `parse_fault` (null if fine) and `raw` (JSON).

    A row without the entity key `key` or without a time could never be in a feature: it is at fault.
    """
    typed = rows.select(
        *[_typed(name, kind).alias(f"typed_{name}") for name, kind in source.columns.items()],
        *[_fault(name, kind).alias(f"fault_{name}") for name, kind in source.columns.items()],
        *source.columns, "raw", "delivered_at", *DELIVERY, _SHAPE, _ID,
    )  # fmt: skip
    timed = typed.withColumn("arrived_at", _time(source.arrived_at, F.col("delivered_at")))
    if source.kind == "dimension":
        return _finished(timed.withColumn("valid_from", F.col("arrived_at")), source, ("valid_from",), key)
    happened = timed.withColumn("event_time", _time(source.event_time, F.lit(None).cast("timestamp")))
    own = F.col(_ID) if source.event_id is None else F.col(f"typed_{source.event_id}").cast("string")
    return _finished(happened.withColumn("event_id", own), source, ("event_id", "event_time", "arrived_at"), key)


def _numbered(rows: DataFrame) -> DataFrame:
    """Add an id: a digest of the file's bytes, the row, and which of its equals in the file it is.

    Equal rows of a file are different events, and as they are equal it does not matter which of them is called first.
    """
    numbered = rows.withColumn("n", F.expr("row_number() OVER (PARTITION BY source_file, raw ORDER BY raw)"))
    return numbered.withColumn(_ID, F.sha2(F.concat_ws("\x1f", "file_digest", "raw", "n"), 256)).drop("n")


def _finished(rows: DataFrame, source: Source, first: tuple[str, ...], key: str) -> DataFrame:
    own = [F.col(f"typed_{name}").alias(name) for name in source.columns if name not in first]
    return rows.select(*first, *own, *DELIVERY, _faults(source, key).alias("parse_fault"), "raw")


def _faults(source: Source, key: str) -> Column:
    said = [F.col(f"fault_{name}") for name in source.columns]
    needed = dict.fromkeys(name for name in (key, source.event_time, source.arrived_at, source.event_id) if name)
    empty = [F.when(F.coalesce(F.trim(name), F.lit("")) == "", F.lit(f"{name}: it is empty")) for name in needed]
    words = [F.col(_SHAPE), *said, *empty]
    if source.kind == "events":
        words.append(F.when(F.expr("event_time > arrived_at"), F.lit(f"{source.event_time}: it is after the delivery")))
    text = F.concat_ws("; ", *words)
    return F.when(text != "", text)


def _typed(name: str, kind: str) -> Column:
    trimmed = F.trim(F.col(name))
    value = F.col(name) if kind == "string" else trimmed.try_cast(kind)
    if kind in _ISO:
        return F.when(trimmed.rlike(_ISO[kind]), value)
    if kind in ("float", "double"):
        return F.when(~F.isnan(value) & (F.abs(value) != float("inf")), value)
    if kind.startswith("decimal"):
        # A cast rounds 11.777 to 11.78 without a word; the row says that it can't be held.
        return F.when(value == trimmed.try_cast("decimal(38,18)"), value)
    return value


def _fault(name: str, kind: str) -> Column:
    broken = F.col(name).isNotNull() & _typed(name, kind).isNull()
    return F.when(broken, F.concat(F.lit(f"{name}: '"), F.substring(name, 1, 40), F.lit(f"' is not {kind}")))


def _time(column: str | None, otherwise: Column) -> Column:
    return otherwise if column is None else F.col(f"typed_{column}").cast("timestamp")


def _plain_uri(uri: Column) -> Column:
    return F.regexp_replace(uri, "^file:/+", "file:/")


def _without_slashes(uri: str) -> str:
    return "file:/" + uri.removeprefix("file:").lstrip("/") if uri.startswith("file:") else uri
