"""The errors that become an HTTP answer. Everything below the HTTP layer raises these and nothing of aiohttp."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any


def nearest(name: str, known: Collection[str]) -> str:
    """What to say of a name that is not one of those that are known."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


class GatewayError(Exception):
    """An answer other than the one asked for.

    ``error`` is the short stable text scripts match, ``message`` says what is wrong and what would be right,
    ``extra`` are further members of the JSON body, ``headers`` go on the response.
    """

    status = 500
    error = "Internal error"

    def __init__(
        self,
        message: str,
        *,
        error: str | None = None,
        status: int | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.status if status is None else status
        self.error = self.error if error is None else error
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return {"error": self.error, "message": self.message, **self.extra}


class InvalidBody(GatewayError):
    """400: the message names the field by its JSON path, or the query parameter."""

    status = 400
    error = "Invalid body"


class ClientRefused(GatewayError):
    """401 for a caller of ``/v1``: ``reason`` is the stable part of ``Client validation failed: …``."""

    status = 401

    def __init__(self, reason: str, message: str, **kwargs: Any) -> None:
        super().__init__(message, error=f"Client validation failed: {reason}", **kwargs)


class Unauthorized(GatewayError):
    """401 for a caller of ``/admin`` without the right key."""

    status = 401
    error = "Unauthorized"


class Forbidden(GatewayError):
    """403: the address (admin), or the queue (clients)."""

    status = 403
    error = "Forbidden"


class TargetNotAllowed(GatewayError):
    """400, by its client's list 403: the egress rule refuses a task's target by its URL. ``kind`` is for metrics."""

    status = 400
    error = "Invalid body"

    def __init__(self, message: str, kind: str, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.kind = kind


class NotSigned(GatewayError):
    """A call that is to be signed can't be, so it must not be made. ``reason`` is short and stable, for the attempt."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotFound(GatewayError):
    """404."""

    status = 404
    error = "Not found"


class Conflict(GatewayError):
    """409."""

    status = 409
    error = "Conflict"


class TooManyRequests(GatewayError):
    """429: the rate limit, or the depth of the queue. Always with ``Retry-After``."""

    status = 429
    error = "Rate limit exceeded"


class ServiceUnavailable(GatewayError):
    """503: Redis is out of reach, full, or refuses writes. Carries ``Retry-After``."""

    status = 503
    error = "Service unavailable"

    def __init__(self, message: str, *, retry_after: int = 1, **kwargs: Any) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)}, **kwargs)


class StoreUnavailable(ServiceUnavailable):
    """Redis did not do it, or nobody knows whether it did (``unknown``: the command was sent, no reply came)."""

    def __init__(self, message: str, *, unknown: bool = False, retry_after: int = 1) -> None:
        super().__init__(message, retry_after=retry_after)
        self.unknown = unknown
