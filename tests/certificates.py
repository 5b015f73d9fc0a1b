"""Certificates of a test, as files: a CA of its own for Redis, and what a gateway's listeners show and ask for."""

import os
import ssl
from pathlib import Path

import trustme


class Authority:
    """A CA, and what it has signed, as files; ``context`` is a server's that asks for no certificate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        ca = trustme.CA()
        self.ca = folder / "ca.pem"
        ca.cert_pem.write_to_path(str(self.ca))
        server = ca.issue_cert("127.0.0.1")
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.configure_cert(self.context)
        ca.configure_trust(self.context)
        self.server_cert, self.server_key = folder / "server.crt", folder / "server.key"
        self.cert, self.key = folder / "gateway.crt", folder / "gateway.key"
        for issued, cert, key in (
            (server, self.server_cert, self.server_key),
            (ca.issue_cert("gateway@example.org"), self.cert, self.key),
        ):
            issued.cert_chain_pems[0].write_to_path(str(cert))
            issued.private_key_pem.write_to_path(str(key))

    @property
    def environment(self) -> dict[str, str]:
        """The gateway's settings that show its certificate, and trust the server's."""
        return {"REDIS_TLS_CA": str(self.ca), "REDIS_TLS_CERT": str(self.cert), "REDIS_TLS_KEY": str(self.key)}

    @property
    def shown(self) -> dict[str, str]:
        """What a client of redis-py needs for the same."""
        return {"ssl_ca_certs": str(self.ca), "ssl_certfile": str(self.cert), "ssl_keyfile": str(self.key)}

    def options(self, port: int) -> tuple[str, ...]:
        """Those of a Redis that listens on this port for TLS alone, and only to who has a certificate of this CA."""
        files = ("--tls-ca-cert-file", self.ca, "--tls-cert-file", self.server_cert, "--tls-key-file", self.server_key)
        return ("--port", "0", "--tls-port", str(port), "--tls-replication", "yes", *map(str, files))


class Files:
    """A CA and what it issued, as files; each can be replaced as a renewal does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cert, self.key, self.ca = folder / "server.pem", folder / "server.key", folder / "clients.pem"
        self.authority = trustme.CA()
        self.renew()
        self.trust(self.authority)

    def renew(self, authority: trustme.CA | None = None) -> trustme.CA:
        """Another certificate for the server, of a new CA unless one is given; the value is its CA."""
        signer = authority or trustme.CA()
        issued = signer.issue_cert("127.0.0.1", "localhost")
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        replace(self.key, issued.private_key_pem.bytes())
        replace(self.cert, chain)
        self.server_authority = signer
        return signer

    def trust(self, authority: trustme.CA) -> None:
        """Clients of this CA count from now on, and no others."""
        replace(self.ca, authority.cert_pem.bytes())

    @property
    def settings(self) -> dict[str, str]:
        return {"TLS_CERT": str(self.cert), "TLS_KEY": str(self.key)}


def replace(path: Path, content: bytes) -> None:
    """As a renewal does it: another file in its place."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    os.replace(fresh, path)
