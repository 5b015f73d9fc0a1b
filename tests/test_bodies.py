"""Decoding of the enqueue bodies: what is refused and how it is named, what passes and as what."""

import itertools
import json
from typing import Any

import pytest

from gateway.api.decoding import Decoding
from gateway.api.task_rules import Rules
from gateway.errors import InvalidBody
from gateway.middleware.contracts import Asked, Given
from gateway.models import Task
from gateway.settings import Settings

NOW = 1_700_000_000.0
DECODING = Decoding(Rules(Settings.load({"MAX_BODY_BYTES": "2000"})))
UPSTREAM = Decoding(Rules(Settings.load({"UPSTREAM_URL": "http://127.0.0.1:9000/base"})))


def decode(raw: bytes, key: str | None = None, decoding: Decoding = DECODING) -> Asked:
    return decoding.enqueue(raw, Given(key, NOW))


def body(task: Any = None, **fields: Any) -> bytes:
    task = {"url": "http://example.com/", **(task or {})}
    return json.dumps({"client_id": "abc", "task": task, **fields}).encode()


def tasks(asked: Asked) -> list[Task]:
    return [ask.task for ask in asked.asks]


def problem(asked: Asked) -> str:
    assert asked.problem is not None, "nothing was wrong with it"
    return asked.problem.message


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"a": 1} x',
        b'{"client_id": "abc", "task": {"url": "\xff"}}',
        b'{"\xff": 1}',
        b'{"client_id": "abc", "task": 5, "x": "\xff"}',
        b'{"client_id": "abc", "task": {"url": "\\ud800"}}',
        b'{"client_id": "abc", "delay": NaN}',
        b'{"client_id": "abc", "delay": Infinity}',
        b'{"client_id": "abc", "task": {"url": "http://a/", "body": {"x": NaN}}}',
        b'{"client_id": "abc", "task": 5, "delay": }',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xef\xbb\xbf{}",
        b'{"a": "\x01"}',
    ],
)
def test_what_is_not_json_is_refused_before_anything_else(raw: bytes) -> None:
    """Bytes that are no JSON raise InvalidBody, whoever asks."""
    with pytest.raises(InvalidBody):
        decode(raw)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"[]", "$: the body must be a JSON object"),
        (b"5", "$: the body must be a JSON object"),
        (b'{"client_id": "abc"}', "$.task is required"),
        (b'{"client_id": "abc", "task": {}}', "$.task.url is required"),
        (b'{"client_id": "abc", "task": []}', "$.task: expected an object"),
        (body(dealy=1), "$.dealy: unknown field; did you mean delay?"),
        (body({"metod": "GET"}), "$.task.metod: unknown field; did you mean method?"),
        (body(rate_limit={"max_concurrent": 1}), "$.rate_limit.requests_per_min is required"),
        (body(rate_limit={"max_concurrent": 0, "requests_per_min": 1}), "$.rate_limit.max_concurrent"),
        (body(delay="1"), "$.delay: expected a number"),
        (body(delay=True), "$.delay"),
        (body(delay=-1), "$.delay"),
        (b'{"client_id":"abc","task":{"url":"http://a/"},"delay":1e999}', "$.delay"),
        (body(delay=30 * 86400 + 1), "is more than 2592000 seconds ahead (MAX_DELAY_SECONDS)"),
        (body(delay=1, run_at="2024-01-15T10:30:00Z"), "$.run_at: excludes delay"),
        (body(run_at="2024-01-15T10:30:00"), "$.run_at: expected a time with its offset"),
        (body(run_at="tomorrow"), "$.run_at: expected an RFC 3339 time"),
        (body(run_at=5), "$.run_at"),
        (body(run_at="9999-12-31T23:59:59-14:00"), "$.run_at: is more than"),
        (body(expires_at="2001-01-01T00:00:00Z"), "$.expires_at: must be later"),
        (body(expires_at="2023-11-14T22:13:30Z", delay=20), "$.expires_at: must be later"),
        (body(queue=""), "$.queue"),
        (body(queue="a b"), "$.queue"),
        (body(queue="a\n"), "$.queue"),
        (body(queue="q" * 65), "$.queue"),
        (body(labels="a"), "$.labels: expected an array"),
        (body(labels=["a"] * 9), "$.labels"),
        (body(labels=["a", "b c"]), "$.labels[1]: must be 1 to 64"),
        (body(labels=[""]), "$.labels[0]: must be 1 to 64"),
        (body(cost=0), "$.cost"),
        (body(cost=1.5), "$.cost"),
        (body({"cost": 2}, cost=3), "$.cost: is 3, task.cost is 2"),
        (b'{"client_id":"abc","task":{"url":"http://a/"},"cost":' + b"9" * 5000 + b"}", "$.cost"),
        (body(max_retry=-1), "$.max_retry"),
        (body(max_retry=101), "$.max_retry"),
        (body(timeout=0), "$.timeout"),
        (body(timeout=86401), "$.timeout"),
        (body(idempotency_key=""), "$.idempotency_key"),
        (body(idempotency_key="k" * 256), "$.idempotency_key"),
        (body(idempotency_key="a b"), "$.idempotency_key"),
        (body({"method": "get"}), "did you mean GET?"),
        (body({"method": "CONNECT"}), "$.task.method"),
        (body({"method": ""}), "$.task.method"),
        (body({"url": ""}), "$.task.url"),
        (body({"url": "example.com"}), "$.task.url: must be an absolute"),
        (body({"url": "ftp://example.com/"}), "$.task.url: must be an absolute"),
        (body({"url": "http://"}), "$.task.url"),
        (body({"url": "http://a b/"}), "$.task.url"),
        (body({"url": "http://a/\r\nX: y"}), "$.task.url"),
        (body({"url": "http://a:99999/"}), "$.task.url"),
        (body({"url": "http://a:0/"}), "$.task.url"),
        (body({"url": "http://user:pw@a/"}), "$.task.url: must not carry a user"),
        (body({"url": "http://a\\@b/"}), "$.task.url"),
        (body({"url": "/path"}), "UPSTREAM_URL"),
        (body({"url": "//host/x"}), "$.task.url"),
        (body({"headers": {"X-A": 5}}), "$.task.headers.X-A: expected a string"),
        (
            b'{"client_id":"abc","task":{"url":"http://a/","headers":{"X-A":' + b"9" * 5000 + b'}},"cost":1}',
            "$.task.headers.X-A: number out of range",
        ),
        (
            b'{"client_id":"abc","task":{"url":"http://a/","headers":{"X-A":5},"body":1e999},"x":1e999}',
            "$.task.headers.X-A: expected a string",
        ),
        (b'{"client_id":"abc","task":{"url":"http://a/","headers":{"X-A":5}},"task":5}', "$.task.headers"),
        (body({"headers": {"Host": "x"}}), "$.task.headers.Host"),
        (body({"headers": {"content-length": "1"}}), "$.task.headers.content-length"),
        (body({"headers": {"Transfer-Encoding": "chunked"}}), "$.task.headers.Transfer-Encoding"),
        (body({"headers": {"Proxy_Authenticate": "Basic"}}), "$.task.headers.Proxy_Authenticate"),
        (body({"headers": {"X A": "x"}}), "$.task.headers.X A: is not a header name"),
        (body({"headers": {"": "x"}}), "$.task.headers.: is not a header name"),
        (body({"headers": {"X-A": "a\r\nB: c"}}), "$.task.headers.X-A: must not hold control"),
        (body({"headers": {"X-A": "1", "x-a": "2"}}), "given twice"),
        (body({"body": 5}), "$.task.body: must be a string, an object or an array"),
        (body({"body": True}), "$.task.body"),
        (b'{"client_id":"abc","task":{"url":"http://a/","body":{"x":1e999}}}', "$.task.body"),
        (body({"body": "x" * 2001}), "$.task.body: is larger"),
        (b'{"client_id":"abc","task":{"url":"http://a/","url":"http://b/"}}', "$.task.url: given twice"),
        (b'{"client_id":"abc","task":{"url":"http://a/"},"task":{"url":"http://b/"}}', "$.task: given twice"),
        (b'{"client_id":"abc","delay":null,"delay":5,"task":{"url":"http://a/"}}', "$.delay: given twice"),
        (b'{"client_id":"abc","delay":1,"d\\u0065lay":5,"task":{"url":"http://a/"}}', "$.delay: given twice"),
        (
            b'{"client_id":"abc","task":{"url":"http://a/","headers":{"X-A":"1","X-A":"2"}}}',
            "$.task.headers.X-A: given twice",
        ),
        (
            rb'{"client_id":"abc","cost":1,"cost":2,"task":{"url":"http://a/","headers":{"X-A":"\u0022\u0022"}}}',
            "$.cost: given twice",
        ),
        (rb'{"client_id":"abc","task":{"url":"http://a/","body":"\\\""},"cost" :1,"cost":2}', "$.cost: given twice"),
        (rb'{"client_id":"abc","task":{"url":"http://a/","body":"\\"},"cost":1,"cost" :2}', "$.cost: given twice"),
    ],
)
def test_a_wrong_field_is_named(raw: bytes, named: str) -> None:
    """Each mistake is held back as a problem that names the field by its path."""
    assert named in problem(decode(raw))


