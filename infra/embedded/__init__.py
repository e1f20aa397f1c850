"""The embedded default: Redis, MLflow, Airflow and the lookup service as processes of one machine."""
