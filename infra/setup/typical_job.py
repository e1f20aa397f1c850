"""A small Spark job that does what the jobs do, so that the classes they need are loaded; run by `archive`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

TABLE = (
    "CREATE TABLE delta.`{path}` (day DATE, key STRING, n BIGINT, amount DECIMAL(10,2), since TIMESTAMP) USING delta"
)
WINDOWED = """
    SELECT key, count(*) AS rows, sum(amount) AS total, max(datediff(DATE'2024-01-03', day)) AS days,
        percentile(CAST(n AS DOUBLE), 0.5) AS middle, avg(gap) AS gap, sha2(key, 256) AS digest, xxhash64(key) AS hash
    FROM (SELECT *, n - lag(n) OVER (PARTITION BY key ORDER BY since, n) AS gap FROM rows) GROUP BY key
"""


def main(folder: Path) -> None:
    """Read CSV, write Delta tables in both ways, compute with windows and joins, and pass rows through Python."""
    spark = (
        SparkSession.builder.config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .getOrCreate()
    )
    table = str(folder / "table")
    spark.sql(TABLE.format(path=table))
    rows = delivered(spark, folder)
    rows.write.format("delta").mode("append").option("txnAppId", "a").option("txnVersion", 1).save(table)
    rows.write.format("delta").mode("overwrite").option("replaceWhere", "day = '2024-01-01'").save(table)
    known = spark.read.format("delta").load(table).where("n <= 9")
    known.createOrReplaceTempView("rows")
    staged = folder / "staged"
    spark.sql(WINDOWED).write.parquet(str(staged))
    seen = spark.read.parquet(str(staged))
    joined = seen.alias("a").join(seen.alias("b"), "key", "full").groupBy("key").count()
    print(joined.collect(), seen.mapInArrow(passed, seen.schema).agg({"rows": "sum"}).collect())
    print(seen.repartitionById(2, seen.rows.cast("int") % 2).sortWithinPartitions("hash").exceptAll(seen).isEmpty())
    spark.stop()


def delivered(spark: SparkSession, folder: Path) -> DataFrame:
    """Return some rows of a CSV file, typed."""
    path = folder / "rows.csv"
    path.write_text("key,n,amount\n" + "".join(f"{number % 7},{number},{number}.50\n" for number in range(100)))
    text = spark.read.option("header", value=True).schema("key STRING, n STRING, amount STRING").csv(str(path))
    return text.selectExpr(
        "DATE'2024-01-01' AS day", "key", "try_cast(n AS BIGINT) AS n", "try_cast(amount AS DECIMAL(10,2)) AS amount",
        "TIMESTAMP'2024-01-01 00:00:00' + make_interval(0, 0, 0, 0, 0, 0, n) AS since",
    )  # fmt: skip


def passed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Pass the rows on as they are."""
    yield from batches


if __name__ == "__main__":
    main(Path(sys.argv[1]))
