"""How an enqueue body becomes `Ask`s. Its shape is in `gateway.api.bodies`, what a single task must look like in
`gateway.api.task_rules`; who may ask for what is the middlewares'."""

import re
from typing import Any

import msgspec

from gateway.api.bodies import BatchBody, EnqueueBody, ItemBody, OverrideBody, TaskBody
from gateway.api.task_rules import Rules, TaskFields
from gateway.errors import InvalidBody
from gateway.middleware.contracts import Ask, Asked, Given
from gateway.middleware.strict_json import check_syntax, explain, malformed, refuse_duplicates
from gateway.models import DEFAULT_MAX_RETRY, DEFAULT_TIMEOUT, RateLimit


class _Who(msgspec.Struct):
    client_id: msgspec.Raw = msgspec.Raw(b"")


class _RawHeaders(msgspec.Struct):
    headers: dict[str, msgspec.Raw]


class _Headers(msgspec.Struct):
    task: _RawHeaders


class _Items(msgspec.Struct):
    tasks: list[msgspec.Raw]


_NOTHING = msgspec.Raw(b"")
_SPACED = re.compile(rb'"\s+:')

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
        body, asked = _decoded(_ENQUEUE, raw, FIELDS)
        if body is None:
            return asked
        try:
            _refuse_hidden(raw, body, [body])
            key = _one_key(body.idempotency_key, given.idempotency_key)
            asks = [self._ask(body, "$", key, given.now)]
        except InvalidBody as problem:
            return Asked(client_id=asked.client_id, asks=[], problem=problem)
        return Asked(client_id=asked.client_id, asks=asks)

    def batch(self, raw: bytes, given: Given) -> Asked:
        """The body of `POST /v1/enqueue/batch`: one malformed task is the problem of the whole."""
        body, asked = _decoded(_BATCH, raw, BATCH_FIELDS)
        if body is None:
            return asked
        try:
            if given.idempotency_key is not None:
                msg = "the header Idempotency-Key would name every task; give $.tasks[…].idempotency_key"
                raise InvalidBody(msg)
            _refuse_hidden(raw, body, body.tasks)
            asks = [
                self._ask(item, f"$.tasks[{index}]", item.idempotency_key, given.now)
                for index, item in enumerate(body.tasks)
            ]
        except InvalidBody as problem:
            return Asked(client_id=asked.client_id, asks=[], problem=problem)
        return Asked(client_id=asked.client_id, asks=asks)

    def _ask(self, item: ItemBody, path: str, key: str | None, now: float) -> Ask:
        rules, task = self._rules, item.task
        headers, body = rules.content(
            TaskFields(url=task.url, method=task.method, headers=task.headers or {}, body=bytes(task.body)), path
        )
        start = rules.start(item.delay, item.run_at, item.expires_at, path, now)
        limit = item.rate_limit
        return Ask(
            path=path,
            queue=rules.queue(item.queue, path),
            method=rules.method(task.method, path),
            url=rules.url(task.url, path),
            headers=headers,
            body=body,
            delay=start.delay,
            run_at=start.run_at,
            expires_at=start.expires_at,
            override=None if limit is None else RateLimit(limit.max_concurrent, limit.requests_per_min),
            cost=rules.cost(item.cost, task.cost, path),
            cost_path=f"{path}.task.cost" if item.cost is None and task.cost is not None else f"{path}.cost",
            max_retry=DEFAULT_MAX_RETRY if item.max_retry is None else item.max_retry,
            timeout=DEFAULT_TIMEOUT if item.timeout is None else item.timeout,
            idempotency_key=rules.key(key, path),
            labels=rules.labels(item.labels, path),
        )


def _decoded(decoder: msgspec.json.Decoder[Any], raw: bytes, fields: dict[str, Any]) -> tuple[Any, Asked]:
    """The decoded body, None where it has a problem, and so far known: who asks, what is wrong."""
    try:
        raw.decode("utf-8")  # the decoder does not look at what it passes over
        body = decoder.decode(raw)
    except msgspec.ValidationError as problem:
        if not check_syntax(raw):
            return None, Asked(client_id=None, asks=[], problem=InvalidBody("$: the body must be a JSON object"))
        wrong = _named_header(explain(problem, fields), raw)
        return None, Asked(client_id=_plain(_WHO.decode(raw).client_id), asks=[], problem=wrong)
    except (ValueError, RecursionError) as problem:
        raise malformed(problem, raw) from None
    return body, Asked(client_id=_plain(body.client_id), asks=[])


def _plain(raw: msgspec.Raw) -> object:
    """A client id as it stood there; what can't be one comes back as something that is none."""
    text = bytes(raw)
    if not text or text == b"null":
        return None
    return msgspec.json.decode(text, type=str) if text.startswith(b'"') else text


def _one_key(body: str | None, header: str | None) -> str | None:
    if body is not None and header is not None and body != header:
        msg = "$.idempotency_key: differs from the header Idempotency-Key; give one, or the same twice"
        raise InvalidBody(msg)
    return header if body is None else body


def _refuse_hidden(raw: bytes, body: msgspec.Struct, items: list[Any]) -> None:
    """Refuse duplicate keys, with a cheap look first: where the text has as many names as the decoder kept, none was
    dropped. An explicit null is not kept either, so it only makes the look a thorough one."""
    kept = _present(body)
    names = _names(raw)
    for item in items:
        task = item.task
        kept += _present(task) + len(task.headers or ())
        if item is not body:
            kept += _present(item)
        if item.rate_limit is not None:
            kept += len(_LIMIT)
        names -= _names(task.body)
    if names != kept or _SPACED.search(raw):
        refuse_duplicates(raw)


def _names(raw: bytes | msgspec.Raw) -> int:
    """How many names JSON holds, those apart that have a space before their colon. In a string, a quotation mark has a
    backslash before it; a name that ends in one is counted too little, and no field or header has such a name."""
    text = bytes(raw)
    return text.count(b'":') - text.count(b'\\":')


def _present(struct: msgspec.Struct) -> int:
    return sum(value is not None and value != _NOTHING for value in msgspec.structs.astuple(struct))


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
