"""Names of headers as receivers tell them apart: many (CGI, WSGI and what is built on them) take `_` for `-`, so a name
that is the gateway's own is so in each spelling."""

from collections.abc import Iterable
from itertools import product
from typing import Final


def spellings(names: Iterable[str]) -> frozenset[str]:
    """The names, lower-case, with each `-` as it is and as `_`.

    >>> sorted(spellings({"x-attempt", "host"}))
    ['host', 'x-attempt', 'x_attempt']
    """
    found = set()
    for name in names:
        first, *rest = name.split("-")
        found |= {
            first + "".join(mark + part for mark, part in zip(marks, rest, strict=True))
            for marks in product("-_", repeat=len(rest))
        }
    return frozenset(found)


# What describes the connection and the framing of a call is the sender's alone (RFC 9110, 7.6.1): a task that has one
# of these is refused when it is enqueued, and not sent where it was stored all the same.
CONNECTION_HEADERS: Final = spellings(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
