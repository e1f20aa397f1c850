"""The DAGs that Airflow finds: one for each pipeline that is declared rightly; `refused.py` tells of the others."""

from dags.build import build_all
from jobs.spec import settings

globals().update(build_all(settings().pipelines)[0])
