"""A key in a URL is in the logs of every proxy and in a browser's history: it is refused, so that nobody gets used to
it, and is to be taken for known."""

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.errors import InvalidBody

# As they are without case, `-` and `_`.
_NAMES = frozenset(
    {
        *("key", "apikey", "adminkey", "adminapikey", "xadminkey", "clientkey", "xclientkey", "xapikey", "accesskey"),
        *("token", "accesstoken", "auth", "authorization", "bearer", "password", "passwd", "secret"),
    }
)
_MARKS = str.maketrans("", "", "-_")


@web.middleware
async def no_keys_in_urls(request: web.Request, handler: Handler) -> web.StreamResponse:
    """400 for a query parameter that is called like a key, on every route there is; its value is not repeated."""
    if request.query_string and request.match_info.http_exception is None:
        for name in request.query:
            if name[:64].lower().translate(_MARKS) in _NAMES:
                msg = (
                    f"{name[:64]}: a key in a URL is kept by proxies and logs; send it as a header (X-Admin-Key, "
                    "X-Client-Key), and replace the one that was sent"
                )
                raise InvalidBody(msg, error="Invalid query")
    return await handler(request)
