"""The spans of requests and tasks, seen by an exporter in memory and by a collector that a whole gateway exports to."""

import asyncio
import contextlib
import doctest
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from as_user import Gateway as Process
from as_user import fetch, wait_for
from conftest import GatewayFactory, Target, until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from raw_http import a_task

from gateway.dispatch.traced import TracedSender
from gateway.models import ClaimedTask, Outcome
from gateway.settings import Settings
from gateway.tracing import environment, setup
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


# --- whether and where to ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "exporter", "told"),
    [
        ({}, None, ""),
        ({"OTEL_SERVICE_NAME": "mine"}, None, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "otlp_proto_http", ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/v1/traces"}, "otlp_proto_http", ""),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp_proto_http", ""),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console", ""),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, None, ""),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, None, ""),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, None, "OTEL_TRACES_EXPORTER: 'zipkin'"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "me:pass-word@c:4318"}, None, "OTEL_EXPORTER_OTLP_ENDPOINT: it is not"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:99999"}, None, "OTEL_EXPORTER_OTLP_ENDPOINT: it is not"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            None,
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json'",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            None,
            "pip install opentelemetry-exporter-otlp-proto-grpc",
        ),
    ],
)
def test_the_environment_decides(env: dict[str, str], exporter: str | None, told: str) -> None:
    """Off unless configured; what can't be followed is a warning of the settings, without what may be secret, and stops
    nothing."""
    assert environment.exporting(env).exporter == exporter
    warnings = "\n".join(Settings.load({"ADMIN_API_KEY": "k", **env}).warnings)
    assert told in warnings
    assert bool(told) == bool(warnings)
    assert "pass-word" not in warnings


def test_the_examples_hold() -> None:
    """What the docstrings say."""
    assert doctest.testmod(environment).failed == 0


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for traces and has not installed the extra is told what to type."""
    monkeypatch.setattr(environment, "entry_points", lambda **_: [])
    [warning] = environment.exporting({"OTEL_TRACES_EXPORTER": "otlp"}).warnings
    assert "pip install 'task-dispatch-gateway[otel]'" in warning


def test_who_asks_for_nothing_loads_nothing() -> None:
    """The whole server is there without OpenTelemetry."""
    code = "import sys; sys.modules['opentelemetry'] = None; import gateway.app, gateway.cli"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_what_the_sdk_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that is none costs the traces and not the start."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many")
    async with setup.tracing("here-1") as spans:
        assert spans is None


async def test_a_collector_that_hangs_delays_no_stop() -> None:
    """What does not end in time is left behind, in a thread that keeps the process from nothing."""
    held = threading.Event()
    async with asyncio.timeout(5):
        await setup._within(0.01, lambda: held.wait(60) and None)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "tracing-flush"]
    assert thread.daemon
    held.set()
    await until(lambda: not thread.is_alive())


# --- a whole gateway and its collector --------------------------------------------------------------------------------


class Collector(HTTPServer):
    """Takes OTLP over HTTP and keeps the spans: (service, instance, name, trace id)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Export)
        self.spans: list[tuple[str, str, str, str]] = []

    def take(self, raw: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(raw).resource_spans:
            of = {pair.key: pair.value.string_value for pair in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    told = (of["service.name"], of["service.instance.id"], span.name, span.trace_id.hex())
                    self.spans.append(told)


class _Export(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            self.server.take(raw)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """The tests' output is enough."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_gateway_exports_and_logs_its_traces(tmp_path: Path, collector: Collector) -> None:
    """With nothing but the endpoint set, the spans reach the collector, the last ones at the stop, under the name that
    /admin/replicas has; each line of the request and of its task names the trace."""
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    never = "600000"  # so that only the stop exports
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": never, "LOG_LEVEL": "debug"}
    with Process(tmp_path, OUTBOUND_ALLOW="127.0.0.1:1", **settings) as running:
        task = {"client_id": "acme", "max_retry": 0, "task": {"url": "http://127.0.0.1:1/"}}
        headers = {"Content-Type": "application/json", "traceparent": PARENT}
        status, text = fetch(
            f"{running.url}/v1/enqueue", method="POST", body=json.dumps(task).encode(), headers=headers
        )
        assert status == 201, text
        path = f"{running.url}/v1/tasks/{json.loads(text)['task_id']}?client_id=acme"
        wait_for(lambda: json.loads(fetch(path)[1])["state"] == "dead", "the task is dead")
        [replica] = json.loads(fetch(f"{running.url}/admin/replicas")[1])["replicas"]
        log = tmp_path / "gateway.log"
        wait_for(lambda: '"task_dead"' in log.read_text(), "the log tells of it")
        assert collector.spans == []
    names = {"POST /v1/enqueue", "wait", "POST"}
    assert set(collector.spans) == {("task-dispatch-gateway", replica["name"], name, TRACE) for name in names}
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    told = {line["event"] for line in lines if line.get("trace_id") == TRACE}
    assert {"task_enqueued", "request", "task_dead"} <= told
