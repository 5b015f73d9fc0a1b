"""The spans of requests and tasks, seen by an exporter in memory and by a collector that a whole gateway exports to."""

import asyncio
import contextlib
from typing import Any

import pytest
from conftest import GatewayFactory, Target, until
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from raw_http import a_task

from gateway.dispatch.traced import TracedSender
from gateway.models import ClaimedTask, Outcome
from gateway.tracing.spans import Spans

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{CALLER}-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Recorder:
    """Spans, and what has become of them."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = Spans(provider)

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    async def named(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """The ended spans of this name, once there are so many."""
        await until(lambda: sum(span.name == name for span in self.ended) >= count)
        return [span for span in self.ended if span.name == name]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    """Trace, span and parent as the headers spell them."""
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{span.parent.span_id:016x}" if span.parent else None


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_one_trace_from_the_caller_to_the_target(
    gateway: GatewayFactory, target: Target, a_client: str, recorder: Recorder
) -> None:
    """Request, wait and attempt stand in the caller's trace under their conventional names; the target is told of the
    attempt; the URL's query is told to nobody else."""
    gw = await gateway(spans=recorder.spans)
    url = f"{target.url}/hook?token=secret-one#part"
    body = {"client_id": a_client, "queue": "mail", "task": {"url": url}}
    given = {"traceparent": PARENT, "tracestate": "a=1"}
    status, answer, _ = await gw.enqueue(body, headers=given)
    assert status == 201, answer
    [request], [wait], [attempt] = [await recorder.named(name) for name in ("POST /v1/enqueue", "wait", "POST")]
    trace, admitted, caller = ids(request)
    assert (trace, caller) == (TRACE, CALLER)
    assert ids(wait)[::2] == ids(attempt)[::2] == (TRACE, admitted)
    [call] = target.calls
    assert call["headers"]["traceparent"] == f"00-{TRACE}-{ids(attempt)[1]}-01"
    assert call["headers"]["tracestate"] == "a=1"
    assert (request.kind, wait.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.CLIENT)
    of_task = {
        "messaging.system": "task_dispatch_gateway",
        "messaging.client.id": a_client,
        "messaging.destination.name": "mail",
    }
    assert attributes(request) == of_task | {
        "messaging.operation.name": "admit",
        "messaging.operation.type": "send",
        "http.request.method": "POST",
        "http.route": "/v1/enqueue",
        "http.response.status_code": 201,
        "url.path": "/v1/enqueue",
        "url.scheme": "http",
    }
    of_task["messaging.message.id"] = answer["task_id"]
    assert attributes(wait) == of_task | {"messaging.operation.name": "wait", "messaging.operation.type": "receive"}
    assert attributes(attempt) == of_task | {
        "messaging.operation.name": "attempt",
        "messaging.operation.type": "process",
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.full": f"{target.url}/hook",
        "server.address": "127.0.0.1",
        "server.port": int(target.url.rpartition(":")[2]),
    }
    assert wait.start_time is not None
    assert wait.end_time is not None
    assert attempt.start_time is not None
    assert wait.start_time <= wait.end_time <= attempt.start_time + 1_000_000  # the wait is told in whole ms
    assert {span.status.status_code for span in recorder.ended} == {StatusCode.UNSET}
    assert not [span for span in recorder.ended if "secret-one" in span.to_json()]


async def test_each_attempt_has_its_spans(
    gateway: GatewayFactory, target: Target, a_client: str, recorder: Recorder
) -> None:
    """A task that another process admitted and that fails once: two waits and two calls, the first an error, in the
    trace of its request; what is no HTTP answer has its reason as the error's type."""
    admitting, running = await gateway(dispatch=False, spans=recorder.spans), None
    target.statuses["/again"] = [503, 200]
    for path in ("/again", None):
        url = f"{target.url}{path}" if path else "http://127.0.0.1:1/"
        body = {"client_id": a_client, "max_retry": 1 if path else 0, "task": {"url": url}}
        assert (await admitting.enqueue(body, headers={"traceparent": PARENT}))[0] == 201
    running = await gateway(spans=recorder.spans)
    assert running.dispatcher is not None
    calls = await recorder.named("POST", 3)
    waits = await recorder.named("wait", 3)
    assert {ids(span)[0] for span in (*calls, *waits)} == {TRACE}
    again = [attributes(span) for span in calls if attributes(span)["url.full"].endswith("/again")]
    assert [one.get("http.request.resend_count") for one in again] == [None, 1]
    assert [one["http.response.status_code"] for one in again] == [503, 200]
    assert [one.get("error.type") for one in again] == ["503", None]
    [refused] = [span for span in calls if not attributes(span)["url.full"].endswith("/again")]
    assert attributes(refused)["error.type"] == "connection refused"
    assert refused.status.status_code is StatusCode.ERROR


