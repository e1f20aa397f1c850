"""A pipeline's declaration and the settings: light enough to be read wherever a DAG is parsed."""

from jobs.spec.pipeline import Pipeline, Source
from jobs.spec.publication import Fallback, Publication, Rails
from jobs.spec.settings import Settings, settings
from jobs.spec.source import load_pipeline, load_pipelines, missing_files, pipeline_files, read_pipeline

__all__ = [
    "Fallback",
    "Pipeline",
    "Publication",
    "Rails",
    "Settings",
    "Source",
    "load_pipeline",
    "load_pipelines",
    "missing_files",
    "pipeline_files",
    "read_pipeline",
    "settings",
]
