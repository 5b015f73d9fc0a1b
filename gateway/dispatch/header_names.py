"""Names of headers as receivers tell them apart: many (CGI, WSGI and what is built on them) take `_` for `-`, so a name
that is the gateway's own is so in each spelling."""

from collections.abc import Iterable
from itertools import product


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
