"""The table of bad inputs: each is answered as docs/api.md says, and nothing else comes of it."""

import asyncio
import json
import resource
import time

import bad_http
import bad_inputs
import pytest
import redis
from bad_inputs import MAX_BODY, Bad
from conftest import GatewayFactory
from structlog.testing import capture_logs
from test_malformed_http import all_of

from gateway.middleware import connection, listening, reading

TABLE = (
    *(bad_inputs.BODIES + bad_inputs.ENCODINGS + bad_inputs.NUMBERS + bad_inputs.IDS + bad_inputs.URLS),
    *(bad_http.LINES + bad_http.HEADERS + bad_http.SIZES + bad_http.SMUGGLING + bad_http.STALLING),
)
SECONDS = 10.0  # for an answer; the deadlines of what stalls are shortened
MEMORY = 64 * 1024  # KiB that the process may grow by at its peak


async def answer(port: int, bad: Bad) -> tuple[int | None, bytes]:
    """Status and body of what is answered before the server closes the connection; None: nothing is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(bad.sent)
    if bad.half_closed:
        writer.write_eof()
    async with asyncio.timeout(SECONDS):
        got = await all_of(reader)
    writer.close()
    if not got:
        return None, b""
    head, _, body = got.partition(b"\r\n\r\n")
    assert (head + b"\r\n").count(b"\r\nServer: task-dispatch-gateway\r\n") == 1, head
    assert b"aiohttp" not in head
    return int(head.split()[1]), body


def stored(look: redis.Redis) -> list[bytes]:
    """The names of all keys, but for what counts wrong keys of operators."""
    return sorted(key for key in look.scan_iter() if not key.startswith(b"wrong_keys:"))


def test_the_table_is_large_and_names_each_once() -> None:
    """At least 60 inputs, and no two of one name."""
    assert len(TABLE) >= 60
    assert len({bad.name for bad in TABLE}) == len(TABLE)


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
async def test_bad_input(gateway: GatewayFactory, store_url: str, monkeypatch: pytest.MonkeyPatch, bad: Bad) -> None:
    """The status of the table, in JSON that names no defect; nothing is stored, no error is logged, memory and time are
    bounded, and the next caller is served."""
    monkeypatch.setattr(reading, "BODY_DEADLINE", 0.2)
    monkeypatch.setattr(connection, "HEAD_DEADLINE", 0.2)
    monkeypatch.setattr(listening, "LINGER_SECONDS", 0.2)
    gw = await gateway(dispatch=False, max_body_bytes=str(MAX_BODY), max_batch_bytes=str(MAX_BODY))
    with redis.Redis.from_url(store_url) as look:
        before = stored(look)
        peak, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        with capture_logs() as logs:
            status, body = await answer(int(gw.url.rpartition(":")[2]), bad)
        assert status == bad.status, body
        assert time.monotonic() - started < SECONDS
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEMORY
        assert stored(look) == before
    if status is not None and status >= 400:
        assert {"error", "message"} <= set(json.loads(body))
    assert not [entry for entry in logs if entry["log_level"] in {"error", "critical"}]
    assert "hunter2" not in str(logs)
    assert (await gw.call("GET", "/livez"))[0] == 200