# What decoders trip over, in every place where a value may stand.
ATOMS = [
    *(b"null true 5 -1 1e999 -0.0 0.1 3600 2147483648 18446744073709551616 NaN -Infinity [] {} [{}]".split()),
    *(b'"" "x" "abc" "/x" "k k" "http://a/" "http://[::1" "2024-01-01T00:00:00Z"'.split(b" ")),
    b'"9999-12-31T23:59:59.999999999-23:59"',
    b'"0001-01-01T00:00:00+23:59"',
    b'"\\ud800"',
    b'"\\u0000"',
    b'"\xff"',
    b"9" * 5000,
    b"[" * 2000 + b"]" * 2000,
    b'{"a":{"a":1,"a":2}}',
    b'{"X-A":5,"X-B":{"X-C":[]}}',
]
NAMES = [
    *(b"client_id task tasks queue delay run_at expires_at rate_limit max_concurrent requests_per_min cost".split()),
    *(b"max_retry timeout idempotency_key url method headers body X-A d\\u0065lay \\ud83d\\ude00 `".split()),
]


def joined(pairs: list[tuple[bytes, bytes]]) -> bytes:
    return b"{" + b",".join(b'"' + name + b'":' + value for name, value in pairs) + b"}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [False, True])
def test_nothing_but_a_named_problem_comes_of_odd_bodies(name: bytes, *, batch: bool) -> None:
    """Whatever stands in two places, decoding ends with tasks or with an InvalidBody in JSON's own words."""
    decoding = DECODING.batch if batch else DECODING.enqueue
    for inner, outer in itertools.product(ATOMS, ATOMS):
        fields = [(b"task", joined([(b"url", b'"http://a/"'), (name, inner)])), (name, outer)]
        client = (b"client_id", b'"abc"')
        raw = joined([client, (b"tasks", b"[" + joined(fields) + b"]")] if batch else [client, *fields])
        try:
            asked = decoding(raw, Given(None, NOW))
        except InvalidBody as complaint:
            message = complaint.message
        else:
            message = asked.problem.message if asked.problem is not None else "$"
        assert message.startswith("$")
        assert " - at " not in message


