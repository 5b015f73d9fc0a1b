"""Cursors and ids that nobody was given, over each deployment of Redis."""

from conftest import GatewayFactory
from sealed import gateways, store_url

__all__ = ["gateways", "store_url"]  # fixtures

CURSORS = (
    "acme.0.s.default.99999999999999999999-1",  # no id of an entry
    "acme.0.s.default.1:x",  # a place in a schedule, said to be one in a stream
    "acme.0.d..1-1",  # and the other way round
    "acme.0.d.default.1:x",
    "acme.0.s..1-1",
)


async def test_a_forged_place_is_a_400(gateways: GatewayFactory) -> None:
    """Cursors that no page gave, and ids that would choose another node of a Cluster, are refused before a script meets
    them: by query, and as the filter of a job, which would never end."""
    gw = await gateways(dispatch=False)
    for cursor in CURSORS:
        assert (await gw.admin("GET", f"/admin/tasks?client_id=acme&cursor={cursor}"))[0] == 400
    assert (await gw.admin("GET", "/admin/tasks?client_id=acme&cursor=acme.0.s.default.1-1"))[0] == 200
    assert (await gw.enqueue({"client_id": "acme", "delay": 60, "task": {"url": "http://10.0.0.1/"}}))[0] == 201
    for wrong in ("%7B0%7D", "a%7Bx", "a:b", "*", "a%0A"):
        status, body, _ = await gw.admin("GET", f"/admin/tasks?task_id={wrong}")
        assert (status, body["message"].startswith("task_id: must be")) == (400, True)
    status, body, _ = await gw.admin("POST", "/admin/jobs", json={"action": "cancel", "filter": {"task_id": "{0}"}})
    assert (status, body["message"].startswith("$.filter.task_id: must be")) == (400, True)
