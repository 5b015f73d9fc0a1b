"""The secrets that sign a client's deliveries: made here, kept in Redis (sealed, where TASK_ENCRYPTION_KEYS says so),
shown to nobody again."""

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Iterable, Sequence
from typing import Final

import msgspec
import structlog

from gateway.errors import Conflict, NotSigned, StoreUnavailable
from gateway.store.cache import Cache
from gateway.store.scripts import Runner
from gateway.store.sealing import Sealer, Unreadable

log = structlog.get_logger()

MOST: Final = 2  # the one in use, and the next one while receivers change over
PREFIX: Final = "whsec_"
_BYTES: Final = 32  # Standard Webhooks asks for 24 to 64
_READS: Final = 3
_AGAIN_SECONDS: Final = 0.5


class SigningSecret(msgspec.Struct, frozen=True):
    """``key`` is what signs, None where it can't be opened, and then ``unreadable`` says why; ``created_at`` in Unix
    µs, by Redis's clock; ``sealed_with``: the id of the key that opens it, None where it is stored in the clear."""

    secret_id: str
    created_at: int
    key: bytes | None
    sealed_with: str | None = None
    unreadable: str | None = None

    def __repr__(self) -> str:
        """Without the key, whoever prints it."""
        return f"SigningSecret({self.secret_id!r})"


class Resealed(msgspec.Struct, frozen=True):
    """What a walk over clients came to: secrets that were stored anew, and those that can't be opened, with their
    client."""

    secrets: int
    unreadable: list[tuple[str, SigningSecret]]


class SigningSecrets:
    """By client, with a cache in this process."""

    def __init__(self, runner: Runner, sealer: Sealer) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace
        self._sealer = sealer
        self._cache: Cache[tuple[SigningSecret, ...]] = Cache()

    async def get(self, client_id: str) -> tuple[SigningSecret, ...]:
        """Those that sign, oldest first; from the cache where it is fresh."""
        cached = self._cache.get(client_id)
        if cached is not None:
            return cached
        generation = self._cache.generation
        found = [self._opened(client_id, name, stored) for name, stored in await self._stored(client_id)]
        for secret in found:
            if secret.unreadable is not None:
                log.error(
                    "signing_secret_unreadable", client=client_id, secret=secret.secret_id, reason=secret.unreadable
                )
        found.sort(key=lambda secret: (secret.created_at, secret.secret_id))
        self._cache.put(client_id, tuple(found), generation)
        return tuple(found)

    async def create(self, client_id: str) -> tuple[SigningSecret, str]:
        """A new one, and the text to give to the receiver; raises Conflict where there are two."""
        secret_id, key = f"sec_{secrets.token_hex(4)}", secrets.token_bytes(_BYTES)
        created_at = await self._change(client_id, secret_id, self._kept(client_id, secret_id, key))
        if created_at < 0:
            msg = f"{client_id} has {MOST} signing secrets; remove the one that is no longer used first."
            raise Conflict(msg)
        made = SigningSecret(secret_id, created_at, key, self._sealer.first)
        return made, PREFIX + base64.b64encode(key).decode()

    async def remove(self, client_id: str, secret_id: str | None = None) -> bool:
        """One, or all of the client; whether there was any."""
        return await self._change(client_id, secret_id or "", "") > 0

    def keys(self, client_id: str) -> Sequence[bytes] | Awaitable[Sequence[bytes]]:
        """What a call is signed with; at once where it is known that nothing is. Waits while Redis is away: a receiver
        would refuse a call without its signature, and a claim that Redis does not hear of for long is called off
        anyway. Raises `NotSigned` where one of them can't be opened: nobody knows whether it is the one that the
        receiver has."""
        return () if self._cache.get(client_id) == () else self._keys(client_id)

    async def _keys(self, client_id: str) -> list[bytes]:
        while True:
            try:
                found = await self.get(client_id)
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            keys = []
            for secret in found:
                if secret.key is None:
                    reason = f"signing secret {secret.unreadable}"
                    raise NotSigned(reason)
                keys.append(secret.key)
            return keys

    async def reseal(self, client_ids: Iterable[str]) -> Resealed:
        """Store the secrets of these clients as new ones are: sealed with the first key, or in the clear."""
        done = await asyncio.gather(*map(self._reseal, client_ids))
        return Resealed(sum(count for count, _ in done), [each for _, unreadable in done for each in unreadable])

    def forget(self, client_id: str | None = None) -> None:
        """Read anew what this client has, or every client."""
        self._cache.forget(client_id)

    async def _reseal(self, client_id: str) -> tuple[int, list[tuple[str, SigningSecret]]]:
        count, unreadable = 0, []
        for name, stored in await self._stored(client_id):
            secret = self._opened(client_id, name, stored)
            if secret.key is None:
                unreadable.append((client_id, secret))
            elif secret.sealed_with != self._sealer.first:
                text = f"{secret.created_at} {self._kept(client_id, secret.secret_id, secret.key)}"
                key = self._keyspace.signing(client_id)
                count += await self._runner.run("reseal", client_id, key, secret.secret_id, stored, text)
        if count:
            self.forget(client_id)
        return count, unreadable

    async def _stored(self, client_id: str) -> list[tuple[bytes, bytes]]:
        flat = await self._runner.command("HGETALL", self._keyspace.signing(client_id), tries=_READS)
        return list(zip(flat[::2], flat[1::2], strict=True))

    def _kept(self, client_id: str, secret_id: str, key: bytes) -> str:
        """A key as it is stored."""
        if self._sealer.on:
            return self._sealer.seal(client_id, secret_id, key, "signing")
        return base64.b64encode(key).decode()

    def _opened(self, client_id: str, name: bytes, stored: bytes) -> SigningSecret:
        secret_id = name.decode(errors="replace")
        time, _, raw = stored.partition(b" ")
        text = raw.decode(errors="replace")
        created_at = int(time) if time.isdigit() else 0
        sealed_with = self._sealer.sealed_with(text)
        try:
            if sealed_with is not None:
                key = self._sealer.open(client_id, secret_id, text, "signing")
            elif not (key := base64.b64decode(text, validate=True)):
                raise ValueError
        except Unreadable as problem:
            return SigningSecret(secret_id, created_at, None, sealed_with, problem.reason)
        except ValueError:
            return SigningSecret(secret_id, created_at, None, None, "is not as the gateway stores one")
        return SigningSecret(secret_id, created_at, key, sealed_with)

    async def _change(self, client_id: str, secret_id: str, text: str) -> int:
        key = self._keyspace.signing(client_id)
        changed = await self._runner.run("signing", client_id, key, secret_id, text, MOST)
        self.forget(client_id)
        return int(changed)
