"""What can go wrong in the embedded runtime.

EmbeddedError
├── ServiceFailed   a service did not start or died
├── SchedulerFault  Airflow refused something, or a run failed
└── DemoFault       a step of the demo failed
"""


class EmbeddedError(Exception):
    """The runtime stops here; the message names the thing, the reason and where to look."""


class ServiceFailed(EmbeddedError):
    """A service did not start or died."""


class SchedulerFault(EmbeddedError):
    """Airflow refused something, or a run of it failed."""


class DemoFault(EmbeddedError):
    """A step of the demo failed."""
