"""Policy order, override ceilings, cost, queues and targets, as a caller sees them."""

from typing import Any

import pytest
from conftest import GatewayFactory, Target
from structlog.testing import capture_logs

TASK = {"url": "http://example.com/"}


async def test_an_override_is_applied_and_logged(gateway: GatewayFactory, a_client: str) -> None:
    """Within the ceiling it is the answer's policy and the window's limit, and the log says so."""
    gw = await gateway(dispatch=False)
    asked = {"max_concurrent": 10, "requests_per_min": 200}
    with capture_logs() as logs:
        status, body, headers = await gw.enqueue({"client_id": a_client, "rate_limit": asked, "task": TASK})
    assert (status, body["rate_limit"]) == (201, asked)
    assert headers["X-RateLimit-Limit"] == "200"
    [entry] = [entry for entry in logs if entry["event"] == "override_applied"]
    assert (entry["client"], entry["asked"], entry["applied"]) == (a_client, asked, asked)


async def test_an_override_past_the_ceiling_is_refused(gateway: GatewayFactory, a_client: str) -> None:
    """400 that names the ceiling; the client's own limit raises it."""
    gw = await gateway(dispatch=False, max_override_concurrent="5")
    asked = {"max_concurrent": 6, "requests_per_min": 10}
    with capture_logs() as logs:
        status, body, _ = await gw.enqueue({"client_id": a_client, "rate_limit": asked, "task": TASK})
    assert (status, body["error"]) == (400, "Invalid body")
    assert "ceiling of 5" in body["message"]
    assert "override_refused" in [entry["event"] for entry in logs]
    await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, "tier": "premium"})
    assert (await gw.enqueue({"client_id": a_client, "rate_limit": asked, "task": TASK}))[0] == 201


async def test_an_override_counts_in_the_clients_one_window(gateway: GatewayFactory, a_client: str) -> None:
    """What was admitted under an override is used for requests without one, and the other way round."""
    gw = await gateway(dispatch=False)
    body = {"client_id": a_client, "task": TASK}
    high = {"max_concurrent": 1, "requests_per_min": 100}
    assert (await gw.enqueue({**body, "cost": 50}))[0] == 201
    assert (await gw.enqueue(body))[0] == 429
    status, answer, headers = await gw.enqueue({**body, "cost": 30, "rate_limit": high})
    assert (status, answer["rate_limit"], headers["X-RateLimit-Remaining"]) == (201, high, "20")
    status, answer, _ = await gw.enqueue({**body, "cost": 21, "rate_limit": high})
    assert (status, answer["message"]) == (429, "exceeded 100 requests per minute (current: 101)")
    _, usage, _ = await gw.call("GET", f"/v1/rate-limit?client_id={a_client}")
    assert (usage["current_usage"], usage["remaining"], usage["rate_limit"]["requests_per_min"]) == (80, 0, 50)
    low = {"max_concurrent": 1, "requests_per_min": 10}
    assert (await gw.enqueue({**body, "rate_limit": low}))[0] == 429


@pytest.mark.parametrize(
    ("own", "asked", "named"),
    [
        ((200, 60), (200, 10_000), None),
        ((200, 60), (201, 60), "$.rate_limit.max_concurrent: 201 is more than the ceiling of 200"),
        ((2, 20_000), (100, 20_000), None),
        ((2, 20_000), (101, 20_001), "$.rate_limit.requests_per_min: 20001 is more than the ceiling of 20000"),
        ((2, 60), (1, 1), None),
    ],
)
async def test_the_ceiling_is_the_higher_of_two(
    gateway: GatewayFactory, a_client: str, own: tuple[int, int], asked: tuple[int, int], named: str | None
) -> None:
    """The operator's or the client's own limit, number by number; at it is fine, past it is 400."""
    gw = await gateway(dispatch=False)
    names = ("max_concurrent", "requests_per_min")
    settings = {"client_id": a_client, "rate_limit": dict(zip(names, own, strict=True))}
    await gw.admin("POST", "/admin/clients/set", json=settings)
    override = dict(zip(names, asked, strict=True))
    status, body, _ = await gw.enqueue({"client_id": a_client, "rate_limit": override, "task": TASK})
    assert status == (201 if named is None else 400)
    assert named is None or named in body["message"]


