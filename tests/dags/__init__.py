"""Tests of the DAGs, with a real Airflow."""
