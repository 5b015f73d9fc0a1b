"""The operators' API over HTTP, for the commands: one kept connection, the key in its header, each refusal as
a message that says what to type. What is asked for is the commands' affair."""

import http.client
import json
import os
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from gateway.addresses import upstream
from gateway.cli.output import CallFailed, Misused, Unreachable
from gateway.parsing import secret
from gateway.redaction import mask

DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT = 30.0  # seconds; listing a million clients takes a while


class Answer(NamedTuple):
    """What the API answered: the body as it came (``text``) and decoded (``data``, None if empty)."""

    status: int
    text: str
    data: Any


class AdminApi:
    """Calls ``GATEWAY_URL`` with ``ADMIN_API_KEY``, over TLS with what ``GATEWAY_TLS_CA``, ``_CERT`` and ``_KEY`` name;
    raises `Misused` where one of them is malformed."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        env = os.environ if env is None else env
        given = env.get("GATEWAY_URL", "").strip() or DEFAULT_URL
        key = env.get("ADMIN_API_KEY", "").strip()
        try:
            self._url = upstream(given)
        except ValueError as allowed:
            msg = f"GATEWAY_URL: {mask(given)!r} is not allowed; allowed: {allowed}"
            raise Misused(msg) from None
        try:
            self._headers = {"X-Admin-Key": secret(key)} if key else {}
        except ValueError as allowed:
            msg = f"ADMIN_API_KEY: (hidden) is not allowed; allowed: {allowed}"
            raise Misused(msg) from None
        parts = urlsplit(self._url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, parts.port, timeout=TIMEOUT, context=_tls(env)
            )
        else:
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT)
        self._path = parts.path

    def __enter__(self) -> "AdminApi":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None) -> Answer:
        """One call; raises `CallFailed` for everything but a 2xx, `Unreachable` where no gateway can do it now."""
        target = self._path + path + ("?" + urlencode(query) if query else "")
        headers = {"Accept": "application/json", **self._headers}
        payload = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            payload = json.dumps(body).encode()
        try:
            status, raw = self._exchange(method, target, payload, headers)
        except (OSError, http.client.HTTPException) as problem:
            self._connection.close()
            reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
            msg = (
                f"no gateway answers at {self._url} ({reason}); start it with 'gateway serve', or set "
                "GATEWAY_URL to where it listens"
            )
            raise Unreachable(msg) from None
        text = raw.decode(errors="replace")
        try:
            data = json.loads(text) if text.strip() else None
        except ValueError:
            msg = f"{self._url} is no gateway (status {status}, not JSON); set GATEWAY_URL to where one listens"
            raise Unreachable(msg) from None
        if not 200 <= status < 300:
            failure = Unreachable if status >= 500 else CallFailed
            raise failure(self._refusal(status, data), answer=text, status=status)
        return Answer(status, text, data)

    def _exchange(
        self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        kept = self._connection.sock is not None
        try:
            return self._once(method, target, payload, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # The gateway may close a kept connection between two calls. Every call here may be repeated: set
            # and delete end in the same state.
            self._connection.close()
            if not kept:
                raise
            return self._once(method, target, payload, headers)

    def _once(self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self._connection.request(method, target, body=payload, headers=dict(headers))
        response = self._connection.getresponse()
        return response.status, response.read()

    def _refusal(self, status: int, data: Any) -> str:
        answer = data if isinstance(data, dict) else {}
        error, message = str(answer.get("error") or ""), str(answer.get("message") or "")
        told = ": ".join(part for part in (error, message) if part) or f"status {status}"
        if status == 401:
            return f"{told}; set ADMIN_API_KEY to the key the gateway at {self._url} was started with"
        if status == 403 and "the role" not in message:
            return f"{told}; this machine's address must be in the gateway's ADMIN_ALLOWED_IPS"
        if status == 404 and error in {"", "Not found"}:
            return f"{told}; {self._url} has no /admin; where there is an ADMIN_PORT, set GATEWAY_URL to that"
        return told


def _tls(env: Mapping[str, str]) -> ssl.SSLContext:
    ca, cert, key = (env.get(f"GATEWAY_TLS_{name}", "").strip() or None for name in ("CA", "CERT", "KEY"))
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key)
    except OSError as problem:  # ssl.SSLError is one
        reason = getattr(problem, "reason", None) or problem.strerror
        names = "GATEWAY_TLS_CA, GATEWAY_TLS_CERT, GATEWAY_TLS_KEY"
        msg = f"{names}: {reason}; allowed: PEM files, the key that of the certificate"
        raise Misused(msg) from None
    return context
