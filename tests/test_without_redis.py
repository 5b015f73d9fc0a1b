"""The HTTP side while Redis is out of reach or full, and the probes."""

import json
import time

from conftest import GatewayFactory
from redis.asyncio import from_url

TASK = {"url": "http://example.com/"}


async def test_redis_away_is_503(gateway: GatewayFactory, a_client: str) -> None:
    """Without Redis: 503 with Retry-After, /livez and /metrics 200, refusals that need no Redis as ever."""
    gw = await gateway(dispatch=False, redis_url="unix:///nonexistent/valkey.sock")
    started = time.monotonic()
    status, body, headers = await gw.enqueue({"client_id": a_client, "task": TASK})
    assert time.monotonic() - started < 5
    assert (status, body["error"]) == (503, "Service unavailable")
    assert int(headers["Retry-After"]) >= 1
    assert "nonexistent" not in json.dumps(body)
    for method, path in (
        ("GET", f"/v1/tasks/x?client_id={a_client}"),
        ("DELETE", f"/v1/tasks/x?client_id={a_client}"),
        ("GET", f"/v1/rate-limit?client_id={a_client}"),
        ("GET", "/admin/clients"),
        ("GET", f"/admin/clients/get?client_id={a_client}"),
        ("DELETE", f"/admin/clients/delete?client_id={a_client}"),
    ):
        status, body, headers = await gw.admin(method, path)
        assert (path, status, body["error"]) == (path, 503, "Service unavailable")
        assert int(headers["Retry-After"]) >= 1
    assert (await gw.admin("GET", "/admin/tiers"))[0] == 200
    assert (await gw.call("GET", "/readyz"))[0] == 503
    assert (await gw.call("GET", "/health"))[0] == 503
    assert (await gw.call("GET", "/livez"))[0] == 200
    async with gw.client.get("/metrics") as metrics:
        assert metrics.status == 200
    assert (await gw.enqueue({}))[0] == 401
    assert (await gw.admin("POST", "/admin/clients/set", json={}))[0] == 400


async def test_a_full_redis_is_503(gateway: GatewayFactory, valkey: str, a_client: str) -> None:
    """Out of memory it takes no task and says so in its own words; what is asked about tasks is still answered."""
    gw = await gateway(dispatch=False)
    body = {"client_id": a_client, "task": TASK}
    _, kept, _ = await gw.enqueue(body)
    redis = from_url(valkey)
    await redis.config_set("maxmemory", "1")
    try:
        status, refused, headers = await gw.enqueue(body)
        assert (status, refused["error"]) == (503, "Service unavailable")
        assert int(headers["Retry-After"]) >= 1
        assert "OOM" not in str(refused)
        tasks = [{"task": TASK}]
        assert (await gw.call("POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks}))[0] == 503
        path = f"/v1/tasks/{kept['task_id']}?client_id={a_client}"
        assert (await gw.call("GET", path))[0] == 200
        assert (await gw.call("DELETE", path))[1]["state"] == "cancelled"
        assert (await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client}))[0] == 503
    finally:
        await redis.config_set("maxmemory", "0")
        await redis.aclose()
    assert (await gw.enqueue(body))[0] == 201


async def test_probes(gateway: GatewayFactory) -> None:
    """With Redis all probes are ok."""
    gw = await gateway(dispatch=False)
    for path in ("/health", "/readyz", "/livez"):
        status, body, _ = await gw.call("GET", path)
        assert (status, body["status"]) == (200, "ok")
