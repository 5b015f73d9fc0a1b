"""The express way of `POST /v1/enqueue`: the same steps as the chain's, for a request that nothing is wrong with, in
one pass and without a task of the event loop. Whatever is out of the ordinary before the store is asked is left to the
chain, which words every refusal."""

import functools
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import msgspec
import structlog
from aiohttp.helpers import rfc822_formatted_time

from gateway import metrics
from gateway.api.enqueue import claimer_of, enqueued, explained, note_admitted
from gateway.errors import GatewayError, ServiceUnavailable, StoreUnavailable
from gateway.middleware.answers import json_bytes
from gateway.middleware.client_keys import shows_its_key
from gateway.middleware.contracts import Ask, Decode, Dispatching, Given, Planned, TargetCheck, Whole
from gateway.middleware.guesses import Guesses
from gateway.middleware.heads import Head, Heads
from gateway.middleware.limits import Limits
from gateway.middleware.policy import plan
from gateway.middleware.reading import is_client_id
from gateway.middleware.request_id import HEADER, chosen_id
from gateway.middleware.security_headers import HEADERS
from gateway.middleware.window import refused, window_headers, window_lines
from gateway.models import Admission, Admitted, Client, Duplicate
from gateway.settings import Settings
from gateway.store import Store
from gateway.tracing.context import trace_id

log = structlog.get_logger()

ROUTE: Final = "/v1/enqueue"
_FIXED: Final = "".join(
    f"{name}: {value}\r\n" for name, value in {**HEADERS, "Content-Type": "application/json"}.items()
)
_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class _Taken(msgspec.Struct, frozen=True):
    """One request on its way to the store."""

    client: Client
    plan: Planned
    request_id: str
    started: float
    answer: Callable[[bytes], None]


class _Timed(dict[int, Callable[[float], None]]):
    """By status, what counts an answer that took so many seconds."""

    def __missing__(self, status: int) -> Callable[[float], None]:
        count = self[status] = metrics.http_requests(ROUTE, "POST", status)
        return count


class Express:
    """The way of one listener; ``limits`` are its own."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        dispatcher: Dispatching | None,
        guard: TargetCheck,
        limits: Limits,
        *,
        decode: Decode,
        guesses: Guesses,
    ) -> None:
        self._settings = settings
        self._store = store
        self._dispatcher = dispatcher
        self._guard = guard
        self._decode = decode
        self._guesses = guesses
        self._heads = Heads(ROUTE)
        self._limits = limits
        self._timed = _Timed()

    def read(self, data: bytes) -> Whole | None:
        """As the protocol has it."""
        ends = data.find(b"\r\n\r\n")
        head = self._heads.read(data[:ends]) if ends >= 0 else None
        if head is None or not 0 < head.length <= self._settings.max_body_bytes:
            return None
        return Whole(head, ends + 4, ends + 4 + head.length)

    def take(self, request: Whole, data: bytes, answer: Callable[[bytes], None]) -> bool:
        """As the protocol has it."""
        started = time.monotonic()
        head = request.head
        asked = self._asked(head, data[request.begin :])
        if asked is None:
            return False
        client, ask = asked
        planned = plan(ask, client, self._settings, self._guard, head.trace)
        if not isinstance(planned, Planned) or not self._enter():
            return False
        taken = _Taken(client, planned, chosen_id(head.request_id), started, answer)
        tell = functools.partial(self._decided, taken)
        claimer = claimer_of(self._dispatcher)
        self._store.tasks.submit(client.client_id, planned.spec, tell, create=False, claimer=claimer)
        return True

    def _enter(self) -> bool:
        try:
            self._limits.enter(ROUTE)
        except ServiceUnavailable:
            return False
        return True

    def _asked(self, head: Head, raw: bytes) -> tuple[Client, Ask] | None:
        """A known client that may, and a well-formed task without an override, which the log would tell of."""
        try:
            asked = self._decode(raw, Given(head.idempotency_key, time.time()))
        except GatewayError:
            return None
        client_id = head.client_id or asked.client_id
        if asked.problem is not None or not isinstance(client_id, str) or not is_client_id(client_id):
            return None
        if asked.client_id not in (None, "", client_id):
            return None
        keyring = self._store.client_keys.cached(client_id)
        client = self._store.clients.cached(client_id)
        if keyring is None or client is None or not client.enabled or self._guesses.concern(client_id):
            return None
        if not shows_its_key(keyring, head.client_key, head.authorization, required=self._settings.require_client_key):
            return None
        [ask] = asked.asks
        return (client, ask) if ask.override is None else None

    def _decided(self, taken: _Taken, admission: Admission | StoreUnavailable) -> None:
        """Word the store's answer."""
        self._limits.leave()
        try:
            status, lines, body = self._worded(taken, admission)
        except Exception:
            log.exception("unexpected_error", method="POST", path=ROUTE, request_id=taken.request_id)
            problem = GatewayError(f"the gateway failed; its log has request id {taken.request_id}")
            status, lines, body = _as_problem(problem)
        taken.answer(
            (
                f"{_LINES[status]}{lines}{_FIXED}{HEADER}: {taken.request_id}\r\nDate: {rfc822_formatted_time()}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            ).encode()
            + body
        )
        self._timed[status](time.monotonic() - taken.started)

    def _worded(self, taken: _Taken, admission: Admission | StoreUnavailable) -> tuple[int, str, bytes]:
        planned, client = taken.plan, taken.client
        if isinstance(admission, StoreUnavailable):
            return _as_problem(explained(admission))
        if isinstance(admission, Admitted):
            note_admitted(admission, client.client_id, planned.spec.task.queue, self._dispatcher)
        window, limit = admission.window, planned.limit.requests_per_min
        if isinstance(admission, Admitted | Duplicate):
            status, body = enqueued(admission, planned, client.client_id)
            return status, window_lines(window, limit), body
        trace = trace_id(planned.spec.trace)
        named = {"trace_id": trace} if trace else {}
        with structlog.contextvars.bound_contextvars(request_id=taken.request_id, **named):
            problem = refused(admission, planned, client)
            problem.headers.update(window_headers(window, limit))
            log.info("request", method="POST", path=ROUTE, status=problem.status)
        return _as_problem(problem)


def _as_problem(problem: GatewayError) -> tuple[int, str, bytes]:
    lines = "".join([f"{name}: {value}\r\n" for name, value in problem.headers.items()])
    return problem.status, lines, json_bytes(problem.body())
