"""The secrets that sign a client's deliveries: made here, kept in Redis, shown to nobody again."""

import asyncio
import base64
import secrets
from typing import Final

import msgspec

from gateway.errors import Conflict, StoreUnavailable
from gateway.store.cache import Cache
from gateway.store.scripts import Runner

MOST: Final = 2  # the one in use, and the next one while receivers change over
PREFIX: Final = "whsec_"
_BYTES: Final = 32  # Standard Webhooks asks for 24 to 64
_READS: Final = 3
_AGAIN_SECONDS: Final = 0.5


class SigningSecret(msgspec.Struct, frozen=True):
    """``key`` is what signs; ``created_at`` in Unix µs, by Redis's clock."""

    secret_id: str
    created_at: int
    key: bytes

    def __repr__(self) -> str:
        """Without the key, whoever prints it."""
        return f"SigningSecret({self.secret_id!r})"


class SigningSecrets:
    """By client, with a cache in this process."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace
        self._cache: Cache[tuple[SigningSecret, ...]] = Cache()

    async def get(self, client_id: str) -> tuple[SigningSecret, ...]:
        """Those that sign, oldest first; from the cache where it is fresh."""
        cached = self._cache.get(client_id)
        if cached is not None:
            return cached
        generation = self._cache.generation
        flat = await self._runner.command("HGETALL", self._keyspace.signing(client_id), tries=_READS)
        found = []
        for secret_id, stored in zip(flat[::2], flat[1::2], strict=True):
            created_at, text = stored.split(b" ", 1)
            found.append(SigningSecret(secret_id.decode(), int(created_at), base64.b64decode(text)))
        found.sort(key=lambda secret: (secret.created_at, secret.secret_id))
        self._cache.put(client_id, tuple(found), generation)
        return tuple(found)

    async def create(self, client_id: str) -> tuple[SigningSecret, str]:
        """A new one, and the text to give to the receiver; raises Conflict where there are two."""
        secret_id = f"sec_{secrets.token_hex(4)}"
        text = base64.b64encode(secrets.token_bytes(_BYTES)).decode()
        created_at = await self._change(client_id, secret_id, text)
        if created_at < 0:
            msg = f"{client_id} has {MOST} signing secrets; remove the one that is no longer used first."
            raise Conflict(msg)
        return SigningSecret(secret_id, created_at, base64.b64decode(text)), PREFIX + text

    async def remove(self, client_id: str, secret_id: str | None = None) -> bool:
        """One, or all of the client; whether there was any."""
        return await self._change(client_id, secret_id or "", "") > 0

    async def keys(self, client_id: str) -> list[bytes]:
        """What a call is signed with. Waits while Redis is away: a receiver would refuse a call without its signature,
        and a claim that Redis does not hear of for long is called off anyway."""
        while True:
            try:
                return [secret.key for secret in await self.get(client_id)]
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN_SECONDS)

    def forget(self, client_id: str | None = None) -> None:
        """Read anew what this client has, or every client."""
        self._cache.forget(client_id)

    async def _change(self, client_id: str, secret_id: str, text: str) -> int:
        key = self._keyspace.signing(client_id)
        changed = await self._runner.run("signing", client_id, key, secret_id, text, MOST)
        self.forget(client_id)
        return int(changed)
