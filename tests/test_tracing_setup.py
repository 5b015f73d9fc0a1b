"""Whether traces are exported and where to, and a whole gateway that does it."""

import asyncio
import doctest
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from as_user import Gateway as Process
from as_user import fetch, wait_for
from conftest import until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from test_traces import PARENT, TRACE

from gateway.settings import Settings
from gateway.tracing import environment, setup


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
