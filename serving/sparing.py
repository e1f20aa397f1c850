"""A log that a flood of equal faults neither slows the service with nor fills."""

import logging
from collections import Counter
from math import inf
from time import monotonic

INTERVAL_SECONDS = 5.0


class SparingLog:
    """Writes one warning of a kind in each interval, and with the next one how many it kept back."""

    def __init__(self, log: logging.Logger, seconds: float = INTERVAL_SECONDS) -> None:
        self._log = log
        self._seconds = seconds
        self._quiet_until: dict[str, float] = {}
        self._kept_back: Counter[str] = Counter()

    def tell(self, kind: str, message: object, request_id: str = "", fault: BaseException | None = None) -> None:
        """Log `kind: message`, or count it where one of its kind was logged a moment ago.

        `request_id` is of the request that met it, if one did; where a fault came from is shown with it.
        """
        now = monotonic()
        if now < self._quiet_until.get(kind, -inf):
            self._kept_back[kind] += 1
            return
        self._quiet_until[kind] = now + self._seconds
        kept = self._kept_back.pop(kind, 0)
        more = f" ({kept} more since the last such line)" if kept else ""
        extra = {"request_id": request_id} if request_id else None
        self._log.warning("%s: %s%s", kind, message, more, exc_info=fault, extra=extra)
