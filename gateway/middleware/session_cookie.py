"""What the cookie of a session holds, and how it is signed. Pure; how a request carries it is in
`gateway.middleware.sessions`."""

from collections.abc import Callable
from hashlib import sha256
from typing import Final

import msgspec
from itsdangerous import BadData, URLSafeSerializer

IDLE_SECONDS: Final = 3600  # a session ends after an hour in which nothing was asked
LONGEST_SECONDS: Final = 12 * 3600


class Session(msgspec.Struct, frozen=True, array_like=True):
    """Who is logged in: ``key`` names the key. ``began`` and ``signed`` (when it was last renewed) are Unix seconds;
    ``secure``: the browser came over TLS, which a proxy may have ended."""

    id: str
    key: str
    began: int
    signed: int
    secure: bool

    @property
    def ends(self) -> int:
        """When it ends unless it is renewed, Unix seconds."""
        return min(self.signed + IDLE_SECONDS, self.began + LONGEST_SECONDS)


def sign(session: Session, secret: bytes) -> str:
    """The cookie's text."""
    return str(_serializer(secret).dumps(msgspec.to_builtins(session)))


def unsign(text: str, secret_of: Callable[[str], bytes | None], now: float) -> Session | None:
    """The session of a cookie; None where its key's secret did not sign it, or its time is over. ``secret_of`` takes
    the name of a key."""
    claimed = _session(_serializer(b"").loads_unsafe(text)[1])
    secret = None if claimed is None else secret_of(claimed.key)
    if claimed is None or secret is None:
        return None
    try:
        session = _session(_serializer(secret).loads(text))
    except BadData:
        return None
    return session if session is not None and now < session.ends else None


def _session(payload: object) -> Session | None:
    try:
        return msgspec.convert(payload, Session)
    except msgspec.ValidationError:
        return None


def _serializer(secret: bytes) -> URLSafeSerializer:
    how = {"key_derivation": "hmac", "digest_method": sha256}
    return URLSafeSerializer(secret, salt="gateway admin session", signer_kwargs=how)
