"""The multiplexed connection against a real server, through a line that is cut, held and overfilled."""

import asyncio
import random
import time

import pytest
import redis
from conftest import until
from links import NewLink, answer
from proxy import Proxy
from waiting import DEADLINE

from gateway.errors import StoreUnavailable
from gateway.store import batching
from gateway.store.link import CommandError, Confirmation


async def test_many_callers_some_of_whom_leave_get_their_own_replies(new_link: NewLink, line: Proxy) -> None:
    """Callers cancelled before the flush, after it and while the reply travels leave the others' replies in place."""
    link = new_link(line.url)
    await link.execute("PING")
    line.answering.clear()
    chance = random.Random(7)
    callers = [asyncio.ensure_future(link.execute("ECHO", str(number))) for number in range(3000)]
    before, after, late = (
        [number for number in range(first, first + 1000) if chance.random() < 0.2] for first in (0, 1000, 2000)
    )
    await asyncio.sleep(0)
    for number in before:
        callers[number].cancel()
    await until(lambda: b"$4\r\n2999" in line.sent)
    for number in after:
        callers[number].cancel()
    line.answering.set()
    for number in late:
        callers[number].cancel()
        await asyncio.sleep(0)
    replies = await asyncio.gather(*callers, return_exceptions=True)
    for number, reply in enumerate(replies):
        left = isinstance(reply, asyncio.CancelledError)
        assert left or reply == str(number).encode()
        assert left == (number in {*before, *after}) or number in late


async def test_a_command_whose_caller_left_before_the_flush_is_not_sent(new_link: NewLink, store_url: str) -> None:
    """Cancelled in the same loop turn, it never ran; cancelled after the write, it may have, and did."""
    link = new_link(store_url)
    await link.execute("PING")
    early = asyncio.ensure_future(link.execute("INCR", "early"))
    late = asyncio.ensure_future(link.execute("INCR", "late"))
    await asyncio.sleep(0)  # both have asked; the flush is due
    early.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    late.cancel()
    assert await link.execute("MGET", "early", "late") == [None, b"1"]


async def test_commands_of_one_loop_turn_leave_in_one_write(new_link: NewLink, store_url: str) -> None:
    """A hundred concurrent commands are one write to the socket."""
    link = new_link(store_url)
    await link.execute("PING")
    assert link._wire is not None
    writes = []
    write = link._wire.writer.write
    link._wire.writer.write = lambda data: (writes.append(data), write(data))[1]  # type: ignore[method-assign,func-returns-value]
    await asyncio.gather(*(link.execute("ECHO", str(number)) for number in range(100)))
    assert len(writes) == 1


async def test_a_large_command_is_sent_before_the_turn_ends(new_link: NewLink, store_url: str) -> None:
    """Redis has it although the loop does nothing meanwhile; a small one waits for what else the turn brings."""
    link = new_link(store_url)
    await link.execute("PING")
    with redis.Redis.from_url(store_url) as other:
        small = link.begin("SET", "small", "x")
        assert other.exists("small") == 0
        large = link.begin("SET", "large", "x" * 5000)
        end = time.monotonic() + DEADLINE
        while other.exists("small", "large") < 2:
            assert time.monotonic() < end, "it waits for the end of the turn"
    assert [await small, await large] == [b"OK", b"OK"]


async def test_what_is_confirmed_is_sent_at_the_end_of_the_turn(new_link: NewLink, store_url: str) -> None:
    """However much it is: what is sent ahead would be confirmed by itself, and the rest would wait for that first."""
    link = new_link(store_url, Confirmation(("WAIT", 0, 1000), lambda _: True, 1.0))
    await link.execute("PING")
    with redis.Redis.from_url(store_url) as other:
        other.config_resetstat()
        sent = [link.begin("SET", f"key-{number}", "x" * 3000) for number in range(20)]
        assert await asyncio.gather(*sent) == [b"OK"] * 20
        assert other.info("commandstats")["cmdstat_wait"]["calls"] == 1


async def test_no_reply_within_the_timeout_is_unknown_and_the_connection_is_given_up(
    new_link: NewLink, line: Proxy
) -> None:
    """A held reply fails its caller after REDIS_TIMEOUT; the late reply reaches nobody, the next command its own."""
    link = new_link(line.url, REDIS_TIMEOUT="0.3")
    await link.execute("PING")
    line.answering.clear()
    started = asyncio.get_running_loop().time()
    error = await answer(link.execute("ECHO", "late"))
    assert isinstance(error, StoreUnavailable)
    assert error.unknown
    assert 0.3 <= asyncio.get_running_loop().time() - started < 2
    line.answering.set()
    assert await answer(link.execute("ECHO", "fresh")) == b"fresh"
    assert line.connections == 2


