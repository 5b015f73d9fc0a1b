"""Who may use `/admin`: the key, or a session that stands for it, and the address, for every path below it, known or
not; then the key's role."""

from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from gateway import metrics
from gateway.admin_keys import NO_KEY, AdminKey
from gateway.errors import Forbidden
from gateway.keys import RequestKeys
from gateway.middleware.callers import Address, address_of, parse_address, within
from gateway.middleware.keyring import Keyring
from gateway.middleware.reading import header
from gateway.middleware.roles import needed_role
from gateway.middleware.sessions import session_of
from gateway.settings import Settings

log = structlog.get_logger()

_LOGIN: Final = "/admin/ui"
# The files of the dashboard hold nothing of this gateway; what they show they ask for with the session.
_OPEN: Final = {
    ("POST", "/admin/session"),
    ("GET", f"{_LOGIN}/session"),
    *((method, path) for method in ("GET", "HEAD") for path in (_LOGIN, f"{_LOGIN}/", f"{_LOGIN}/{{file}}")),
}


def admin_chain(settings: Settings, keyring: Keyring) -> tuple[Middleware, ...]:
    """The guards of `/admin`, outermost first. They put on the request who asks (`ADMIN_KEY`) and `ADDRESS`."""

    @web.middleware
    async def check_certificate(request: web.Request, handler: Handler) -> web.StreamResponse:
        # The handshake has judged the certificate, if there is one.
        if settings.admin_tls_client_ca is not None and not _peer_certificate(request):
            metrics.admin_denied("certificate")
            log.warning("admin_denied", reason="no client certificate", address=request.remote, path=request.path)
            msg = "/admin is closed here: show a client certificate of ADMIN_TLS_CLIENT_CA"
            raise Forbidden(msg)
        return await handler(request)

    @web.middleware
    async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not keyring.required:
            request[RequestKeys.ADMIN_KEY] = NO_KEY
        elif not _is_open(request):
            request[RequestKeys.ADMIN_KEY] = await who_asks(request)
        return await handler(request)

    async def who_asks(request: web.Request) -> AdminKey:
        given = header(request, "X-Admin-Key")
        if given is None and (found := await session_of(request, keyring)):
            request[RequestKeys.SESSION], key = found
            return key
        address = address_of(request, settings.trusted_proxies)
        return await keyring.judge(given or "", str(address or request.remote), request.path)

    @web.middleware
    async def check_address(request: web.Request, handler: Handler) -> web.StreamResponse:
        address = address_of(request, settings.trusted_proxies)
        reason = _refusal(request, address, settings)
        if reason is not None:
            metrics.admin_denied("address")
            log.warning("admin_denied", reason=reason, address=str(address or request.remote), path=request.path)
            msg = f"/admin is closed here: {reason}"
            raise Forbidden(msg)
        request[RequestKeys.ADDRESS] = str(address or request.remote)
        return await handler(request)

    return (check_certificate, check_key, check_address, check_role)


def _peer_certificate(request: web.Request) -> Any:
    return None if request.transport is None else request.transport.get_extra_info("peercert")


@web.middleware
async def check_role(request: web.Request, handler: Handler) -> web.StreamResponse:
    """403 where the key's role is less than the call needs; what is no call is 404 or 405 all the same."""
    resource = request.match_info.route.resource
    key = request.get(RequestKeys.ADMIN_KEY)  # none where no key is asked for: see `_OPEN`
    if key is not None and resource is not None and request.match_info.http_exception is None:
        needed = needed_role(request.method, resource.canonical)
        if key.role < needed:
            metrics.admin_denied("role")
            reason = f"the role {needed} is needed, the key has {key.role}"
            log.warning(
                "admin_denied", reason=reason, key=key.name, address=request[RequestKeys.ADDRESS], path=request.path
            )
            msg = f"{request.method} {resource.canonical} needs a key with the role {needed}; this one has {key.role}"
            raise Forbidden(msg)
    return await handler(request)


def _is_open(request: web.Request) -> bool:
    """Whether it is what a browser needs in order to show its key."""
    resource = request.match_info.route.resource
    return resource is not None and (request.method, resource.canonical) in _OPEN


def _refusal(request: web.Request, address: Address | None, settings: Settings) -> str | None:
    """Why this address may not, None: it may."""
    # Each call of a task has it, wherever it ends: at the address of a balancer, at a name that nobody here knows.
    if "X-Task-ID" in request.headers:
        return "a task's call may not"
    allowed = settings.admin_allowed_ips
    if settings.has_admin_keys:
        if not allowed or (address is not None and within(address, allowed)):
            return None
        return "the address is not in ADMIN_ALLOWED_IPS"
    if address is None or not (address.is_loopback or within(address, allowed)):
        return "without ADMIN_API_KEY only loopback and ADMIN_ALLOWED_IPS may"
    return _disguise(request, address)


def _disguise(request: web.Request, address: Address) -> str | None:
    """Without a key the address is all there is, so whatever could borrow one is refused: a proxy in between, a
    page in the operator's browser, a name that was re-bound to loopback."""
    headers = request.headers
    for name in (hdrs.X_FORWARDED_FOR, hdrs.FORWARDED):
        if name in headers:
            return f"a request with {name} needs ADMIN_API_KEY"
    host = headers.get(hdrs.HOST, "")
    origin = headers.get(hdrs.ORIGIN)
    if origin is not None and origin.lower() not in {f"http://{host}".lower(), f"https://{host}".lower()}:
        return "a request from another Origin needs ADMIN_API_KEY"
    if address.is_loopback and not _is_loopback_host(host):
        return "a request over loopback whose Host is another needs ADMIN_API_KEY"
    return None


def _is_loopback_host(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    if name == "localhost":
        return True
    address = parse_address(name)
    return address is not None and address.is_loopback