async def test_what_the_caller_does_not_sample_is_not_told(
    gateway: GatewayFactory, target: Target, a_client: str, recorder: Recorder
) -> None:
    """No span is exported, and the target is told not to sample either."""
    gw = await gateway(spans=recorder.spans)
    body = {"client_id": a_client, "task": {"url": f"{target.url}/hook"}}
    assert (await gw.enqueue(body, headers={"traceparent": PARENT[:-2] + "00"}))[0] == 201
    [call] = await target.received(1)
    assert call["headers"]["traceparent"].startswith(f"00-{TRACE}-")
    assert call["headers"]["traceparent"].endswith("-00")
    assert recorder.ended == []


async def test_refusals_and_batches(gateway: GatewayFactory, target: Target, a_client: str, recorder: Recorder) -> None:
    """A request without a context begins a trace; what the caller did wrong is no error of ours; a batch is one span
    for all, and a task that names a context of its own joins that one; other requests have no span."""
    gw = await gateway(spans=recorder.spans)
    task = {"url": f"{target.url}/hook"}
    assert (await gw.enqueue({}))[0] == 401
    assert (await gw.enqueue({"client_id": a_client, "task": {}}))[0] == 400
    tasks = [{"task": task}, {"queue": "other", "task": {**task, "headers": {"traceparent": OTHER}}}]
    body = {"client_id": a_client, "tasks": tasks}
    assert (await gw.call("POST", "/v1/enqueue/batch", json=body))[0] == 201
    assert (await gw.call("GET", f"/v1/rate-limit?client_id={a_client}"))[0] == 200
    refused = await recorder.named("POST /v1/enqueue", 2)
    assert [attributes(span)["http.response.status_code"] for span in refused] == [401, 400]
    assert [attributes(span).get("messaging.client.id") for span in refused] == [None, a_client]
    assert {span.status.status_code for span in refused} == {StatusCode.UNSET}
    [batch] = await recorder.named("POST /v1/enqueue/batch")
    assert ids(batch)[2] is None
    assert attributes(batch)["messaging.batch.message_count"] == 2
    assert "messaging.destination.name" not in attributes(batch)
    calls = await recorder.named("POST", 2)
    assert {ids(span)[::2] for span in calls} == {ids(batch)[:2], tuple(OTHER.split("-")[1:3])}
    assert OTHER in {call["headers"]["traceparent"] for call in target.calls}
    assert len(recorder.ended) == 3 + 2 + 2


async def test_redis_away_is_an_error(gateway: GatewayFactory, a_client: str, recorder: Recorder) -> None:
    """A 503 is ours: the request's span says so."""
    gw = await gateway(dispatch=False, spans=recorder.spans, redis_url="unix:///nonexistent/valkey.sock")
    assert (await gw.enqueue({"client_id": a_client, "task": {"url": "http://example.com/"}}))[0] == 503
    [span] = await recorder.named("POST /v1/enqueue")
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "503"


async def test_a_call_that_is_broken_off_has_an_end(recorder: Recorder) -> None:
    """A lost claim or a drain cancels the call; its span ends as an error, and the cancellation goes on. A URL that is
    none is the sender's to refuse."""
    sending = asyncio.Event()

    class Hanging:
        async def send(self, task: ClaimedTask, timeout: float) -> Outcome:
            sending.set()
            await asyncio.Event().wait()
            raise AssertionError

    sender = TracedSender(Hanging(), recorder.spans)
    job = asyncio.create_task(sender.send(a_task("http://[", trace=PARENT), 10))
    await sending.wait()
    job.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await job
    assert job.cancelled()
    [span] = await recorder.named("POST")
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "cancelled"
    assert attributes(span)["http.request.resend_count"] == 1
