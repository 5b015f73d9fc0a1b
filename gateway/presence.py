"""Tells the others on this Redis that this process is there, every few seconds until it stops."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from itertools import count
from time import time

import structlog

import gateway
from gateway.errors import StoreUnavailable
from gateway.middleware.contracts import Dispatching
from gateway.neighbours import Neighbours, machine_addresses
from gateway.settings import Settings
from gateway.store import Store
from gateway.store.replicas import BEAT_SECONDS, Replica

log = structlog.get_logger()

_LEAVE_SECONDS = 0.5
_LEARN_BEATS = 3  # every replica reads what all have told


@contextlib.asynccontextmanager
async def presence(
    store: Store,
    settings: Settings,
    dispatcher: Dispatching | None,
    listeners: Sequence[tuple[str, int]] = (),
    neighbours: Neighbours | None = None,
) -> AsyncIterator[None]:
    """The process is seen while the context is open, and at once no more after it; ``neighbours`` learn of others."""
    beating = asyncio.create_task(_beat(store, settings, dispatcher, tuple(listeners), neighbours))
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await store.replicas.leave(store.consumer)


async def _beat(
    store: Store,
    settings: Settings,
    dispatcher: Dispatching | None,
    listeners: tuple[tuple[str, int], ...],
    neighbours: Neighbours | None,
) -> None:
    started = int(time() * 1000)
    for beat in count():
        replica = Replica(
            name=store.consumer,
            version=gateway.__version__,
            role="admin" if settings.admin_only else settings.role,
            started_at=started,
            seen_at=int(time() * 1000),
            in_flight=0 if dispatcher is None else dispatcher.in_flight,
            max_in_flight=settings.max_in_flight,
            lanes=0 if dispatcher is None else dispatcher.lanes,
            listeners=listeners,
            addresses=machine_addresses(),
        )
        try:
            await store.replicas.beat(replica)
            if neighbours is not None and beat % _LEARN_BEATS == 0:
                neighbours.learn(await store.replicas.all())
        except StoreUnavailable as error:
            log.debug("presence_not_told", error=error.message)
        await asyncio.sleep(BEAT_SECONDS)
