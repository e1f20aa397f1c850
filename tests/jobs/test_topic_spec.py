"""What YAML and settings may say of a topic."""

import shutil

import pytest

from jobs.errors import DataFault, ScorelineError, SpecError
from jobs.spec import settings as job_settings
from jobs.stream.topic import begin_again
from tests.jobs.populations import NAME, streaming
from tests.project import Project


def test_a_pipeline_without_a_topic_has_none_to_read_again(project: Project) -> None:
    with pytest.raises(DataFault, match="declares no topic"):
        begin_again(project.lake, project.pipeline())


@pytest.mark.parametrize("said", ["{oops", '"a word"', "[1]"])
def test_options_that_are_no_json_object_are_refused_unseen(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORELINE_KAFKA_OPTIONS", said)
    job_settings.cache_clear()
    with pytest.raises(ScorelineError, match="SCORELINE_KAFKA_OPTIONS") as refused:
        job_settings()
    assert said not in str(refused.value)


def test_the_addresses_have_a_variable_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORELINE_KAFKA_OPTIONS", '{"bootstrap.servers": "elsewhere:9092"}')
    job_settings.cache_clear()
    with pytest.raises(ScorelineError, match="SCORELINE_KAFKA"):
        job_settings()


@pytest.mark.parametrize("name", ["two words", "..", "'#'", "x" * 250])
def test_a_topic_has_a_name_that_kafka_takes(project: Project, name: str) -> None:
    with pytest.raises(SpecError, match="is not a topic's name"):
        streaming(project, f"stream: {{kafka: {{topic: {name}}}}}").pipeline()


def test_two_pipelines_do_not_load_the_same_table(project: Project) -> None:
    declared = streaming(project, "stream: {kafka: {topic: sales}}")
    yaml = declared.settings.pipelines / f"{NAME}.yaml"
    text = yaml.read_text().replace(f"name: {NAME}", "name: other", 1)
    yaml.with_name("other.yaml").write_text(text)
    suites = declared.settings.suites
    shutil.copytree(suites / NAME, suites / "other")
    with pytest.raises(SpecError, match="fills the same table"):
        declared.pipeline()
    yaml.with_name("other.yaml").write_text(text.replace("stream:", "#"))
    assert declared.pipeline().topic
