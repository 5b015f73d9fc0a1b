"""The keys by which a client shows that it is the one it says: made here, shown once, kept as hashes."""

import hashlib
import hmac
import secrets
from typing import Final

import msgspec

from gateway.errors import Conflict
from gateway.store.cache import Cache
from gateway.store.scripts import Runner

MOST: Final = 2  # the one in use, and the next one while callers change over
PREFIX: Final = "gwk_"  # by which people, and scanners for leaked secrets, know one
_BYTES: Final = 32
_REQUIRED: Final = b"required"
_READS: Final = 3


class ClientKey(msgspec.Struct, frozen=True):
    """``created_at`` in Unix µs, by Redis's clock; ``digest`` is all that is kept of the key."""

    key_id: str
    created_at: int
    digest: bytes

    def __repr__(self) -> str:
        """Without the digest, whoever prints it."""
        return f"ClientKey({self.key_id!r})"


class Keyring(msgspec.Struct, frozen=True):
    """A client's keys, oldest first, and whether it needs one, also when all are revoked."""

    keys: tuple[ClientKey, ...] = ()
    required: bool = False

    def holds(self, text: str) -> bool:
        """Whether this is one of the keys; takes as long for any other text of the same length."""
        given = digest(text)
        found = False
        for key in self.keys:
            found |= hmac.compare_digest(given, key.digest)
        return found


def digest(text: str) -> bytes:
    """What is kept of a key. One plain hash is enough: a key is 256 random bits, so there is no list of likely ones
    to try, and a slow hash would cost every request what it costs an attacker."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class ClientKeys:
    """By client, with a cache in this process."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._keyspace = runner.keyspace
        self._cache: Cache[Keyring] = Cache()

    def cached(self, client_id: str) -> Keyring | None:
        """What is remembered of the client, None where Redis has to be asked."""
        return self._cache.get(client_id)

    async def get(self, client_id: str) -> Keyring:
        """From the cache where it is fresh."""
        cached = self._cache.get(client_id)
        if cached is not None:
            return cached
        generation = self._cache.generation
        flat = await self._runner.command("HGETALL", self._keyspace.client_keys(client_id), tries=_READS)
        stored = dict(zip(flat[::2], flat[1::2], strict=True))
        required = stored.pop(_REQUIRED, None) is not None
        keys = []
        for key_id, text in stored.items():
            created_at, hexadecimal = text.split(b" ", 1)
            keys.append(ClientKey(key_id.decode(), int(created_at), bytes.fromhex(hexadecimal.decode())))
        keys.sort(key=lambda key: (key.created_at, key.key_id))
        keyring = Keyring(tuple(keys), required)
        self._cache.put(client_id, keyring, generation)
        return keyring

    async def create(self, client_id: str, *, required: bool = True) -> tuple[ClientKey, str]:
        """One more, and its text, to be shown once; where it is ``required``, the client needs one from now on. Raises
        Conflict at two."""
        made = await self._make(client_id, "create" if required else "offer")
        if made is None:
            msg = f"{client_id} has {MOST} keys; revoke the one that is no longer used first, or rotate."
            raise Conflict(msg)
        return made

    async def rotate(self, client_id: str) -> tuple[ClientKey, str]:
        """One more; of those before it only the newest stays valid. Raises Conflict where there is none."""
        made = await self._make(client_id, "rotate")
        if made is None:
            msg = f"{client_id} has no key that a new one could follow; create one."
            raise Conflict(msg)
        return made

    async def require(self, client_id: str) -> None:
        """The client needs one from now on. Raises Conflict where it has none, since that would close it."""
        if await self._change(client_id, "require") < 0:
            msg = f"{client_id} has no key to show; create one."
            raise Conflict(msg)

    async def revoke(self, client_id: str, key_id: str) -> bool:
        """Whether there was such a one. A client that needs a key still does, and without any is closed."""
        return await self._change(client_id, "revoke", key_id) > 0

    async def close(self, client_id: str) -> None:
        """Revoke all; who needed a key is closed until it is given one, or released."""
        await self._change(client_id, "close")

    async def release(self, client_id: str) -> bool:
        """Revoke all and need none from now on; whether the client needed one."""
        return await self._change(client_id, "release") > 0

    def forget(self, client_id: str | None = None) -> None:
        """Read anew what this client has, or every client."""
        self._cache.forget(client_id)

    async def _make(self, client_id: str, what: str) -> tuple[ClientKey, str] | None:
        key_id, text = f"key_{secrets.token_hex(4)}", PREFIX + secrets.token_urlsafe(_BYTES)
        created_at = await self._change(client_id, what, key_id, digest(text).hex())
        return None if created_at < 0 else (ClientKey(key_id, created_at, digest(text)), text)

    async def _change(self, client_id: str, what: str, key_id: str = "", hexadecimal: str = "") -> int:
        key = self._keyspace.client_keys(client_id)
        changed = await self._runner.run("client_keys", client_id, key, what, key_id, hexadecimal, MOST)
        self.forget(client_id)
        return int(changed)
