"""The doorbell over several servers, one of which is lost."""

import asyncio
from collections.abc import Sequence
from functools import partial

import redis.asyncio as redis
from conftest import DEADLINE, until
from proxy import proxy_to

from gateway.settings import Settings
from gateway.store.connection import arguments, connect
from gateway.store.doorbell import Doorbell
from gateway.store.link import Dial


async def test_a_lost_server_leaves_the_other_channels_heard(store_url: str) -> None:
    """Only its own channels are subscribed again: rings on the others arrive all the while, over their connection."""
    asked: list[list[str]] = []
    rung: list[str] = []
    changed: list[str | None] = []
    async with (
        proxy_to(store_url.removeprefix("unix://")) as line,
        redis.Redis.from_url(store_url) as operator,
    ):
        places = {"here": store_url, "there": line.url}

        async def homes(channels: Sequence[str]) -> list[tuple[Dial, list[str]]]:
            asked.append(list(channels))
            if len(asked) == 2:
                raise TimeoutError  # nobody knows yet who has it now
            return [(partial(connect, arguments(Settings.load({}), places[name])), [name]) for name in channels]

        bell = Doorbell(homes, ["here", "there"], sharded=False, on_change=changed.append)
        running = asyncio.create_task(bell.run())
        dispatch = asyncio.create_task(bell.listen_dispatch(rung.append, lambda: None))
        async with asyncio.timeout(DEADLINE):
            await bell.subscribed.wait()
        bell.subscribed.clear()
        line.cut()
        await until(lambda: len(asked) == 2)
        assert await operator.publish("there", "rlost") == 0
        assert await operator.publish("here", "rkept") == 1
        await until(lambda: rung == ["kept"])
        async with asyncio.timeout(DEADLINE):
            await bell.subscribed.wait()
        assert await operator.publish("there", "rback") == 1
        await until(lambda: rung == ["kept", "back"])
        for task in (running, dispatch):
            task.cancel()
        await asyncio.gather(running, dispatch, return_exceptions=True)
    assert asked == [["here", "there"], ["there"], ["there"]]
    assert changed == [None, None]  # after each whole subscription what is cached is dropped
