"""What Redis keeps of a task's URL, headers and body, of its targets' answers, and of signing secrets, where
TASK_ENCRYPTION_KEYS is set: nothing that can be read without a key, nor moved to another client or task. Where sealed
text is stored is `gateway.store.records`' and `gateway.store.signing`'s affair.

A task's own key is derived from the operator's key, its client and its id, so that no key seals more than a few texts
and random nonces never run out: AES-GCM with one key for all would be used up after 2^32 tasks."""

import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, Literal

from gateway.parsing import IN_THE_CLEAR

Purpose = Literal["task", "answer", "signing"]

_NONCE: Final = 12
_TASK_KEY: Final = b"gateway-task-key"
_FINGERPRINT: Final = b"gateway-same-tsk"
_FINGERPRINT_BYTES: Final = 16


class Unreadable(Exception):
    """The sealed text can't be opened. ``reason`` is short and stable, for the dead letter; of keys it has the ids."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Sealer:
    """Seals with the first of the keys and opens with each. Without keys, or where the first is `none`, it seals
    nothing: `on` is false.

    A task is named by its client and by ``unique``, the part of its id that is known before it is stored; a signing
    secret by its client and its own id.
    """

    def __init__(self, keys: tuple[tuple[str, bytes], ...]) -> None:
        self._keys = {name: key for name, key in keys if name != IN_THE_CLEAR}
        self._first = keys[0][0] if keys and keys[0][0] != IN_THE_CLEAR else None
        self._cipher: Callable[[bytes], Any] | None = None
        self._refused: type[Exception] = ValueError
        if self._keys:
            # Imported where it is wanted: who seals nothing need not wait for it at each start.
            from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see above
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - see above

            self._cipher, self._refused = AESGCM, InvalidTag

    @property
    def on(self) -> bool:
        """Whether what is stored from now on is sealed."""
        return self._first is not None

    @property
    def first(self) -> str | None:
        """The id of the key that seals from now on, None: nothing is sealed."""
        return self._first

    def sealed_with(self, text: str) -> str | None:
        """The id of the key that opens what `seal` made; None: the text is not sealed."""
        name, dot, _ = text.partition(".")
        return name if dot else None

    def seal(self, client_id: str, unique: str, plain: bytes, purpose: Purpose) -> str:
        """The plain bytes as ASCII text without spaces, which tells by which key it opens again."""
        if self._first is None or self._cipher is None:
            raise RuntimeError("there is no key to seal with")
        nonce = os.urandom(_NONCE)
        named = _named(client_id, unique)
        sealed = self._cipher(_task_key(self._keys[self._first], named)).encrypt(nonce, plain, _bound(named, purpose))
        return f"{self._first}.{b64encode(nonce + sealed).decode()}"

    def open(self, client_id: str, unique: str, sealed: str, purpose: Purpose) -> bytes:
        """The plain bytes; raises `Unreadable` where its key is gone or this is not what was sealed under this name."""
        name, _, text = sealed.partition(".")
        key = self._keys.get(name)
        if key is None or self._cipher is None:
            reason = f"sealed with the key {name[:32]}, which TASK_ENCRYPTION_KEYS does not have"
            raise Unreadable(reason)
        named = _named(client_id, unique)
        try:
            raw = b64decode(text, validate=True)
            plain = self._cipher(_task_key(key, named)).decrypt(raw[:_NONCE], raw[_NONCE:], _bound(named, purpose))
        except (self._refused, ValueError):
            other = "client" if purpose == "signing" else "task"
            reason = f"sealed content was changed, or moved from another {other} (key {name[:32]})"
            raise Unreadable(reason) from None
        opened: bytes = plain
        return opened

    def fingerprint(self, plain: bytes) -> str:
        """A task's fingerprint as Redis keeps it: keyed, or a guess at a short body could be checked against it."""
        return plain.hex() if self._first is None else self._keyed(self._first, plain)

    def same(self, stored: str, plain: bytes) -> bool:
        """Whether a kept fingerprint is this task's, by whatever key it was made, or by none: before keys were changed,
        or there were any. False where its key is gone."""
        name, dot, _ = stored.partition(".")
        if not dot:
            return hmac.compare_digest(stored.encode(), plain.hex().encode())
        return name in self._keys and hmac.compare_digest(stored.encode(), self._keyed(name, plain).encode())

    def _keyed(self, name: str, plain: bytes) -> str:
        digest = blake2b(plain, digest_size=_FINGERPRINT_BYTES, key=self._keys[name], person=_FINGERPRINT)
        return f"{name}.{digest.hexdigest()}"


def _named(client_id: str, unique: str) -> bytes:
    return f"{client_id}\0{unique}".encode()


def _task_key(key: bytes, named: bytes) -> bytes:
    return blake2b(named, digest_size=32, key=key, person=_TASK_KEY).digest()


def _bound(named: bytes, purpose: Purpose) -> bytes:
    return named + b"\0" + purpose.encode()