@pytest.mark.parametrize(
    ("fields", "answer", "named"),
    [
        ({"queue": "other"}, (403, "Queue not allowed"), "$.queue"),
        ({"cost": 8}, (400, "Invalid body"), "limit of 7"),
        ({"task": {**TASK, "cost": 8}}, (400, "Invalid body"), "$.task.cost: 8 is more than the limit of 7"),
        ({"cost": 8, "rate_limit": {"max_concurrent": 101, "requests_per_min": 1}}, (400, "Invalid body"), "ceiling"),
        ({"cost": 8, "task": {"url": "http://169.254.169.254/"}}, (400, "Invalid body"), "$.cost"),
        ({"task": {"url": "http://169.254.169.254/"}}, (400, "Invalid body"), "$.task.url"),
        ({"task": {"url": "http://127.0.0.2:1/"}}, (400, "Invalid body"), "OUTBOUND_ALLOW"),
        ({"queue": "other", "cost": 8}, (403, "Queue not allowed"), "$.queue"),
    ],
)
async def test_what_the_policy_refuses(
    gateway: GatewayFactory, a_client: str, fields: dict[str, Any], answer: tuple[int, str], named: str
) -> None:
    """Queue before ceiling, cost and target; none of them consumes the window."""
    gw = await gateway(dispatch=False)
    limit = {"max_concurrent": 1, "requests_per_min": 7}
    settings = {"client_id": a_client, "rate_limit": limit, "allowed_queues": ["default"]}
    await gw.admin("POST", "/admin/clients/set", json=settings)
    got, body, _ = await gw.enqueue({"client_id": a_client, "task": TASK, **fields})
    assert (got, body["error"]) == answer
    assert named in body["message"]
    _, usage, _ = await gw.call("GET", f"/v1/rate-limit?client_id={a_client}")
    assert (usage["current_usage"], usage["reset"]) == (0, 0)


async def test_a_path_goes_to_the_upstream(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """The service before which this stands is called by path and allowed though it is on loopback."""
    gw = await gateway(upstream_url=target.url + "/base", outbound_allow="")
    for url in ("/x?y=1", target.url + "/whole"):
        assert (await gw.enqueue({"client_id": a_client, "task": {"url": url}}))[0] == 201
    assert {call["path"] for call in await target.received(2)} == {"/x?y=1", "/whole"}
    status, body, _ = await gw.enqueue({"client_id": a_client, "task": {"url": "//x"}})
    assert (status, body["error"]) == (400, "Invalid body")
    plain = await gateway(dispatch=False)
    status, body, _ = await plain.enqueue({"client_id": a_client, "task": {"url": "/x"}})
    assert status == 400
    assert "UPSTREAM_URL" in body["message"]


@pytest.mark.parametrize("algorithm", ["sliding", "fixed"])
async def test_cost_counts_and_never_below_zero(gateway: GatewayFactory, a_client: str, algorithm: str) -> None:
    """A request takes its cost of the window; a lowered limit leaves 0, not less."""
    gw = await gateway(dispatch=False, window_algorithm=algorithm)
    _, _, headers = await gw.enqueue({"client_id": a_client, "cost": 20, "task": TASK})
    assert headers["X-RateLimit-Remaining"] == "30"
    await gw.admin("POST", "/admin/clients/set", json={"client_id": a_client, "tier": "free"})
    status, _, headers = await gw.enqueue({"client_id": a_client, "task": TASK})
    assert (status, headers["X-RateLimit-Remaining"]) == (429, "0")
