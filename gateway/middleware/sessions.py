"""Sessions of the dashboard: a signed cookie that stands for an admin key, so that the browser does not keep the key.

What signs a cookie is made of the hash of the key that it stands for, so that a key that is replaced ends its
sessions, and of a secret in Redis, since others may know hashes. Redis also has which sessions were left early.
"""

import hmac
from secrets import token_hex
from time import time
from typing import Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import hdrs, web

from gateway.admin_keys import AdminKey
from gateway.errors import Forbidden
from gateway.keys import AppKeys, RequestKeys
from gateway.middleware.keyring import Keyring
from gateway.middleware.session_cookie import Session, sign, unsign

COOKIE: Final = "gateway_session"
# A form or a link of another page can't send it, and a script of another origin must ask first and is not let.
MARK: Final = "X-Requested-With"
_RENEW_SECONDS: Final = 300
_SAFE: Final = {hdrs.METH_GET, hdrs.METH_HEAD}


def begin(request: web.Request, key: AdminKey) -> Session:
    """A new one for this key."""
    now = int(time())
    secure = request.secure or request.headers.get(hdrs.ORIGIN, "").startswith("https://")
    return Session(token_hex(12), key.name or "", now, now, secure)


def cookie_name(request: web.Request) -> str:
    """Browsers keep cookies by host and not by port; behind two ports of one host are often two gateways."""
    try:
        port = urlsplit(f"//{request.headers.get(hdrs.HOST, '')}").port
    except ValueError:
        port = None
    return COOKIE if port is None else f"{COOKIE}_{port}"


async def session_of(request: web.Request, keyring: Keyring) -> tuple[Session, AdminKey] | None:
    """The session that a request carries, and the key that it stands for; None: it carries none that holds. Raises
    `Forbidden` for a request that another page made the browser send."""
    text = request.cookies.get(cookie_name(request))
    if text is None:
        return None
    shared = await request.app[AppKeys.STORE].sessions.secret()

    def secret_of(name: str) -> bytes | None:
        key = keyring.named(name)
        return None if key is None else _secret(shared, key)

    session = unsign(text, secret_of, time())
    key = None if session is None else keyring.named(session.key)
    if session is None or key is None or await request.app[AppKeys.STORE].sessions.has_ended(session.id):
        return None
    refuse_other_pages(request)
    return session, key


def _secret(shared: bytes, key: AdminKey) -> bytes:
    return hmac.digest(shared, key.digest, "sha256")


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


async def give(request: web.Request, response: web.StreamResponse, session: Session, key: AdminKey) -> None:
    """Set the cookie. The browser forgets it with the session; no script of a page sees it."""
    secret = _secret(await request.app[AppKeys.STORE].sessions.secret(), key)
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


async def renew(request: web.Request, response: web.StreamResponse) -> None:
    """Give a session that is in use another hour; to be called before an answer's head is sent."""
    session = request.get(RequestKeys.SESSION)
    if session is None:
        return
    now = int(time())
    if now - session.signed >= _RENEW_SECONDS:
        await give(request, response, msgspec.structs.replace(session, signed=now), request[RequestKeys.ADMIN_KEY])
        # At this point aiohttp has put the cookies among the headers already.
        response.headers.add(hdrs.SET_COOKIE, response.cookies[cookie_name(request)].OutputString())
