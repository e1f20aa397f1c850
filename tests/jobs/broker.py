"""A real Kafka of one node, made for the tests, with a second listener that asks for a password."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pyspark.sql import SparkSession

from infra.setup import jars, programs
from infra.setup.__main__ import alone
from infra.setup.packages import spark_home
from tests.conftest import ROOT, await_port, free_port, stop

JAVA = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
SASL = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "PLAIN",
    "sasl.jaas.config": f'{LOGIN} username="loader" password="of tests";',
}
# Where nobody answers, clients say so soon.
SOON = {"request.timeout.ms": "1000", "default.api.timeout.ms": "1500"}
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{asking},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
listener.name.sasl_plaintext.sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config={login} user_loader="of tests";
log.dirs={folder}/log
log.cleaner.dedupe.buffer.size=2000000
offsets.topic.replication.factor=1
auto.create.topics.enable=false
"""


@dataclass
class Broker:
    """A Kafka that listens on `port`, and on `asking` for those who have a password."""

    spark: SparkSession
    folder: Path
    port: int
    asking: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the settings say of it."""
        return {"kafka": f"127.0.0.1:{self.port}", "kafka_options": secret(SOON)}

    @property
    def asking_settings(self) -> dict[str, Any]:
        """What the settings say of its listener that asks for a password."""
        return {"kafka": f"127.0.0.1:{self.asking}", "kafka_options": secret(SOON | SASL)}

    def start(self) -> None:
        self.process = subprocess.Popen(_java("kafka.Kafka", str(self.folder / "server.properties")))
        await_port(self.port, 120)

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)
        self.process = None

    def made(self, topic: str, partitions: int = 1) -> str:
        """Make a topic, and return its name."""
        new = self._java.org.apache.kafka.clients.admin.NewTopic(topic, partitions, 1)
        with self._admin() as admin:
            admin.createTopics(self._java.java.util.List.of(new)).all().get()
        return topic

    def remove(self, topic: str) -> None:
        with self._admin() as admin:
            admin.deleteTopics(self._java.java.util.List.of(topic)).all().get()

    def remove_messages(self, topic: str, before: int) -> None:
        """Have the topic's one partition forget what is before an offset, as it does with old messages."""
        partition = self._java.org.apache.kafka.common.TopicPartition(topic, 0)
        # Kafka has a field of this name too, behind which py4j does not see the method.
        kind = self._java.java.lang.Class.forName("org.apache.kafka.clients.admin.RecordsToDelete")
        gateway: Any = self.spark.sparkContext._gateway
        kinds, given = gateway.new_array(self._java.Class, 1), gateway.new_array(self._java.Object, 1)
        kinds[0], given[0] = self._java.java.lang.Long.TYPE, before
        records = kind.getMethod("beforeOffset", kinds).invoke(None, given)
        with self._admin() as admin:
            admin.deleteRecords(self._java.java.util.Map.of(partition, records)).all().get()

    def send(self, topic: str, *values: str | bytes | None) -> None:
        """Produce messages, in their order."""
        rows = [(value.encode() if isinstance(value, str) else value,) for value in values]
        frame = self.spark.createDataFrame(rows, "value binary").coalesce(1)
        to = frame.write.format("kafka").option("kafka.bootstrap.servers", f"127.0.0.1:{self.port}")
        to.option("topic", topic).save()

    @property
    def _java(self) -> Any:
        return self.spark._jvm

    @contextmanager
    def _admin(self) -> Iterator[Any]:
        given = self._java.java.util.Map.of("bootstrap.servers", f"127.0.0.1:{self.port}")
        admin = self._java.org.apache.kafka.clients.admin.Admin.create(given)
        try:
            yield admin
        finally:
            admin.close()


@contextmanager
def running(spark: SparkSession, folder: Path) -> Iterator[Broker]:
    """Run a broker until the block ends; its jars are fetched the first time."""
    with alone(ROOT / "var/setup.lock"):
        jars.install(ROOT, programs.java(), jars.BROKER)
    broker = Broker(spark, folder, free_port(), free_port())
    text = PROPERTIES.format(folder=folder, port=broker.port, asking=broker.asking, controller=free_port(), login=LOGIN)
    (folder / "server.properties").write_text(text)
    made = ["format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", str(folder / "server.properties")]
    subprocess.run(_java("kafka.tools.StorageTool", *made), check=True, stdout=subprocess.DEVNULL)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def secret(options: dict[str, str]) -> dict[str, SecretStr]:
    return {name: SecretStr(value) for name, value in options.items()}


def _java(*words: str) -> list[str]:
    path = f"{ROOT / 'var' / jars.BROKER.folder}/*:{spark_home(ROOT)}/jars/*"
    return [str(programs.java()), *JAVA, "-cp", path, *words]
