"""What an admin key is: a name, a role and the hash of the key itself; and how `ADMIN_KEYS` and `ADMIN_KEYS_FILE` write
it down. Which key a caller shows is found out in `gateway.middleware.keyring`."""

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import msgspec

from gateway import parsing

ADMIN_API_KEY = "ADMIN_API_KEY"  # the name of the one key that is a setting of its own; its role is admin
LEAST_CHARACTERS = 16  # of a named key: with fewer, its hash in a file could be tried out


class Role(enum.IntEnum):
    """What a key may do; each may also do what those before it may."""

    READ = 1
    OPERATE = 2
    ADMIN = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class AdminKey:
    """Who an operator is. ``name`` of None: the gateway has no keys, and the address let them in.

    ``digest`` is the key's SHA-256. It tells keys apart and may stand in a file that others read, so nothing may be
    signed with it.
    """

    name: str | None
    role: Role
    digest: bytes = field(default=b"", repr=False)


NO_KEY = AdminKey(None, Role.ADMIN)


@dataclass(frozen=True)
class KeysFile:
    """A file of keys, and those it had when it was read."""

    path: Path
    keys: tuple[AdminKey, ...] = field(repr=False)


def digest_of(key: bytes) -> bytes:
    """The hash that keys are compared by."""
    return sha256(key).digest()


def admin_keys(text: str) -> tuple[AdminKey, ...]:
    """`name:role:key`, comma separated; the key is a plain one, or `sha256:` and its hash in hex."""
    form = "name:role:key or name:role:sha256:hash, comma separated"
    keys = []
    for number, entry in enumerate(parsing.entries(text), 1):
        name, _, rest = entry.partition(":")
        role, _, key = rest.partition(":")
        hashed = key.startswith("sha256:")
        try:
            keys.append(_key(name, role, None if hashed else key, key[7:] if hashed else None))
        except ValueError as problem:
            # By its number: in an entry in the wrong order, what stands for the name is the key.
            msg = f"{form}; entry {number}: {problem}"
            raise ValueError(msg) from None
    if complaint := clash(keys):
        msg = f"{form}; {complaint}"
        raise ValueError(msg)
    return tuple(keys)


def admin_keys_file(text: str) -> KeysFile:
    """A TOML or JSON file of `{name: {role, key}}` or `{name: {role, sha256}}`, perhaps under `keys`."""
    form = "a TOML or JSON file of {name: {role, key}} or {name: {role, sha256}}, perhaps under 'keys'"
    data = parsing.table_file(Path(text), form, wrapper="keys")
    keys = []
    for name, row in data.items() if isinstance(data, dict) else ():
        try:
            read = msgspec.convert(row, _Row)
            keys.append(_key(name, read.role, read.key, read.sha256))
        except (msgspec.ValidationError, ValueError) as problem:
            msg = f"{form}; key {name[:64]!r}: {problem}"
            raise ValueError(msg) from None
    if complaint := clash(keys) if keys else "it has no keys":
        msg = f"{form}; {complaint}"
        raise ValueError(msg)
    return KeysFile(Path(text), tuple(keys))


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    key: str | None = None
    sha256: str | None = None


def _key(name: str, role: str, key: str | None, digest: str | None) -> AdminKey:
    """Raises ValueError, which repeats nothing of what it was given."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise ValueError("a name is 1 to 64 of A-Z a-z 0-9 . _ -")
    if role.upper() not in Role.__members__:
        raise ValueError("a role is read, operate or admin")
    if (key is None) == (digest is None):
        raise ValueError("either key or sha256 is needed")
    if digest is not None:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise ValueError("a sha256 is 64 hex digits")
        return AdminKey(name, Role[role.upper()], bytes.fromhex(digest))
    if key is None or not re.fullmatch(rf"[\x21-\x7e]{{{LEAST_CHARACTERS},}}", key):
        msg = f"a key is at least {LEAST_CHARACTERS} visible ASCII characters without spaces"
        raise ValueError(msg)
    return AdminKey(name, Role[role.upper()], digest_of(key.encode()))


def clash(keys: Iterable[AdminKey]) -> str | None:
    """Which two of them can't be told apart, by name or by key; None: all can."""
    names: set[str | None] = set()
    owners: dict[bytes, str | None] = {}
    for key in keys:
        if key.name in names:
            return f"the name {key.name!r} is there twice"
        if key.digest in owners:
            return f"{owners[key.digest]!r} and {key.name!r} are the same key"
        names.add(key.name)
        owners[key.digest] = key.name
    return None