# Strings in which quotation marks and backslashes stand as they may, and what holds such strings.
SPELT = [*rb'''"" "x" "\"" "\\" "\\\"" "\"\"" "\u0022" "\u005c" "\u005c\u0022" "\":" ":\\" "\u00e4" "\/"'''.split()]
SPELT_BODIES = [*SPELT, *(b'{"k":' + text + b',"k":{}}' for text in SPELT), b"null", b"[ ]"]


@pytest.mark.parametrize("space", [b"", b" ", b"\r\n"])
def test_a_name_is_given_twice_or_not_however_strings_are_spelt(space: bytes) -> None:
    """The cheap look counts quotation marks, and none that belongs to a text makes up for a name that was dropped."""
    colon = space + b":" + space
    for text, content in itertools.product(SPELT, SPELT_BODIES):
        task = b'{"url":"http://a/","body"' + colon + content + b',"headers"' + colon + b'{"X-A":' + text + b"}}"
        raw = b'{"client_id":"abc","task":' + task + b',"cost"' + colon + b"1"
        assert decode(raw + b"}").problem is None
        for name in (b'"cost"', rb'"\u0063ost"'):
            assert problem(decode(raw + b"," + name + colon + b"1}")) == "$.cost: given twice"


def test_a_problem_still_tells_who_asked() -> None:
    """The client id is found in a body whose schema is wrong, so that the client can be judged first."""
    assert decode(b'{"task": 5, "client_id": "abc"}').client_id == "abc"


