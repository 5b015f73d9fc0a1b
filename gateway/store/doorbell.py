"""Hears what other processes publish: a client became ready, something is due earlier, a client's settings changed.

Losing a message costs time, not work: dispatchers look by themselves every second, cached settings live 60 s.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import redis.asyncio as redis
import structlog
from redis.exceptions import RedisError

from gateway import metrics
from gateway.store.batching import describe
from gateway.store.keyspace import Keyspace

log = structlog.get_logger()

_RECONNECT_SECONDS = 0.5


class Doorbell:
    """One subscription for the process."""

    def __init__(
        self,
        client: Callable[[], redis.Redis],
        keyspace: Keyspace,
        on_change: Callable[[str | None], None],
    ) -> None:
        self._client = client
        self._bell = keyspace.bell.encode()
        self._changes = keyspace.changes.encode()
        self._on_change = on_change
        self._on_ready: Callable[[str], None] | None = None
        self._on_due: Callable[[], None] | None = None
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        """Subscribe and hand messages out until cancelled; subscribes again after every loss."""
        down = False
        while True:
            client = self._client()
            try:
                async with client.pubsub() as channel:
                    await channel.subscribe(self._bell, self._changes)
                    self._on_change(None)  # what was announced meanwhile went unheard
                    down = False
                    async for message in channel.listen():
                        self._hand_out(message)
            except (RedisError, OSError, TimeoutError) as error:
                if not down:
                    down = True
                    metrics.redis_error("subscribe")
                    log.error("redis_error", redis_operation="subscribe", error=describe(error))
            finally:
                self.subscribed.clear()
                await client.aclose()
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _hand_out(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self.subscribed.set()
        if message["type"] != "message":
            return
        data = message["data"].decode()
        if message["channel"] == self._changes:
            self._on_change(data)
        elif data == "d":
            if self._on_due is not None:
                self._on_due()
        elif self._on_ready is not None:
            self._on_ready(data[1:])

    async def listen_dispatch(self, on_ready: Callable[[str], None], on_due: Callable[[], None]) -> None:
        """Call back for ready clients and earlier due times, until cancelled."""
        self._on_ready, self._on_due = on_ready, on_due
        try:
            await asyncio.Event().wait()
        finally:
            self._on_ready = self._on_due = None
