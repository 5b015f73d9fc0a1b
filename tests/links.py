"""Multiplexed connections of a test, and a line to an emptied Valkey that can be cut."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from proxy import Proxy, proxy_to

from gateway.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.batching import MultiplexedLink
from gateway.store.connection import SingleRedis
from gateway.store.link import Confirmation

TIMEOUT = 5.0


@pytest.fixture
async def line(store_url: str) -> AsyncIterator[Proxy]:
    """A proxy before an emptied Valkey."""
    async with proxy_to(store_url.removeprefix("unix://")) as proxy:
        yield proxy


NewLink = Callable[..., MultiplexedLink]


@pytest.fixture
async def new_link() -> AsyncIterator[NewLink]:
    """`new_link(url, confirmation, REDIS_TIMEOUT=…)`: links that are closed at the end."""
    async with AsyncExitStack() as stack:

        def make(url: str, confirmation: Confirmation | None = None, **environment: str) -> MultiplexedLink:
            env = {"REDIS_TIMEOUT": str(TIMEOUT), **environment}
            settings = Settings.load({"REDIS_URL": url, **env})
            made = SingleRedis(settings, url).link(
                lambda dial: MultiplexedLink("test", dial, settings.redis_timeout, confirmation)
            )
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
