"""`/openapi.json` and `/docs`: what the API is, for machines and for people."""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib import resources

import orjson
from aiohttp import web
from jinja2 import Environment, PackageLoader

from gateway.openapi.document import document

_STYLE = "reference.css"


async def show_document(_: web.Request) -> web.StreamResponse:
    """The OpenAPI document."""
    return web.Response(body=_encoded(), content_type="application/json")


async def show_reference(_: web.Request) -> web.StreamResponse:
    """The same as a page, which needs neither scripts nor other hosts."""
    text, policy = _page()
    headers = {"Content-Security-Policy": policy}
    return web.Response(text=text, content_type="text/html", headers=headers)


@cache
def _encoded() -> bytes:
    return orjson.dumps(document())


@cache
def _page() -> tuple[str, str]:
    """The page and the policy that lets in its own style and nothing else (https://www.w3.org/TR/CSP3/)."""
    style = resources.files("gateway.openapi").joinpath(_STYLE).read_text()
    environment = Environment(loader=PackageLoader("gateway.openapi", "."), autoescape=True, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    page = environment.get_template("reference.html").render(style=style, api=document())
    digest = b64encode(sha256(style.encode()).digest()).decode()
    rules = ("default-src 'none'", f"style-src 'sha256-{digest}'", "base-uri 'none'", "frame-ancestors 'none'")
    return page, "; ".join(rules)


ROUTES = (
    web.get("/openapi.json", show_document),
    web.get("/docs", show_reference),
)
