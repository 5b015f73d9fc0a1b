"""How an enqueue body becomes `Ask`s. Its shape is in `gateway.api.bodies`, what a single task must look like in
`gateway.api.task_rules`; who may ask for what is the middlewares'."""

import re
from typing import Any

import msgspec

from gateway.api.bodies import BatchBody, EnqueueBody, ItemBody, OverrideBody, TaskBody
from gateway.api.task_rules import Rules, Written
from gateway.errors import InvalidBody
from gateway.middleware.contracts import Ask, Asked, Given, path_of
from gateway.middleware.strict_json import check_syntax, explain, malformed, refuse_duplicates
from gateway.models import DEFAULT_MAX_RETRY, DEFAULT_TIMEOUT, RateLimit, Task


class _Who(msgspec.Struct):
    client_id: Written = msgspec.UNSET


class _RawHeaders(msgspec.Struct):
    headers: dict[str, msgspec.Raw]


class _Headers(msgspec.Struct):
    task: _RawHeaders


class _Items(msgspec.Struct):
    tasks: list[msgspec.Raw]


_BACKSLASH = ord("\\")
_encode = msgspec.json.Encoder().encode
_decode_text = msgspec.json.Decoder(str).decode
_WHO = msgspec.json.Decoder(_Who)
_ENQUEUE = msgspec.json.Decoder(EnqueueBody)
_BATCH = msgspec.json.Decoder(BatchBody)

_ITEM = ItemBody.__struct_fields__
_LIMIT = OverrideBody.__struct_fields__
_TASK = TaskBody.__struct_fields__
FIELDS = {
    "$": EnqueueBody.__struct_fields__,
    "$.task": _TASK,
    "$.rate_limit": _LIMIT,
}
BATCH_FIELDS = {
    "$": BatchBody.__struct_fields__,
    "$.tasks[]": _ITEM,
    "$.tasks[].task": _TASK,
    "$.tasks[].rate_limit": _LIMIT,
}


class Decoding:
    """Decodes both kinds of body under one gateway's rules."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def enqueue(self, raw: bytes, given: Given) -> Asked:
        """The body of `POST /v1/enqueue`. Raises `InvalidBody` only for what is not JSON."""
        body, client_id, problem = _decoded(_ENQUEUE, raw, FIELDS)
        if body is None:
            return Asked(client_id=client_id, asks=[], problem=problem)
        try:
            _refuse_hidden(raw, body)
            key = _one_key(body.idempotency_key, given.idempotency_key)
            asks = [self._ask(body, None, key, given.now)]
        except InvalidBody as problem:
            return Asked(client_id=client_id, asks=[], problem=problem)
        return Asked(client_id=client_id, asks=asks)

    def batch(self, raw: bytes, given: Given) -> Asked:
        """The body of `POST /v1/enqueue/batch`: one malformed task is the problem of the whole."""
        body, client_id, problem = _decoded(_BATCH, raw, BATCH_FIELDS)
        if body is None:
            return Asked(client_id=client_id, asks=[], problem=problem)
        try:
            if given.idempotency_key is not None:
                msg = "the header Idempotency-Key would name every task; give $.tasks[…].idempotency_key"
                raise InvalidBody(msg)
            _refuse_hidden(raw, body)
            asks = [self._ask(item, index, item.idempotency_key, given.now) for index, item in enumerate(body.tasks)]
        except InvalidBody as problem:
            return Asked(client_id=client_id, asks=[], problem=problem)
        return Asked(client_id=client_id, asks=asks)

    def _ask(self, item: ItemBody, index: int | None, key: str | None, now: float) -> Ask:
        """The rules name a field from its task on; where that stands is only worded where something is wrong."""
        rules, given, limit = self._rules, item.task, item.rate_limit
        try:
            headers, body = rules.content(given.headers, given.body)
            start = rules.start(item.delay, item.run_at, item.expires_at, now)
            task = Task(  # by keyword that would take five times as long
                rules.queue(item.queue),
                rules.method(given.method),
                rules.url(given.url),
                headers,
                body,
                start.delay,
                start.run_at,
                start.expires_at,
                rules.cost(item.cost, given.cost),
                DEFAULT_MAX_RETRY if item.max_retry is None else item.max_retry,
                DEFAULT_TIMEOUT if item.timeout is None else item.timeout,
                rules.key(key),
                rules.labels(item.labels),
            )
        except InvalidBody as problem:
            msg = f"{path_of(index)}.{problem.message}"
            raise InvalidBody(msg) from None
        return Ask(
            task,
            index,
            None if limit is None else RateLimit(limit.max_concurrent, limit.requests_per_min),
            "task.cost" if item.cost is None and given.cost is not None else "cost",
        )


def _decoded(
    decoder: msgspec.json.Decoder[Any], raw: bytes, fields: dict[str, Any]
) -> tuple[Any, object, InvalidBody | None]:
    """The decoded body, None where it has a problem; who asks, as far as that is known; what is wrong."""
    try:
        raw.decode("utf-8")  # the decoder does not look at what it passes over
        body = decoder.decode(raw)
    except msgspec.ValidationError as problem:
        if not check_syntax(raw):
            return None, None, InvalidBody("$: the body must be a JSON object")
        wrong = _named_header(explain(problem, fields), raw)
        return None, _plain(_WHO.decode(raw).client_id), wrong
    except (ValueError, RecursionError) as problem:
        raise malformed(problem, raw) from None
    return body, _plain(body.client_id), None


def _plain(raw: Written) -> object:
    """A client id as it stood there; what can't be one comes back as something that is none."""
    if raw is msgspec.UNSET:
        return None
    try:
        return _decode_text(raw)
    except msgspec.ValidationError:  # no string
        text = bytes(raw)
        return None if text == b"null" else text


def _one_key(body: str | None, header: str | None) -> str | None:
    if body is not None and header is not None and body != header:
        msg = "$.idempotency_key: differs from the header Idempotency-Key; give one, or the same twice"
        raise InvalidBody(msg)
    return header if body is None else body


def _refuse_hidden(raw: bytes, body: msgspec.Struct) -> None:
    """Refuse duplicate keys, with a cheap look first: written again, what the decoder kept has as many strings as the
    text, or one was dropped, and a name is a string. An explicit null is not kept either, so it only makes the look a
    thorough one."""
    if _quotes(raw) != _quotes(_encode(body)):
        refuse_duplicates(raw)


def _quotes(text: bytes) -> int:
    """How many quotation marks of JSON begin or end a string: those that no odd number of backslashes stands before."""
    if _BACKSLASH in text:
        text = text.replace(b"\\\\", b"")
        return text.count(b'"') - text.count(b'\\"')
    return text.count(b'"')


def _named_header(problem: InvalidBody, raw: bytes) -> InvalidBody:
    """The problem with the header's own name: the decoder says only that it is one of them."""
    match = re.match(r"\$(?:\.tasks\[(\d+)\])?\.task\.headers\[\.\.\.\]: ", problem.message)
    if match is None:
        return problem
    try:
        item = raw if match[1] is None else msgspec.json.decode(raw, type=_Items).tasks[int(match[1])]
        headers = msgspec.json.decode(item, type=_Headers).task.headers
    except msgspec.ValidationError:  # an object is there twice, and the other one is no object
        return problem
    name = next((name for name, value in headers.items() if not bytes(value).startswith(b'"')), "…")
    return InvalidBody(problem.message.replace("[...]", f".{name[:64]}", 1))
