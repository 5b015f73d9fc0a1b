"""What Redis refuses for a reason that passes or that an operator can mend, as the 503 its caller gets."""

from typing import Final

from redis.exceptions import AuthenticationError, NoPermissionError

from gateway.errors import StoreUnavailable
from gateway.store.link import CommandError

_MOVING: Final = "The Redis Cluster is moving this client's data."

PASSING: Final = {
    "LOADING": "Redis is loading its data.",
    "OOM": "Redis is out of memory.",
    "MISCONF": "Redis can't persist and refuses writes.",
    "READONLY": "This Redis is a replica and refuses writes.",
    "MASTERDOWN": "This replica has lost its primary.",
    "CLUSTERDOWN": "The Redis Cluster is down.",
    "TRYAGAIN": _MOVING,
    "ASK": _MOVING,
    "MOVED": _MOVING,
    "BUSY": "Redis is busy with a script.",
    "NOREPLICAS": "Too few Redis replicas are connected.",
    "NOAUTH": "Redis wants a password: set REDIS_PASSWORD or REDIS_URL.",
    "WRONGPASS": "Redis refuses the password: check REDIS_PASSWORD or REDIS_URL.",
    "NOPERM": "The Redis user lacks a permission the gateway needs.",
}
# How a server's refusal of our certificate shows: in TLS 1.3 it comes after the handshake, and the alert may be lost.
_ENDED: Final = ("ALERT", "closed by server", "reset by peer", "Broken pipe")


def unavailable(error: CommandError) -> StoreUnavailable | None:
    """The 503 for an error reply that passes, None for one that is a defect."""
    text = str(error)
    for code, message in PASSING.items():
        if error.code == code or f" {code} " in f" {text} " or text.startswith(f"-{code}"):
            return StoreUnavailable(message)
    return None


def advice(error: BaseException, *, tls: bool) -> str | None:
    """What to mend where a connection can't be set up as the settings say, None where nobody answers."""
    text = str(error)
    if isinstance(error, AuthenticationError):
        return PASSING["NOAUTH" if "required" in text else "WRONGPASS"]
    if isinstance(error, NoPermissionError):
        return PASSING["NOPERM"]
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "Redis's certificate can't be verified: check the host in REDIS_URL, and REDIS_TLS_CA for its CA."
    if tls and any(sign in text for sign in _ENDED):
        return (
            "Redis ended the TLS connection: where it wants a certificate, set REDIS_TLS_CERT and REDIS_TLS_KEY to one "
            "that its CA has signed."
        )
    return None
