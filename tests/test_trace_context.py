"""The trace context of a request: what is taken for one, and that it reaches the target with each attempt."""

import doctest
import json

import pytest
from conftest import GatewayFactory, Target
from multidict import CIMultiDict
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs
from test_express import body, ready, taken

from gateway.tracing import context
from gateway.tracing.context import joined, received, sent

__all__ = ["taken"]  # a fixture

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


def test_the_examples_hold() -> None:
    """What the docstrings say."""
    assert doctest.testmod(context).failed == 0


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        PARENT.upper(),
        PARENT + "-more",
        PARENT + " ",
        PARENT + "\n",
        PARENT.replace("00-", "ff-", 1),
        PARENT.replace("b7ad6b7169203331", "0" * 16),
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        PARENT.replace("0af7", "0ag7"),
        PARENT[:-1],
    ],
)
def test_what_is_no_traceparent_is_no_context(parent: str) -> None:
    """A malformed one is ignored with its tracestate, as W3C Trace Context says."""
    assert joined(parent, "a=1") == ""


def test_a_traceparent_of_a_later_version_is_sent_on_in_ours() -> None:
    """Later versions are read as far as they are known."""
    assert joined("cc" + PARENT[2:] + "-what-comes-later") == PARENT


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("congo=t61rcWkgMzE", "congo=t61rcWkgMzE"),
        (" a=1 ,\t, 0b@sys=x/2 ", "a=1,0b@sys=x/2"),
        ("a=" + "x" * 256, "a=" + "x" * 256),
        ("a=" + "x" * 257, ""),
        ("A=1", ""),
        ("a=1;b", "a=1;b"),
        ("a=1\nX-Admin: 1", ""),
        ("a=ü", ""),
        ("a=", ""),
        ("no-value", ""),
        (",".join(f"k{i}=1" for i in range(32)), ",".join(f"k{i}=1" for i in range(32))),
        (",".join(f"k{i}=1" for i in range(33)), ""),
        ("a=" + "x" * 250 + ",b=" + "x" * 256 + ",c=1", ""),
    ],
)
def test_a_tracestate_is_kept_or_dropped_whole(state: str, kept: str) -> None:
    """A malformed tracestate, or one past what must be handed on, costs itself and not the traceparent."""
    assert joined(PARENT, state) == (f"{PARENT}\n{kept}" if kept else PARENT)


def test_several_headers() -> None:
    """Two traceparents are none; several tracestates are one list."""
    headers = CIMultiDict([("Traceparent", PARENT), ("tracestate", "a=1"), ("Tracestate", "b=2")])
    assert received(headers) == f"{PARENT}\na=1,b=2"
    headers.add("traceparent", OTHER)
    assert received(headers) == ""
    assert sent(f"{PARENT}\na=1", {"TraceState": "mine=1"}) == [("traceparent", PARENT)]


async def test_the_context_reaches_the_target(gateway: GatewayFactory, target: Target, a_client: str) -> None:
    """Each attempt of a task has its request's context, also from a batch; one that the task's headers name wins, and
    is sent as it is."""
    gw = await gateway()
    target.statuses["/again"] = [503, 200]
    given = {"traceparent": PARENT, "tracestate": "a=1"}
    body = {"client_id": a_client, "task": {"url": f"{target.url}/again"}}
    assert (await gw.enqueue(body, headers=given))[0] == 201
    tasks = [
        {"task": {"url": f"{target.url}/batch"}},
        {"task": {"url": f"{target.url}/own", "headers": {"traceparent": OTHER}}},
        {"task": {"url": f"{target.url}/odd", "headers": {"traceparent": "none"}}},
    ]
    status, answer, _ = await gw.call(
        "POST", "/v1/enqueue/batch", json={"client_id": a_client, "tasks": tasks}, headers=given
    )
    assert (status, answer["accepted"]) == (201, 3)
    status, plain, _ = await gw.enqueue({"client_id": a_client, "task": {"url": f"{target.url}/none"}})
    assert status == 201
    calls = await target.received(6)
    traces = [
        (await gw.admin("GET", f"/admin/tasks/{task}?client_id={a_client}"))[1]["trace_id"]
        for task in (answer["results"][0]["task_id"], answer["results"][1]["task_id"], plain["task_id"])
    ]
    assert traces == [PARENT[3:35], OTHER[3:35], None]
    told = [(call["path"], *(call["headers"].get(name) for name in ("traceparent", "tracestate"))) for call in calls]
    assert sorted(told, key=json.dumps) == [
        ("/again", PARENT, "a=1"),
        ("/again", PARENT, "a=1"),
        ("/batch", PARENT, "a=1"),
        ("/none", None, None),
        ("/odd", "none", None),
        ("/own", OTHER, None),
    ]


async def test_the_express_way_carries_it(gateway: GatewayFactory, a_client: str, taken: list[bool]) -> None:
    """A request that passes aiohttp by brings its context along, and a line about its refusal names it."""
    gw = await ready(gateway, a_client)
    given = {"traceparent": PARENT}
    status, answer, _ = await gw.enqueue(body(a_client), headers=given)
    assert (status, taken[-1]) == (201, True)
    path = f"/admin/tasks/{answer['task_id']}?client_id={a_client}"
    assert (await gw.admin("GET", path))[1]["trace_id"] == PARENT[3:35]
    limits = {"max_concurrent": 1, "requests_per_min": 1}
    await gw.admin("PUT", "/admin/clients/set", json={"client_id": a_client, "rate_limit": limits})
    assert (await gw.enqueue(body(a_client)))[0] == 429  # by the chain, since what was known of the client is forgotten
    with capture_logs(processors=[merge_contextvars]) as lines:
        assert (await gw.enqueue(body(a_client), headers=given))[0] == 429
    assert taken[-1]
    told = {line["event"]: line.get("trace_id") for line in lines}
    assert told["rate_limited"] == told["request"] == PARENT[3:35]


def test_a_header_of_the_task_is_sent_once() -> None:
    """In whatever case the task spells its own, no second one stands beside it."""
    own = {"TraceParent": OTHER, "TRACESTATE": "a=1"}
    assert sent(f"{PARENT}\nb=2", own) == []
    assert sent(f"{PARENT}\nb=2", {}) == [("traceparent", PARENT), ("tracestate", "b=2")]
