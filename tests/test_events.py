"""The events of the log that operators search for: each one line, with these fields, when the thing happens."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from conftest import ADMIN_KEY, GatewayFactory, until
from structlog.testing import capture_logs

TASK = {"url": "http://example.com/"}
Lines = list[dict[str, Any]]


@pytest.fixture
def logs() -> Iterator[Lines]:
    """What is logged during the test, with what the context adds."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        yield lines  # type: ignore[misc]


def the(logs: Lines, event: str) -> dict[str, Any]:
    """The one line of this event."""
    [line] = [line for line in logs if line["event"] == event]
    return line


def shown(line: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(line[name] for name in ("log_level", *names))


async def test_events_of_a_client(gateway: GatewayFactory, logs: Lines, a_client: str) -> None:
    """Created, limited, its override applied and refused: who, what, and under which request id."""
    gw = await gateway(dispatch=False)
    limit = {"max_concurrent": 2, "requests_per_min": 60}
    high = {"max_concurrent": 2, "requests_per_min": 10_001}
    body = {"client_id": a_client, "task": TASK}
    _, _, headers = await gw.enqueue(body)
    assert shown(the(logs, "client_created"), "client", "request_id") == ("info", a_client, headers["X-Request-ID"])
    _, _, headers = await gw.enqueue({**body, "cost": 50})
    line = the(logs, "rate_limited")
    assert shown(line, "client", "tier", "requests_per_min", "current") == ("info", a_client, "default", 50, 51)
    assert line["request_id"] == headers["X-Request-ID"]
    await gw.enqueue({**body, "rate_limit": limit})
    assert shown(the(logs, "override_applied"), "client", "asked", "applied") == ("info", a_client, limit, limit)
    await gw.enqueue({**body, "rate_limit": high})
    line = the(logs, "override_refused")
    assert shown(line, "client", "asked") == ("warning", a_client, high)
    assert line["ceiling"] == {"max_concurrent": 100, "requests_per_min": 10_000}


async def test_events_of_callers_without_an_id(gateway: GatewayFactory, logs: Lines) -> None:
    """Each request that is booked to LEGACY_CLIENT_ID is a warning; a batch is one request."""
    gw = await gateway(dispatch=False, legacy_client_id="old-callers")
    assert (await gw.enqueue({"task": TASK}))[0] == 201
    assert shown(the(logs, "legacy_client_used"), "client", "path") == ("warning", "old-callers", "/v1/enqueue")
    logs.clear()
    assert (await gw.call("POST", "/v1/enqueue/batch", json={"tasks": [{"task": TASK}] * 2}))[0] == 201
    assert the(logs, "legacy_client_used")["path"] == "/v1/enqueue/batch"
    await gw.admin("POST", "/admin/clients/set", json={"client_id": "old-callers", "enabled": False})
    assert (await gw.enqueue({"task": TASK}))[0] == 401


async def test_events_of_operators(gateway: GatewayFactory, logs: Lines, a_client: str) -> None:
    """What was done to whom, and who was turned away from where, without a key in it."""
    gw = await gateway(dispatch=False, admin_allowed_ips="10.0.0.0/8")
    assert (await gw.call("GET", "/admin/tiers", headers={"X-Admin-Key": "hunter2"}))[0] == 401
    assert shown(the(logs, "admin_denied"), "reason", "address") == ("warning", "wrong key", "127.0.0.1")
    logs.clear()
    assert (await gw.call("GET", "/admin/tiers"))[0] == 401
    assert the(logs, "admin_denied")["reason"] == "no key"
    logs.clear()
    assert (await gw.admin("GET", "/admin/tiers"))[0] == 403
    assert "ADMIN_ALLOWED_IPS" in the(logs, "admin_denied")["reason"]
    logs.clear()
    open_one = await gateway(dispatch=False)
    await open_one.admin("POST", "/admin/clients/set", json={"client_id": a_client, "tier": "free"})
    assert shown(the(logs, "admin_action"), "action", "client", "tier") == ("info", "set", a_client, "free")
    logs.clear()
    await open_one.admin("DELETE", f"/admin/clients/delete?client_id={a_client}")
    assert shown(the(logs, "admin_action"), "action", "client") == ("info", "delete", a_client)
    assert ADMIN_KEY not in str(logs)
    assert "hunter2" not in str(logs)


async def test_events_of_redis(gateway: GatewayFactory, logs: Lines, store_url: str, a_client: str) -> None:
    """Each link that is connected says which it is and to what; one out of reach is an error with the operation, the
    link and what went wrong."""
    await gateway()
    server = store_url.removeprefix("unix://").partition("?")[0]
    expected = {("info", "requests", server), ("info", "dispatch", server)}
    await until(lambda: {shown(one, "link", "server") for one in logs if one["event"] == "redis_connected"} == expected)
    logs.clear()
    gw = await gateway(dispatch=False, redis_url="redis://:hunter2@127.0.0.1:1")
    assert (await gw.enqueue({"client_id": a_client, "task": TASK}))[0] == 503
    lines = [line for line in logs if line["event"] == "redis_error" and line["redis_operation"] == "connect"]
    assert lines
    assert shown(lines[0], "link") == ("error", "requests")
    assert "127.0.0.1:1" in lines[0]["error"]
    assert "hunter2" not in str(logs)
