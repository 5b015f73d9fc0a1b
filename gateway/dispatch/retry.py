"""When a failed attempt is made again: pure policy, no clock and no I/O of its own.

Lives here: the back-off and the reading of `Retry-After`. Not here: whether a retry is left (`dispatcher`),
storing it (`store`).
"""

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from random import Random

BASE_SECONDS = 1.0
CAP_SECONDS = 600.0
RETRY_AFTER_CAP_SECONDS = 86_400.0
_SECONDS = re.compile(r"[0-9]+", re.ASCII)


def retry_delay(failures: int, retry_after: float | None, random: Random) -> float:
    """Seconds until the next attempt, after ``failures`` failed ones (the one that just failed included, so
    at least 1).

    Exponential back-off with full jitter: uniform between 0 and min(600, 2^(failures - 1)) s, from the AWS
    Architecture Blog, "Exponential Backoff And Jitter". ``retry_after``, the seconds the target asked for,
    only ever moves it later.

    >>> class Most(Random):
    ...     def uniform(self, a, b):
    ...         return b
    >>> [retry_delay(n, None, Most()) for n in (1, 2, 3, 10, 11, 5000)]
    [1.0, 2.0, 4.0, 512.0, 600.0, 600.0]
    >>> retry_delay(1, 30.0, Most())
    30.0
    >>> retry_delay(11, 30.0, Most())
    600.0
    """
    # The exponent is bounded before the power is taken: 2.0 ** 5000 overflows.
    ceiling = min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(max(failures, 1) - 1, 32))
    return max(random.uniform(0.0, ceiling), retry_after or 0.0)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds a `Retry-After` header asks to wait (RFC 9110, 10.2.3), or None where it is absent or
    unreadable.

    ``now`` is wall time in Unix seconds, for the HTTP-date form. Never negative, at most a day: a target
    must not be able to park a task for ever.

    >>> parse_retry_after("120", 0)
    120.0
    >>> parse_retry_after("Fri, 31 Dec 1999 23:59:59 GMT", 946684769.0)
    30.0
    >>> parse_retry_after("9" * 5000, 0)
    86400.0
    >>> parse_retry_after("soon", 0) is None
    True
    """
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        # Longer than any sensible number: int() refuses thousands of digits.
        return min(float(value), RETRY_AFTER_CAP_SECONDS) if len(value) < 16 else RETRY_AFTER_CAP_SECONDS
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_CAP_SECONDS) if math.isfinite(seconds) else None
