"""What every answer tells a browser: to take it for what it says it is, to show it in no frame, to keep no copy, to
tell no other page where it was. A page of the gateway has its own policy, which says what it may load. And what every
answer tells of who answers: its name, not what it is built of and in which versions."""

from typing import Final

from aiohttp import hdrs, web
from multidict import CIMultiDict, istr

SERVER: Final = "task-dispatch-gateway"
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    hdrs.CACHE_CONTROL: "no-store",
    hdrs.SERVER: SERVER,
}
_ALL: Final = CIMultiDict((istr(name), value) for name, value in HEADERS.items())


def harden(headers: CIMultiDict[str]) -> None:
    """Add those that are not there; aiohttp's own `Server` is not wanted."""
    headers.merge(_ALL)  # a third of the time that one after the other takes, on every answer
    headers[hdrs.SERVER] = SERVER


async def security_headers(_: web.Request, response: web.StreamResponse) -> None:
    """A signal and no middleware, since it also reaches answers that are sent piece by piece."""
    harden(response.headers)
