"""Clients' settings: read, cached, changed, listed. What they mean for a request is decided in `gateway.middleware`."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import orjson
import structlog

from gateway.errors import Conflict, GatewayError, StoreUnavailable
from gateway.models import DEFAULT_TIER, Client, RateLimit
from gateway.settings import Settings
from gateway.store.cache import Cache
from gateway.store.client_list import ClientFilter, ClientList, ClientPage
from gateway.store.scripts import Runner
from gateway.store.tiers import Tiers

log = structlog.get_logger()

_READS: Final = 3
_AGAIN_SECONDS: Final = 0.5
_UPDATE_TRIES: Final = 20
_PURGE: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS: Final = re.compile(r"(\.\d{6})\d+")


class UnreadableClient(Conflict):
    """The stored settings of a client can't be read; they are left alone until an operator looks."""


def _limit(value: Any) -> RateLimit | None:
    """A stored rate limit; null, or numbers below 1 as some programs write for "none", is none."""
    if not value:
        return None
    concurrent, per_minute = value["max_concurrent"], value["requests_per_min"]
    if not isinstance(concurrent, int) or not isinstance(per_minute, int):
        msg = "rate_limit holds something other than whole numbers"
        raise TypeError(msg)
    return RateLimit(concurrent, per_minute) if concurrent > 0 and per_minute > 0 else None


def _time(value: Any) -> datetime:
    """RFC 3339 with up to nanoseconds and any offset, as UTC to the second; absent is the epoch."""
    if not value:
        return _EPOCH
    parsed = datetime.fromisoformat(_NANOSECONDS.sub(r"\1", value))
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)


class Clients:
    """The known clients, with a cache in this process."""

    def __init__(self, runner: Runner, settings: Settings, tiers: Tiers) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace
        self._known_tiers = tiers
        self._tiers = tiers.current
        self._max_clients = runner.keyspace.share(settings.max_clients)
        self._cache: Cache[Client] = Cache()
        self._list = ClientList(runner, self._readable)

    def new(self, client_id: str) -> Client:
        """What auto-creation makes; not stored."""
        now = datetime.now(UTC).replace(microsecond=0)
        return Client(
            client_id=client_id,
            tier=DEFAULT_TIER,
            rate_limit=self._tiers[DEFAULT_TIER],
            allowed_queues=None,
            enabled=True,
            created_at=now,
            updated_at=now,
            source="tier",
        )

    @staticmethod
    def encoded(client: Client) -> bytes:
        """The stored form: the fields the API shows."""
        return msgspec.json.encode(client)

    def cached(self, client_id: str) -> Client | None:
        """What is remembered of the client, None where Redis has to be asked."""
        return self._cache.get(client_id)

    async def get(self, client_id: str) -> Client | None:
        """The client, from the cache where it is fresh; None: unknown. Raises UnreadableClient."""
        cached = self._cache.get(client_id)
        if cached is not None:
            return cached
        if not self._known_tiers.packed:
            await self._known_tiers.load()
        generation = self._cache.generation
        text = await self._runner.command("GET", self._keyspace.config(client_id), tries=_READS)
        if text is None:
            return None
        client = self._decode(client_id, text)
        self._cache.put(client_id, client, generation)
        return client

    def allowed_hosts(self, client_id: str) -> tuple[str, ...] | Awaitable[tuple[str, ...] | None] | None:
        """Where the client's calls may go, None: anywhere; at once where it is known. Waits while Redis is away: a call
        that may not be made must not be, and a claim that Redis does not hear of for long is called off anyway. Raises
        UnreadableClient."""
        client = self._cache.get(client_id)
        return self._allowed_hosts(client_id) if client is None else client.allowed_hosts

    async def _allowed_hosts(self, client_id: str) -> tuple[str, ...] | None:
        while True:
            try:
                client = await self.get(client_id)
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return None if client is None else client.allowed_hosts

    def forget(self, client_id: str | None = None) -> None:
        """Drop one cached client, or all."""
        self._cache.forget(client_id)

    async def update(self, client_id: str, change: Callable[[Client | None], Client]) -> Client:
        """Store what ``change`` makes of the present client; asked again where another admin was faster."""
        for _ in range(_UPDATE_TRIES):
            text = await self._runner.command("GET", self._keyspace.config(client_id), tries=_READS)
            client = change(None if text is None else self._decode(client_id, text))
            stored = await self._runner.run(
                "set_client",
                client_id,
                text or b"",
                self.encoded(client),
                self._max_clients,
            )
            self.forget(client_id)
            if stored == 1:
                return client
            if stored < 0:
                raise GatewayError(
                    "There are as many clients as MAX_CLIENTS allows; delete one or raise it.",
                    status=400,
                    error="Too many clients",
                )
        raise Conflict("The client is being changed by others all the time; try again.")

    async def delete(self, client_id: str, *, cancel_tasks: bool) -> int:
        """Remove the settings, and cancel what waits where asked; returns how many tasks were cancelled."""
        await self._runner.run("delete_client", client_id)
        self.forget(client_id)
        cancelled = 0
        while cancel_tasks and (gone := await self._runner.run("purge", client_id, _PURGE)):
            cancelled += gone
        return cancelled

    async def pause(self, client_id: str, queue: str = "", *, paused: bool) -> bool:
        """Have the client, or one of its queues, start nothing more, or start again; returns whether that is news."""
        return bool(await self._runner.run("pause", client_id, queue, int(paused)))

    async def page(
        self,
        *,
        after: str | None,
        limit: int | None,
        tier: str | None,
        enabled: bool | None,
        search: str | None = None,
    ) -> ClientPage:
        """Clients by id after ``after``, all of them where ``limit`` is None."""
        return await self._list.page(ClientFilter(tier, enabled, search), after=after, limit=limit)

    async def ids(self, *, after: str | None, limit: int) -> tuple[list[str], str | None]:
        """See `ClientList.ids`."""
        return await self._list.ids(after=after, limit=limit)

    def _readable(self, client_id: str, text: bytes) -> Client | None:
        try:
            return self._decode(client_id, text)
        except UnreadableClient:
            return None

    def _decode(self, client_id: str, text: bytes) -> Client:
        try:
            fields = orjson.loads(text)
            own = _limit(fields.get("rate_limit"))
            tier = fields.get("tier") or DEFAULT_TIER
            from_tier = fields.get("source") == "tier" or own is None
            current = self._tiers.get(tier) if from_tier else None
            queues = fields.get("allowed_queues")
            if queues and not isinstance(queues, list):
                msg = "allowed_queues is something other than a list"
                raise TypeError(msg)
            hosts = fields.get("allowed_hosts")
            if hosts is not None and not isinstance(hosts, list):
                msg = "allowed_hosts is something other than a list"
                raise TypeError(msg)
            enabled = fields.get("enabled")
            client = Client(
                client_id=client_id,
                tier=tier,
                rate_limit=current or own or self._tiers[DEFAULT_TIER],
                allowed_queues=tuple(queues) if queues else None,
                enabled=True if enabled is None else enabled,
                created_at=_time(fields.get("created_at")),
                updated_at=_time(fields.get("updated_at")),
                source="tier" if from_tier else "client",
                allowed_hosts=None if hosts is None else tuple(hosts),
            )
            return msgspec.convert(msgspec.to_builtins(client), Client)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, msgspec.ValidationError) as error:
            log.error("client_unreadable", client=client_id, error=str(error))
            key = self._keyspace.config(client_id)
            msg = f"The stored settings of {client_id} can't be read and are left as they are; look at {key} in Redis."
            raise UnreadableClient(msg) from error
