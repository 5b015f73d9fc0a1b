"""Two readers of one request must not differ: what the express way takes, aiohttp reads as the same request."""

import asyncio
import random

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from gateway.middleware.express import _length
from gateway.middleware.heads import Head, Heads

GOOD = (
    b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Type: application/json\r\n"
    b"X-Client-ID: acme\r\nX-Client-Key: gwk_1\r\nAuthorization: Bearer a\r\nIdempotency-Key: k\r\nX-Request-ID: r\r\n"
    b"User-Agent: a"
)
# What such readers were seen to differ about: ends of lines, folds, spaces, lengths and encodings given otherwise.
PIECES = (
    *(
        b"\n",
        b"\r",
        b"\r\n",
        b" ",
        b"\t",
        b"\0",
        b":",
        b"\r\n ",
        b"\r\n\t",
        b"\x0b",
        b"\x1f",
        b"\x7f",
        b"\xff",
        b"\x80",
    ),
    *(b"+", b"-", b"0", b"_", b",", b";", b'"', b"%0a", b"\r\nContent-Length: 3", b"\nContent-Length: 3", b", 3"),
    *(
        b"\r\nX-Client-ID: other",
        b"\r\nx-client-key:b",
        b"\r\nX_Client_ID: other",
        b"\r\nHost: y",
        b"\xd9\xa2",
        b"\x85",
    ),
    *(b"\r\nOrigin: https://x", b"\r\nExpect: 100-continue", b"\r\nTransfer_Encoding: chunked", b"HTTP/1.0", b"\xa0"),
    *(b"\r\nTransfer-Encoding: chunked", b"\nTransfer-Encoding: chunked", b"\r\nConnection: close", b"\r\nUpgrade: x"),
)
HEEDED = ("X-Client-ID", "X-Client-Key", "Authorization", "Idempotency-Key", "X-Request-ID")
MUTATIONS = 40_000


def mutated(chance: random.Random) -> bytes:
    """The good head with one to three pieces put in, taken out or replaced, up to where it ends then."""
    head = GOOD
    for _ in range(chance.randint(1, 3)):
        at, kind = chance.randrange(len(head) + 1), chance.random()
        if kind < 0.7:
            head = head[:at] + chance.choice(PIECES) + head[at:]
        elif kind < 0.85:
            head = head[:at] + head[at + chance.randint(1, 30) :]
        else:
            head = head[:at] + bytes([chance.randrange(256)]) + head[at + 1 :]
    return head.partition(b"\r\n\r\n")[0]


def as_aiohttp_reads_it(head: bytes, loop: asyncio.AbstractEventLoop) -> tuple[object, ...] | None:
    """Method, path, length and the headers that count; None where it is no request, or not one for the express way."""
    parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16, auto_decompress=False)
    try:
        [(message, _)], _, rest = parser.feed_data(head + b"\r\n\r\n")
    except (HttpProcessingError, ValueError):
        return None
    if rest or message.should_close or message.upgrade or message.chunked:
        return None
    names = ("Content-Length", *HEEDED, "Host")
    given = [message.headers.getall(name, [None]) for name in names]
    if any(len(values) > 1 for values in given):
        return None
    return message.method, message.path, *(values[0] for values in given)


def as_express_reads_it(head: Head) -> tuple[object, ...]:
    """The same of what the express way found; spaces behind a value, which HTTP drops, make it none of its own."""
    given = (head.client_id, head.client_key, head.authorization, head.idempotency_key, head.request_id)
    texts = (text and text.rstrip() for text in given)
    return "POST", "/v1/enqueue", head.length, *texts


async def test_what_the_express_way_takes_aiohttp_reads_the_same() -> None:
    """Over thousands of heads that are nearly good: no length, client or key differs, and a host is named."""
    heads, loop, chance = Heads("/v1/enqueue"), asyncio.get_running_loop(), random.Random(1)
    taken = 0
    for _ in range(MUTATIONS):
        head = mutated(chance)
        found = heads.read(head)
        if found is None:
            continue
        taken += 1
        read = as_aiohttp_reads_it(head, loop)
        assert read is not None, head
        method, path, length, *texts, host = read
        assert (method, path, int(str(length)), *texts) == as_express_reads_it(found), head
        assert host is not None, head
    assert taken > MUTATIONS / 100


def as_aiohttp_frames_it(data: bytes, loop: asyncio.AbstractEventLoop) -> bool | None:
    """Whether these bytes are one request to its very end; None where they are none."""
    parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16, auto_decompress=False)
    try:
        messages, _, rest = parser.feed_data(data)
    except (HttpProcessingError, ValueError):
        return None
    return len(messages) == 1 and not rest and bool(messages[0][1].is_eof())


async def test_the_express_way_opens_where_a_request_of_aiohttps_ends() -> None:
    """Requests that aiohttp gets are counted, so that nothing of theirs passes it by: where that gives an end, aiohttp
    has one there too, or the body of one request could hold another that is taken."""
    loop, chance, ends = asyncio.get_running_loop(), random.Random(2), 0
    inner = GOOD + b"\r\n\r\n{}"
    for _ in range(MUTATIONS):
        head = mutated(chance).replace(b"Content-Length: 2", b"Content-Length: %d" % len(inner), 1)
        data = head + b"\r\n\r\n" + inner * 2
        length = _length(data)
        if length is None or length > len(data) or not head:  # empty lines before a request are no part of it
            continue
        ends += 1
        assert as_aiohttp_frames_it(data[:length], loop) is not False, data[:length]
    assert ends > MUTATIONS / 10