async def test_a_server_that_accepts_and_says_nothing_holds_nobody_longer_than_the_timeout(
    new_link: NewLink, line: Proxy
) -> None:
    """While a connection is made, a caller waits REDIS_TIMEOUT, not REDIS_CONNECT_TIMEOUT, and nothing was sent."""
    line.answering.clear()
    link = new_link(line.url, REDIS_TIMEOUT="0.3", REDIS_CONNECT_TIMEOUT="30")
    started = asyncio.get_running_loop().time()
    error = await answer(link.execute("INCR", "n"))
    assert isinstance(error, StoreUnavailable)
    assert not error.unknown
    assert asyncio.get_running_loop().time() - started < 2
    assert b"INCR" not in line.sent


async def test_what_waits_is_bounded_in_number(new_link: NewLink, line: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound a caller is refused at once, as not sent; those before it get their replies."""
    monkeypatch.setattr(batching, "_MAX_UNANSWERED", 10)
    link = new_link(line.url)
    await link.execute("PING")
    line.answering.clear()
    waiting = [asyncio.ensure_future(link.execute("ECHO", str(number))) for number in range(10)]
    await until(lambda: link._wire is not None and len(link._wire.unanswered) == 10)
    error = await answer(link.execute("ECHO", "too many"))
    assert isinstance(error, StoreUnavailable)
    assert not error.unknown
    line.answering.set()
    assert await asyncio.gather(*waiting) == [str(number).encode() for number in range(10)]


async def test_what_waits_is_bounded_in_bytes(new_link: NewLink, line: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a server that does not read, the transport's buffer grows to the bound and no further; then it recovers."""
    monkeypatch.setattr(batching, "_MAX_UNSENT_BYTES", 8 * 1024 * 1024)
    link = new_link(line.url)
    await link.execute("PING")
    line.listening.clear()
    payload = b"x" * 1024 * 1024
    waiting = []
    refused = None
    for _ in range(64):
        caller = asyncio.ensure_future(link.execute("ECHO", payload))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if caller.done():
            refused = caller.exception()
            break
        waiting.append(caller)
    assert isinstance(refused, StoreUnavailable)
    assert not refused.unknown
    assert link._wire is not None
    assert link._wire.writer.transport.get_write_buffer_size() <= 8 * 1024 * 1024
    line.listening.set()
    assert await asyncio.gather(*waiting) == [payload] * len(waiting)


async def test_one_command_larger_than_the_bound_still_goes(
    new_link: NewLink, line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is on what piles up; alone, any command is sent."""
    monkeypatch.setattr(batching, "_MAX_UNSENT_BYTES", 1000)
    payload = b"x" * 5000
    assert await answer(new_link(line.url).execute("ECHO", payload)) == payload


async def test_a_link_reconnects_by_itself_and_refuses_quickly_meanwhile(new_link: NewLink, line: Proxy) -> None:
    """With nobody listening callers fail at once and nothing was sent; when somebody does again, commands pass."""
    link = new_link(line.url)
    await link.execute("PING")
    line.upstream = "/nowhere"
    line.cut()

    async def refused() -> bool:
        error = await answer(link.execute("PING"))
        return isinstance(error, StoreUnavailable) and not error.unknown

    await until(refused)
    line.upstream = ("127.0.0.1", 1)
    assert isinstance(await answer(link.execute("PING")), StoreUnavailable)


async def test_a_reply_nobody_asked_for_ends_the_connection(new_link: NewLink, line: Proxy) -> None:
    """A stray reply means that the order is lost: the connection goes, and the next command gets its own reply."""
    link = new_link(line.url)
    await link.execute("PING")
    line.to_gateway[-1].write(b"+stray\r\n")
    await until(lambda: not link.connected)
    assert await answer(link.execute("ECHO", "mine")) == b"mine"


async def test_an_error_reply_is_an_error_of_its_own_caller(new_link: NewLink, store_url: str) -> None:
    """Between two good commands, a bad one raises CommandError with Redis's code, the others get their replies."""
    link = new_link(store_url)
    replies = await asyncio.gather(
        link.execute("ECHO", "a"), link.execute("NOSUCH"), link.execute("ECHO", "b"), return_exceptions=True
    )
    assert (replies[0], replies[2]) == (b"a", b"b")
    assert isinstance(replies[1], CommandError)
    assert replies[1].code == "ERR"


async def test_closing_fails_what_is_unanswered_as_unknown_and_refuses_the_rest(new_link: NewLink, line: Proxy) -> None:
    """At a stop nobody is left waiting."""
    link = new_link(line.url)
    await link.execute("PING")
    line.answering.clear()
    sent = asyncio.ensure_future(link.execute("ECHO", "x"))
    assert link._wire is not None
    await until(lambda: link._wire is not None and link._wire.unanswered)
    await link.close()
    error = await answer(sent)
    assert isinstance(error, StoreUnavailable)
    assert error.unknown
    after = await answer(link.execute("PING"))
    assert isinstance(after, StoreUnavailable)
    assert not after.unknown
