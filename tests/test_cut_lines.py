"""A connection that is cut at every byte of an exchange: what ran, and what its callers are told."""

import asyncio
from typing import Any

import pytest
from conftest import until
from links import NewLink, answer
from proxy import Proxy
from stores import spec

from gateway.errors import StoreUnavailable
from gateway.models import Admitted
from gateway.settings import Settings
from gateway.store import Store, open_store
from gateway.store.batching import MultiplexedLink


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
