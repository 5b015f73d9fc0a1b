"""`/admin/ui`: the files of the dashboard. What it shows and does goes through the operators' API, like a script's
calls; what it is told by itself, `gateway.admin.events` sends."""

from collections.abc import Mapping
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

from aiohttp import ETag, hdrs, web

from gateway.errors import NotFound

_PAGE: Final = "index.html"
_KINDS: Final = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
# Own files and own calls, nothing else: no inline script or style, no other host, no frame around it, and no text
# that becomes markup (https://www.w3.org/TR/CSP3/, https://www.w3.org/TR/trusted-types/).
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Asked for again each time, by its ETag: after an update no browser mixes old files with new ones.
    hdrs.CACHE_CONTROL: "no-cache",
}


class _File(NamedTuple):
    body: bytes
    kind: str
    tag: str


def _read(folder: Traversable, head: str = "") -> dict[str, _File]:
    found: dict[str, _File] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found |= _read(entry, f"{head}{entry.name}/")
        elif (kind := _KINDS.get(entry.name.rpartition(".")[2])) is not None:
            body = entry.read_bytes()
            found[head + entry.name] = _File(body, kind, sha256(body).hexdigest()[:20])
    return found


_FILES: Final[Mapping[str, _File]] = _read(resources.files("gateway.admin") / "static")


async def show_page(request: web.Request) -> web.StreamResponse:
    """The one page; which of its views is shown, the part of the URL behind `#` says."""
    return _file(request, _PAGE)


async def to_page(_: web.Request) -> web.StreamResponse:
    """The page's links are relative to `/admin/ui`, so that it works below a proxy's prefix too."""
    return web.Response(status=302, headers={hdrs.LOCATION: "../ui"})


async def show_file(request: web.Request) -> web.StreamResponse:
    """A script, a style, a picture."""
    return _file(request, request.match_info["file"])


def _file(request: web.Request, name: str) -> web.StreamResponse:
    file = _FILES.get(name)
    if file is None:
        msg = f"the dashboard has no {name[:100]}"
        raise NotFound(msg)
    if any(tag.value == file.tag for tag in request.if_none_match or ()):
        response = web.Response(status=304, headers=_HEADERS)
    else:
        response = web.Response(body=file.body, content_type=file.kind, charset="utf-8", headers=_HEADERS)
    response.etag = ETag(file.tag)
    return response


ROUTES = (
    web.get("/ui", show_page),
    web.get("/ui/", to_page),
    web.get("/ui/{file:[a-z_/]+[.][a-z]+}", show_file),
)
