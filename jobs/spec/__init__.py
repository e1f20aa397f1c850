"""A pipeline's declaration and the settings: light enough to be read wherever a DAG is parsed."""

from jobs.spec.pipeline import Fallback, Pipeline, Publication, Source
from jobs.spec.settings import Settings, settings
from jobs.spec.source import load_pipeline, load_pipelines, missing_files, pipeline_files, read_pipeline

__all__ = [
    "Fallback",
    "Pipeline",
    "Publication",
    "Settings",
    "Source",
    "load_pipeline",
    "load_pipelines",
    "missing_files",
    "pipeline_files",
    "read_pipeline",
    "settings",
]
