"""A forward proxy (OUTBOUND_PROXY): its address, and the tunnel that CONNECT opens through it (RFC 9110, 9.3.6)."""

import asyncio
import re
import socket
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from gateway.dispatch.http.errors import CallFailed

_HEAD_BYTES = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


@dataclass(frozen=True, slots=True)
class Proxy:
    """``authorization`` is the value of Proxy-Authorization, a secret; None: the proxy asks for none."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """From a URL that the settings have checked: `http://[user:password@]host:port`.

        >>> Proxy.parse("http://ann:s%40crt@proxy:3128").authorization
        'Basic YW5uOnNAY3J0'
        """
        parts = urlsplit(url)
        login = None
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = None if login is None else "Basic " + b64encode(login.encode()).decode()
        return cls(parts.hostname or "", parts.port or 80, authorization)

    async def open_tunnel(self, sock: socket.socket, host: str, port: int) -> None:
        """Make the connection to the proxy one to the target. Raises `CallFailed` where the proxy does not."""
        loop = asyncio.get_running_loop()
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self.authorization is not None:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = await loop.sock_recv(sock, 4096)
            head += data
            # In TLS the client speaks first: what follows the head is nothing that the target sent.
            if not data or len(head) > _HEAD_BYTES or b"\r\n\r\n" in head[:-4]:
                raise CallFailed("proxy failed")
        status = _STATUS.match(head)
        if status is None or not status[1].startswith(b"2"):
            raise CallFailed("proxy refused the tunnel")
