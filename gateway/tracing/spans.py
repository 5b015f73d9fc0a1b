"""The spans there are, with the names of OpenTelemetry's semantic conventions for HTTP and messaging:

- `POST /v1/enqueue` (server): the request that was admitted or refused, child of its caller's span;
- `wait` (internal): from the task's due time until it was claimed, for each attempt;
- `POST` (client): one attempt, whose context is what the target is told.

The two of the task are children of the context that the task carries, so a delay or a restart in between changes
nothing.
"""

from typing import Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from gateway import __version__
from gateway.models import ClaimedTask, Outcome, Verdict

_NS_PER_MS: Final = 1_000_000


class Spans:
    """Makes the gateway's spans under one provider, and ends them."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("task-dispatch-gateway", __version__)

    def told(self, span: Span) -> str:
        """The context of what happens within the span, as `gateway.tracing.context` joins one."""
        context = span.get_span_context()
        state = context.trace_state.to_header()
        parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return f"{parent}\n{state}" if state else parent

    # --- a request ----------------------------------------------------------------------------------------------------

    def request(self, parent: str, method: str, route: str, scheme: str) -> Span:
        """The span of a request that brings tasks, started; ``parent`` is the context it came with."""
        return self._tracer.start_span(
            f"{method} {route}",
            _remote(parent),
            SpanKind.SERVER,
            {
                http_attributes.HTTP_REQUEST_METHOD: method,
                http_attributes.HTTP_ROUTE: route,
                url_attributes.URL_PATH: route,
                url_attributes.URL_SCHEME: scheme,
                **_messaging("admit", "send"),
            },
        )

    def answered(self, span: Span, status: int, client_id: str | None, queues: set[str], tasks: int) -> None:
        """End it: with whose tasks these were, as far as it was known, and how many."""
        if span.is_recording():
            span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, status)
            if client_id is not None:
                span.set_attribute("messaging.client.id", client_id)
            if len(queues) == 1:
                span.set_attribute("messaging.destination.name", *queues)
            if tasks > 1:
                span.set_attribute("messaging.batch.message_count", tasks)
            if status >= 500:  # what the caller did wrong is no error of the server (semantic conventions)
                _fail(span, str(status))
        span.end()

    def abandoned(self, span: Span, error: str) -> None:
        """End a span whose work was broken off."""
        _fail(span, error)
        span.end()

    # --- a task -------------------------------------------------------------------------------------------------------

    def attempt(self, task: ClaimedTask) -> Span:
        """The span of one call, started; that of the wait before it, by Redis's clock, is over."""
        parent = _remote(task.trace)
        attributes = _of_task(task, "attempt", "process")
        attributes[http_attributes.HTTP_REQUEST_METHOD] = task.method
        attributes.update(_target(task.url))
        if task.attempt > 1:
            attributes[http_attributes.HTTP_REQUEST_RESEND_COUNT] = task.attempt - 1
        span = self._tracer.start_span(task.method, parent, SpanKind.CLIENT, attributes)
        if span.is_recording():
            start, end = task.due_at * _NS_PER_MS, max(task.due_at, task.claimed_at) * _NS_PER_MS
            waited = _of_task(task, "wait", "receive")
            self._tracer.start_span("wait", parent, SpanKind.INTERNAL, waited, start_time=start).end(end)
        return span

    def attempted(self, span: Span, outcome: Outcome) -> None:
        """End it with what came of the call."""
        if span.is_recording():
            status = outcome.attempt.status
            if status is not None:
                span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, status)
            if outcome.verdict is not Verdict.DELIVERED:
                # A reason may say more after its colon, and an error type is one of a few.
                _fail(span, outcome.reason.partition(":")[0] if status is None else str(status), outcome.reason)
        span.end()


def _remote(trace: str) -> Context:
    """The context as OpenTelemetry has it: that of a span elsewhere."""
    if not trace:
        return Context()
    parent, _, state = trace.partition("\n")
    _, trace_id, span_id, flags = parent.split("-")
    context = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([state]) if state else None,
    )
    return set_span_in_context(NonRecordingSpan(context), Context())


def _messaging(name: str, kind: str) -> dict[str, AttributeValue]:
    return {
        "messaging.system": "task_dispatch_gateway",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
    }


def _of_task(task: ClaimedTask, name: str, kind: str) -> dict[str, AttributeValue]:
    return {
        **_messaging(name, kind),
        "messaging.client.id": task.client_id,
        "messaging.destination.name": task.queue,
        "messaging.message.id": task.task_id,
    }


def _target(text: str) -> dict[str, AttributeValue]:
    """What is called, without what may be secret in it: the query. (A user is refused at enqueue.)"""
    try:
        url = urlsplit(text)
        return {
            url_attributes.URL_FULL: f"{url.scheme}://{url.netloc}{url.path}",
            server_attributes.SERVER_ADDRESS: url.hostname or "",
            server_attributes.SERVER_PORT: url.port or (443 if url.scheme == "https" else 80),
        }
    except ValueError:  # no URL: the sender will say so
        return {}


def _fail(span: Span, kind: str, description: str | None = None) -> None:
    span.set_attribute(error_attributes.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, description))
