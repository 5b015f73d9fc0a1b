"""What every answer tells a browser, and that no key travels in a URL."""

from typing import Any

import pytest
from conftest import ADMIN_KEY, Gateway, GatewayFactory
from structlog.testing import capture_logs
from test_malformed_http import raw

from gateway.keys import AppKeys
from gateway.middleware.security_headers import HEADERS

KEY = "a-key-that-nobody-may-see"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("POST", "/v1/enqueue", 201),
        ("POST", "/v1/enqueue/batch", 401),
        ("GET", "/nothing", 404),
        ("DELETE", "/livez", 405),
        ("GET", "/admin/clients", 200),
        ("GET", "/admin/nothing", 404),
        ("POST", "/admin/clients/pause", 400),
    ],
)
async def test_every_answer_is_hardened(gateway: GatewayFactory, method: str, path: str, status: int) -> None:
    """Whatever is answered: its type is meant, no frame, no copy, no referrer, nothing to load, and by whom, but not
    what that is built of."""
    gw = await gateway(dispatch=False)
    body = {"client_id": "abc", "task": {"url": "http://127.0.0.1:9/"}} if path == "/v1/enqueue" else {}
    for _ in range(2):  # the second enqueue takes the express way
        got, _, headers = await told(gw, method, path, json=body if method == "POST" else None)
        assert got == status
        assert {name: headers.getall(name, None) for name in HEADERS} == {name: [it] for name, it in HEADERS.items()}


async def told(gw: Gateway, method: str, path: str, **kwargs: Any) -> tuple[int, bytes, Any]:
    """Status, bytes and headers of a call with the admin key."""
    async with gw.client.request(method, path, headers={"X-Admin-Key": ADMIN_KEY}, **kwargs) as answer:
        return answer.status, await answer.read(), answer.headers


async def test_answers_outside_of_the_application_are_hardened_too(gateway: GatewayFactory) -> None:
    """What is no HTTP is refused with the same headers, and a page keeps a policy of its own."""
    gw = await gateway(dispatch=False)
    _, headers, _ = await raw(gw, b"nonsense\r\n\r\n")
    assert {name: headers.get(name.lower()) for name in HEADERS} == HEADERS
    page = (await told(gw, "GET", "/docs"))[2]
    assert "style-src 'sha256-" in page["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page["Content-Security-Policy"]
    assert {name: page.get(name) for name in HEADERS if name != "Content-Security-Policy"}.items() <= HEADERS.items()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/clients?api_key={}"),
        ("GET", "/admin/clients?limit=1&X-Admin-Key={}"),
        ("GET", "/admin/clients?key={}"),
        ("DELETE", "/admin/clients/delete?client_id=abc&token={}"),
        ("GET", "/v1/rate-limit?client_id=abc&ApiKey={}"),
        ("GET", "/v1/rate-limit?client_id=abc&x-client-key={}"),
        ("POST", "/v1/enqueue?access_token={}"),
        ("GET", "/livez?authorization={}"),
        ("GET", "/metrics?admin-key={}"),
        ("GET", "/admin/clients?k%65y={}"),
    ],
)
async def test_a_key_in_a_url_is_refused_and_never_told(gateway: GatewayFactory, method: str, path: str) -> None:
    """400 that says where a key belongs, though the header has the right one; neither answer nor log has the value."""
    gw = await gateway(dispatch=False)
    with capture_logs() as logs:
        status, body, _ = await told(gw, method, path.format(KEY))
    assert status == 400
    assert b"send it as a header" in body
    assert KEY not in str(logs) + body.decode()
    assert await gw.store.clients.get("abc") is None


async def test_a_key_in_the_url_opens_nothing(gateway: GatewayFactory) -> None:
    """The right key in the URL is as good as none, and an unknown path stays a 404."""
    gw = await gateway(dispatch=False)
    async with gw.client.get(f"/admin/clients?X-Admin-Key={ADMIN_KEY}") as answer:
        assert answer.status == 400
    async with gw.client.get(f"/nothing?key={ADMIN_KEY}") as answer:
        assert answer.status == 404
        assert ADMIN_KEY not in await answer.text()
    assert AppKeys.KEYRING in gw.app
