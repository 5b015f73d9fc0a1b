"""The multiplexed connection against a real server, through a line that is cut, held and overfilled."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from conftest import until
from proxy import Proxy, proxy_to
from test_store import spec

from gateway.errors import StoreUnavailable
from gateway.models import Admitted
from gateway.settings import Settings
from gateway.store import Store, batching, open_store
from gateway.store.batching import MultiplexedLink
from gateway.store.connection import SingleRedis
from gateway.store.link import CommandError

TIMEOUT = 5.0


@pytest.fixture
async def line(store_url: str) -> AsyncIterator[Proxy]:
    """A proxy before an emptied Valkey."""
    async with proxy_to(store_url.removeprefix("unix://")) as proxy:
        yield proxy


NewLink = Callable[..., MultiplexedLink]


@pytest.fixture
async def new_link() -> AsyncIterator[NewLink]:
    """`new_link(url, REDIS_TIMEOUT=…)`: links that are closed at the end."""
    async with AsyncExitStack() as stack:

        def make(url: str, **environment: str) -> MultiplexedLink:
            env = {"REDIS_TIMEOUT": str(TIMEOUT), **environment}
            settings = Settings.load({"REDIS_URL": url, **env})
            made = SingleRedis(settings, url).link(lambda dial: MultiplexedLink(dial, settings.redis_timeout))
            stack.push_async_callback(made.close)
            return made

        yield make


async def answer(awaitable: Awaitable[Any]) -> Any:
    """The reply, or the StoreUnavailable there was instead; anything but both within the deadline fails the test."""
    async with asyncio.timeout(TIMEOUT * 3):
        try:
            return await awaitable
        except StoreUnavailable as error:
            return error


async def exchanged(new_link: NewLink, line: Proxy, command: tuple[Any, ...]) -> tuple[int, int, int, int]:
    """Bytes of a connection's set-up and of that with the command, up and down."""
    link = new_link(line.url)
    connection = await link._dial()
    await connection.disconnect()
    up, down = len(line.sent), len(line.answered)
    line.sent.clear()
    line.answered.clear()
    await link.execute(*command)
    return up, len(line.sent), down, len(line.answered)


async def test_a_line_cut_at_any_byte_of_the_command_runs_nothing_and_says_whether_it_was_sent(
    new_link: NewLink, line: Proxy, store_url: str
) -> None:
    """Cut before the command's last byte, nothing ran; `unknown` is False only where no byte of it had left."""
    raw = new_link(store_url)
    set_up, whole, _, _ = await exchanged(new_link, line, ("INCR", "n"))
    for most in range(whole):
        line.up = most
        error = await answer(new_link(line.url).execute("INCR", "n"))
        assert isinstance(error, StoreUnavailable), f"cut after {most} bytes"
        assert error.unknown is (most >= set_up), f"cut after {most} bytes"
    assert await raw.execute("GET", "n") == b"1"  # the one that measured


async def test_a_line_cut_at_any_byte_of_the_reply_has_run_the_command_once(
    new_link: NewLink, line: Proxy, store_url: str
) -> None:
    """Cut within the reply, the command ran exactly once and its caller hears that nobody knows."""
    raw = new_link(store_url)
    _, _, set_up, whole = await exchanged(new_link, line, ("INCR", "n"))
    for most in range(set_up, whole):
        await raw.execute("DEL", "n")
        line.down = most
        error = await answer(new_link(line.url).execute("INCR", "n"))
        assert isinstance(error, StoreUnavailable), f"cut after {most} bytes"
        assert error.unknown, f"cut after {most} bytes"
        assert await raw.execute("GET", "n") == b"1", f"cut after {most} bytes"
    line.down = None


async def test_after_a_cut_at_any_byte_the_same_link_answers_each_caller_its_own(
    new_link: NewLink, line: Proxy
) -> None:
    """Three commands share a write; wherever their replies are cut, what arrives is right and the next ones are too."""
    texts = [f"reply-{number}" for number in range(3)]

    async def three(link: MultiplexedLink) -> list[Any]:
        return await asyncio.gather(*(answer(link.execute("ECHO", text)) for text in texts))

    _, _, set_up, one = await exchanged(new_link, line, ("ECHO", texts[0]))
    for most in range(set_up, set_up + 3 * (one - set_up)):
        line.down = most
        link = new_link(line.url)
        arrived = (most - set_up) // (one - set_up)
        replies = await three(link)
        assert replies[:arrived] == [text.encode() for text in texts[:arrived]], f"cut after {most} bytes"
        assert all(isinstance(reply, StoreUnavailable) and reply.unknown for reply in replies[arrived:])
        line.down = None
        assert await three(link) == [text.encode() for text in texts], f"cut after {most} bytes"
        await link.close()


@pytest.mark.parametrize("way", ["up", "down"])
async def test_an_enqueue_over_a_line_that_is_cut_is_stored_once_or_not_at_all(
    way: str, line: Proxy, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through cuts all over an admission, the task exists at most once, and surely where its caller was told 201."""

    async def nothing(_: Store) -> None:
        """Reading the tiers after each loss would use up what the line lets through."""

    monkeypatch.setattr(Store, "_refresh_tiers", nothing)
    settings = Settings.load({"REDIS_URL": line.url, "MAX_QUEUED_PER_CLIENT": "1000"})
    async with open_store(Settings.load({}), store_url) as near:
        await near.tasks.admit("warm", spec(), create=True)
        seen: set[tuple[bool, int]] = set()
        for most in range(20 if way == "up" else 0, 2700 if way == "up" else 260, 61 if way == "up" else 2):
            client = f"client-{way}-{most}"
            setattr(line, way, None)
            async with open_store(settings, line.url) as store:
                await store.clients.get("warm")
                line.cut()
                setattr(line, way, most)
                await until(lambda link=store._front: not link.connected)
                told = await answer(store.tasks.admit(client, spec(idempotency_key="k"), create=True))
                setattr(line, way, None)
            usage = await near.windows.usage(client)
            seen.add((isinstance(told, Admitted), usage.queued))
            assert usage.queued <= 1
            assert usage.window.used == usage.queued
            assert usage.queued == 1 or not isinstance(told, Admitted)
            assert usage.queued == 0 or isinstance(told, Admitted) or told.unknown
            again = await near.tasks.admit(client, spec(idempotency_key="k"), create=True)
            assert (await near.windows.usage(client)).queued == 1, again
    assert seen == {(False, 0), (True, 1)} | ({(False, 1)} if way == "down" else set())


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
