"""TLS of the listeners: a certificate and its key, and whose clients' certificates count; read again once renewed."""

import ssl
from pathlib import Path

from gateway.reloading import WatchedFiles


def _no_password() -> str:
    # Without this OpenSSL would ask a terminal for it.
    raise ValueError("the key is encrypted; give one that is not")


def _context(cert: Path, key: Path, client_ca: Path | None, *, required: bool) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    made.load_cert_chain(cert, key, password=_no_password)
    if client_ca is not None:
        made.load_verify_locations(client_ca)
        made.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        # A resumed session does not show its certificate again, which may be of a CA that counts no more.
        made.options |= ssl.OP_NO_TICKET
        made.num_tickets = 0
    return made


def problem_of(cert: Path, key: Path, client_ca: Path | None) -> str | None:
    """What keeps these files from being used, None: nothing. It repeats nothing of the key."""
    try:
        _context(cert, key, client_ca, required=True)
    except (OSError, ValueError) as problem:  # ssl.SSLError is an OSError
        return getattr(problem, "reason", None) or getattr(problem, "strerror", None) or str(problem)
    return None


class Certificates:
    """What one listener shows and asks for. ``context`` serves for as long as it listens; ``files`` are to be looked
    at, so that renewed ones hold for every connection from then on. ``required``: without a client's certificate there
    is no connection; else only one that does not count is refused."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None, *, required: bool = False) -> None:
        self._parts = (cert, key, client_ca)
        self._required = required
        self.files = WatchedFiles("TLS_CERT", [path for path in self._parts if path is not None], self._renew)
        self._newest = self.context = self._read()
        self.context.sni_callback = self._choose

    def _read(self) -> ssl.SSLContext:
        cert, key, client_ca = self._parts
        return _context(cert, key, client_ca, required=self._required)

    def _renew(self) -> None:
        # A whole new one: to load into the one in use would leave it with half of a pair that does not match.
        self._newest = self._read()

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        """OpenSSL asks for every handshake, also where the client names no server."""
        connection.context = self._newest
