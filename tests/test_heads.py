"""Two readers of one request must not differ: what the express way takes, aiohttp reads as the same request."""

import asyncio
import random

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from gateway.middleware.heads import Head, Heads

GOOD = (
    b"POST /v1/enqueue HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Type: application/json\r\n"
    b"X-Client-ID: acme\r\nIdempotency-Key: k\r\nUser-Agent: a"
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
    *(b"\r\nTransfer-Encoding: chunked", b"\nTransfer-Encoding: chunked", b"\r\nConnection: close", b"\r\nUpgrade: x"),
)
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
    names = ("Content-Length", "X-Client-ID", "Idempotency-Key", "Host")
    given = [message.headers.getall(name, [None]) for name in names]
    if any(len(values) > 1 for values in given):
        return None
    return message.method, message.path, *(values[0] for values in given)


def as_express_reads_it(head: Head) -> tuple[object, ...]:
    """The same of what the express way found; spaces behind a value, which HTTP drops, make it none of its own."""
    texts = (text and text.rstrip() for text in (head.client_id, head.idempotency_key))
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
