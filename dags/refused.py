"""No DAG, but the import error that Airflow shows while a pipeline is declared wrongly.

It is a file of its own because Airflow drops all DAGs of a file that has an error, the right ones too.
"""

from dags.build import build_all
from jobs.errors import SpecError
from jobs.spec import settings

if refused := build_all(settings().pipelines)[1]:
    raise SpecError("\n".join(refused))
