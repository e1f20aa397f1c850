"""Airflow DAGs: one a pipeline, made from the YAML files in `pipelines/`."""