def test_null_is_absent() -> None:
    """Every optional field takes null for its default."""
    names = ["queue", "delay", "run_at", "expires_at", "rate_limit", "cost", "max_retry", "timeout", "idempotency_key"]
    fields = dict.fromkeys(names)
    [ask] = tasks(decode(body({"method": None, "headers": None, "body": None, "cost": None}, **fields)))
    [plain] = tasks(decode(body()))
    assert ask == plain
    assert (ask.queue, ask.method, ask.cost, ask.max_retry, ask.timeout) == ("default", "POST", 1, 5, 1800)


def test_bodies_are_sent_as_they_are_given() -> None:
    """A string is its UTF-8 bytes, an object the very text with a content type unless the task has one."""
    [text] = tasks(decode(body({"body": 'ä "q"'})))
    assert (text.body, text.headers) == ('ä "q"'.encode(), {})
    raw = b'{"client_id":"abc","task":{"url":"http://a/","body":{"b" : 1.10, "url": 2, "url": 3}}}'
    [given] = tasks(decode(raw))
    assert given.body == b'{"b" : 1.10, "url": 2, "url": 3}'
    assert given.headers == {"Content-Type": "application/json"}
    [typed] = tasks(decode(body({"body": [1], "headers": {"content-type": "x/y"}})))
    assert typed.headers == {"content-type": "x/y"}


def test_a_path_goes_to_the_upstream() -> None:
    """With UPSTREAM_URL a path is joined to its origin, and a protocol-relative URL is not one."""
    [ask] = tasks(decode(body({"url": "/x?y=1"}), decoding=UPSTREAM))
    assert ask.url == "http://127.0.0.1:9000/x?y=1"
    assert "$.task.url" in problem(decode(body({"url": "//x"}), decoding=UPSTREAM))


def test_a_past_run_at_means_now() -> None:
    """A start that has passed is none, one to come is kept in milliseconds."""
    assert tasks(decode(body(run_at="2001-01-01T00:00:00Z")))[0].run_at == 0
    assert tasks(decode(body(run_at="2023-11-14T23:13:20+00:00")))[0].run_at == 1_700_003_600_000


def test_the_key_of_header_and_body_must_agree() -> None:
    """The header alone counts, the same in both is fine, different ones are a problem."""
    assert tasks(decode(body(), "k1"))[0].idempotency_key == "k1"
    assert tasks(decode(body(idempotency_key="k1"), "k1"))[0].idempotency_key == "k1"
    assert "Idempotency-Key" in problem(decode(body(idempotency_key="k2"), "k1"))


@pytest.mark.parametrize(
    ("tasks", "named"),
    [
        ([], "$.tasks"),
        ([{"task": {"url": "http://a/"}}] * 1001, "$.tasks"),
        ([{"task": {"url": "http://a/"}}, {"task": {"url": "nope"}}], "$.tasks[1].task.url"),
        ([{"task": {"url": "http://a/"}}, {"task": {"ulr": "nope"}}], "$.tasks[1].task.ulr"),
        ([{"task": {"url": "http://a/"}, "client_id": "abc"}], "$.tasks[0].client_id: unknown field"),
        ([{"task": {"url": "http://a/", "headers": {"X-A": 1}}}], "$.tasks[0].task.headers.X-A"),
    ],
)
def test_a_batch_names_the_task(tasks: list[Any], named: str) -> None:
    """One malformed task is the problem of the whole and told with its index."""
    raw = json.dumps({"client_id": "abc", "tasks": tasks}).encode()
    assert named in problem(DECODING.batch(raw, Given(None, NOW)))


def test_a_batch_finds_duplicates_and_refuses_the_header() -> None:
    """A key given twice in one of many tasks is found; the header Idempotency-Key is not for batches."""
    item = b'{"task":{"url":"http://a/"}}'
    twice = b'{"task":{"url":"http://a/","cost":null,"cost":1}}'
    raw = b'{"client_id":"abc","tasks":[' + item + b"," + twice + b"]}"
    assert "$.tasks[1].task.cost: given twice" in problem(DECODING.batch(raw, Given(None, NOW)))
    good = b'{"client_id":"abc","tasks":[' + item + b"]}"
    assert "Idempotency-Key" in problem(DECODING.batch(good, Given("k", NOW)))
    assert len(DECODING.batch(good, Given(None, NOW)).asks) == 1
