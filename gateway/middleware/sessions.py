"""Sessions of the dashboard: a signed cookie that stands for an admin key, so that the browser does not keep the key.

What signs a cookie is derived from the key that it stands for: a key that is replaced ends its sessions, and every
replica can tell a session without asking another. Only that a session was left before its time is kept in Redis.
"""

from collections.abc import Callable
from secrets import token_hex
from time import time
from typing import Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import hdrs, web

from gateway.errors import Forbidden
from gateway.keys import AppKeys, RequestKeys
from gateway.middleware.session_cookie import Session, sign, unsign

COOKIE: Final = "gateway_session"
# A form or a link of another page can't send it, and a script of another origin must ask first and is not let.
MARK: Final = "X-Requested-With"
_RENEW_SECONDS: Final = 300
_SAFE: Final = {hdrs.METH_GET, hdrs.METH_HEAD}


def begin(request: web.Request, key: str) -> Session:
    """A new one for the key of this name."""
    now = int(time())
    secure = request.secure or request.headers.get(hdrs.ORIGIN, "").startswith("https://")
    return Session(token_hex(12), key, now, now, secure)


def cookie_name(request: web.Request) -> str:
    """Browsers keep cookies by host and not by port; behind two ports of one host are often two gateways."""
    try:
        port = urlsplit(f"//{request.headers.get(hdrs.HOST, '')}").port
    except ValueError:
        port = None
    return COOKIE if port is None else f"{COOKIE}_{port}"


async def session_of(request: web.Request, secret_of: Callable[[str], bytes | None]) -> Session | None:
    """The session that a request carries; None: it carries none that holds. Raises `Forbidden` for a request that
    another page made the browser send."""
    text = request.cookies.get(cookie_name(request))
    session = None if text is None else unsign(text, secret_of, time())
    if session is None or await request.app[AppKeys.STORE].sessions.has_ended(session.id):
        return None
    refuse_other_pages(request)
    return session


def refuse_other_pages(request: web.Request) -> None:
    """Cookies go along whoever made the browser ask, so a request that relies on one must come from this gateway's own
    page: SameSite keeps other sites' out, this also those of other ports and names of the same site."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get(hdrs.ORIGIN)
    host = request.headers.get(hdrs.HOST, "").lower()
    if site is not None:
        foreign = site not in {"same-origin", "none"}
    else:
        foreign = origin is not None and urlsplit(origin.lower()).netloc != host
    if foreign:
        msg = "a session holds for the pages of this gateway alone; scripts use the header X-Admin-Key"
        raise Forbidden(msg)
    if request.method not in _SAFE and MARK not in request.headers:
        msg = f"a change within a session needs the header {MARK}; scripts use X-Admin-Key"
        raise Forbidden(msg)


def give(request: web.Request, response: web.StreamResponse, session: Session, secret: bytes) -> None:
    """Set the cookie. The browser forgets it with the session; no script of a page sees it."""
    response.set_cookie(
        cookie_name(request),
        sign(session, secret),
        max_age=max(1, session.ends - int(time())),
        path="/admin",
        httponly=True,
        samesite="Strict",
        secure=session.secure,
    )


def take_back(request: web.Request, response: web.StreamResponse) -> None:
    """Unset the cookie."""
    response.del_cookie(cookie_name(request), path="/admin", httponly=True, samesite="Strict")


def renew(request: web.Request, response: web.StreamResponse, secret_of: Callable[[str], bytes | None]) -> None:
    """Give a session that is in use another hour; to be called before an answer's head is sent."""
    session = request.get(RequestKeys.SESSION)
    if session is None:
        return
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    now = int(time())
    secret = secret_of(session.key)
    if secret is not None and now - session.signed >= _RENEW_SECONDS:
        give(request, response, msgspec.structs.replace(session, signed=now), secret)
        # At this point aiohttp has put the cookies among the headers already.
        response.headers.add(hdrs.SET_COOKIE, response.cookies[cookie_name(request)].OutputString())
