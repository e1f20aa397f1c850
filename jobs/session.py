"""The Spark session of every job: what must hold everywhere; the rest is the cluster's own configuration."""

import logging

from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

# These decide what a query means (time zone, overflow and division by zero, the scale of a quotient, parameters), so no
# cluster's configuration may change them.
MEANING = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.decimalOperations.allowPrecisionLoss": "true",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # Without it Delta's extension leaves named parameters unbound (UNBOUND_SQL_PARAMETER).
    "spark.sql.legacy.parameterSubstitution.constantsOnly": "true",
}
# Where PySpark logs a fault of SQL, with a hundred lines of Java, as it raises it.
SAID_TWICE = ("SQLQueryContextLogger", "DataFrameQueryContextLogger")


def spark_session(name: str) -> SparkSession:
    """Return the session of this process, made from the cluster's `spark-defaults.conf` and what jobs rely on.

    The embedded default writes its `spark-defaults.conf` (jars, memory, JVM options) at set-up and names its folder in
    `SPARK_CONF_DIR`.
    """
    builder = SparkSession.builder.appName(f"scoreline {name}")
    for key, value in MEANING.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("WARN")
    for each in SAID_TWICE:
        PySparkLogger.getLogger(each).setLevel(logging.CRITICAL)
    return session
