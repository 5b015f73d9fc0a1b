"""TLS on the listeners: what is spoken, whose certificates count, and that renewed ones hold without a restart."""

import asyncio
import json
import signal
import socket
import ssl
import warnings
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import uvloop
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from as_user import free_port
from certificates import Files, replace
from commands import run
from conftest import until
from processes import GENEROUS, Process
from structlog.testing import capture_logs

from gateway.certificates import Certificates
from gateway.errors import GatewayError
from gateway.middleware.admin import admin_chain
from gateway.middleware.chains import wrapped
from gateway.middleware.keyring import Keyring
from gateway.settings import Settings, SettingsError


def trusting(server: trustme.CA, client: trustme.CA | None = None) -> ssl.SSLContext:
    """What a caller uses: the server's CA, and a certificate of its own if ``client`` issues one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.configure_trust(context)
    if client is not None:
        client.issue_cert("operator@example.org").configure_cert(context)
    return context


async def shown(
    port: int, context: ssl.SSLContext, name: str = "127.0.0.1", path: str = "/livez", key: str = ""
) -> str:
    """What the listener answers over TLS, or the name of the error there is."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Admin-Key: {key}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(10):
            line = await reader.readline()
        writer.close()
    except (OSError, asyncio.IncompleteReadError) as problem:
        return type(problem).__name__
    return line.decode().strip() or "closed"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def serving(certificates: Certificates) -> tuple[web.AppRunner, int]:
    """A listener with them, and its port."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/livez", livez)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificates.context).start()
    return runner, runner.addresses[0][1]


async def renewing(files: Files) -> None:
    first = files.server_authority
    certificates = Certificates(files.cert, files.key)
    runner, port = await serving(certificates)
    assert await shown(port, trusting(first)) == "HTTP/1.1 200 OK"
    second = files.renew()
    assert await shown(port, trusting(first)) == "HTTP/1.1 200 OK"
    with capture_logs() as logs:
        certificates.files.look()
        certificates.files.look()
    assert [entry["event"] for entry in logs] == ["reloaded"]
    for name in ("127.0.0.1", "localhost"):  # a name is told to the server, an address is not
        assert await shown(port, trusting(second), name) == "HTTP/1.1 200 OK"
        assert await shown(port, trusting(first), name) == "SSLCertVerificationError"
    replace(files.key, trustme.CA().issue_cert("127.0.0.1").private_key_pem.bytes())
    with capture_logs() as logs:
        certificates.files.look()
    assert [(entry["event"], entry["setting"]) for entry in logs] == [("reload_failed", "TLS_CERT")]
    assert "MISMATCH" in logs[0]["message"].upper()
    assert await shown(port, trusting(second)) == "HTTP/1.1 200 OK"
    await runner.cleanup()


async def asking(files: Files, *, required: bool) -> None:
    server, mine = files.server_authority, files.authority
    certificates = Certificates(files.cert, files.key, files.ca, required=required)
    runner, port = await serving(certificates)
    assert await shown(port, trusting(server, mine)) == "HTTP/1.1 200 OK"
    stranger = trustme.CA()
    assert await shown(port, trusting(server, stranger)) != "HTTP/1.1 200 OK"
    assert (await shown(port, trusting(server)) == "HTTP/1.1 200 OK") is not required
    files.trust(stranger)
    certificates.files.look()
    assert await shown(port, trusting(server, stranger)) == "HTTP/1.1 200 OK"
    assert await shown(port, trusting(server, mine)) != "HTTP/1.1 200 OK"
    await runner.cleanup()


LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_renewed_certificate_is_shown_and_half_of_one_is_not(files: Files, loop: Any) -> None:
    """From the next look on every new connection gets it; a pair that does not match leaves the one before."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(renewing(files))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("required", [True, False])
def test_clients_certificates_are_judged_and_their_ca_can_change(files: Files, loop: Any, *, required: bool) -> None:
    """One of another CA is no connection, none is one only where none is required; a replaced CA counts no more."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asking(files, required=required))


async def test_tls_before_1_2_is_not_spoken(files: Files) -> None:
    """A caller that knows only TLS 1.1 gets no connection."""
    runner, port = await serving(Certificates(files.cert, files.key))
    old = trusting(files.server_authority)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    assert await shown(port, old) in {"SSLError", "ConnectionResetError"}
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await shown(port, old) == "HTTP/1.1 200 OK"
    await runner.cleanup()


def test_files_that_do_not_go_together_are_told_at_the_start(files: Files, tmp_path: Path) -> None:
    """Half a pair, a pair that does not match, an encrypted key, no PEM: one mistake that names the settings."""

    def mistake(**env: Path) -> str:
        with pytest.raises(SettingsError) as caught:
            Settings.load({name: str(path) for name, path in env.items()})
        (told,) = caught.value.mistakes
        return told

    other = tmp_path / "other.key"
    trustme.CA().issue_cert("x.example").private_key_pem.write_to_path(str(other))
    words = tmp_path / "words.pem"
    words.write_text("hunter2")
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2\n-----END ENCRYPTED PRIVATE KEY-----\n")
    assert mistake(TLS_CERT=files.cert).startswith("TLS_CERT: is of no use alone")
    assert mistake(TLS_KEY=files.key).startswith("TLS_KEY: is of no use alone")
    assert mistake(ADMIN_TLS_CLIENT_CA=files.ca).startswith("ADMIN_TLS_CLIENT_CA: has no use without TLS")
    for key in (other, words, locked):
        told = mistake(TLS_CERT=files.cert, TLS_KEY=key)
        assert told.startswith("TLS_CERT, TLS_KEY: ")
        assert "hunter2" not in told
    told = mistake(TLS_CERT=files.cert, TLS_KEY=files.key, ADMIN_TLS_CLIENT_CA=words)
    assert told.startswith("TLS_CERT, TLS_KEY and ADMIN_TLS_CLIENT_CA: ")


class Shown:
    """A transport whose peer has shown a certificate, or none."""

    def __init__(self, certificate: Any) -> None:
        self.certificate = certificate

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("10.0.0.1", 4711), "peercert": self.certificate}.get(name, default)

    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize("certificate", [None, {}, {"subject": ((("commonName", "operator"),),)}])
async def test_admin_on_the_common_listener_looks_for_a_certificate(files: Files, certificate: Any) -> None:
    """Where clients come without one, /admin is 403 without one, whatever the key; with one the key is asked for."""
    env = {**files.settings, "ADMIN_TLS_CLIENT_CA": str(files.ca), "ADMIN_API_KEY": "key"}
    settings = Settings.load(env)

    async def within(_: web.Request) -> web.StreamResponse:
        return web.Response()

    guarded = wrapped(within, admin_chain(settings, Keyring(settings)))
    ends = []
    for key in ("key", "wrong"):
        headers = {"X-Admin-Key": key, "Host": "x"}
        try:
            await guarded(make_mocked_request("GET", "/admin/tiers", headers=headers, transport=Shown(certificate)))
            ends.append(200)
        except GatewayError as problem:
            ends.append(problem.status)
    assert ends == ([200, 401] if certificate else [403, 403])


async def test_check_tells_what_would_not_start(files: Files, tmp_path: Path) -> None:
    """`gateway check` looks into the files of certificates and of keys, and repeats no key."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"ann": {"role": "boss", "key": "hunter2-hunter2-hunter2"}}))
    env = {"TLS_CERT": str(files.cert), "TLS_KEY": str(files.ca), "ADMIN_KEYS_FILE": str(keys)}
    told = await run("check", env=env)
    assert told.code == 1
    assert "TLS_CERT, TLS_KEY: " in told.err
    assert "key 'ann': a role is read, operate or admin" in told.err
    assert "hunter2" not in told.err + told.out


async def test_workers_speak_tls_ask_operators_for_certificates_and_take_renewed_ones(
    files: Files, tmp_path: Path
) -> None:
    """With --workers: clients need no certificate, the commands reach /admin with theirs, nobody does without; a
    renewal holds on every worker without a restart, by itself and on SIGHUP."""
    admin_port = free_port()
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"first": {"role": "read", "key": "a-key-of-operators-1"}}))
    settings = {
        **files.settings,
        "ADMIN_KEYS_FILE": str(keys),
        "ADMIN_GUESSES_PER_MIN": "1000",  # asked again and again until the file was read
        "ADMIN_TLS_CLIENT_CA": str(files.ca),
        "ADMIN_PORT": str(admin_port),
        "GATEWAY_DATA_DIR": str(tmp_path / "data"),
    }
    async with aiohttp.ClientSession() as session:
        process = Process(session, tmp_path / "log", ["--workers", "2"], **settings)
        try:
            first = files.server_authority

            async def serves(authority: trustme.CA) -> bool:
                assert process.process.poll() is None, process.log()
                # Each is a connection of its own, which either of the workers may have.
                answers = [await shown(process.port, trusting(authority)) for _ in range(8)]
                return set(answers) == {"HTTP/1.1 200 OK"}

            async def listed(**more: Path) -> int:
                ca = tmp_path / "gateway-ca.pem"
                ca.write_bytes(files.server_authority.cert_pem.bytes())
                url = f"https://127.0.0.1:{admin_port}"
                env = {"GATEWAY_URL": url, "ADMIN_API_KEY": "key", "GATEWAY_TLS_CA": str(ca)}
                return (await run("tiers", env=env | {name: str(path) for name, path in more.items()})).code

            await until(lambda: serves(first), GENEROUS)
            issued = files.authority.issue_cert("operator@example.org")
            cert, key = tmp_path / "operator.pem", tmp_path / "operator.key"
            cert.write_bytes(issued.cert_chain_pems[0].bytes())
            key.write_bytes(issued.private_key_pem.bytes())

            async def admin_serves() -> bool:
                return await shown(admin_port, trusting(first, files.authority)) == "HTTP/1.1 404 Not Found"

            await until(admin_serves, GENEROUS)
            assert await listed(GATEWAY_TLS_CERT=cert, GATEWAY_TLS_KEY=key) == 0
            assert await listed() != 0
            assert await shown(admin_port, trusting(first)) != "HTTP/1.1 200 OK"
            plain = socket.create_connection(("127.0.0.1", process.port))
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" not in await asyncio.to_thread(plain.recv, 100)
            plain.close()
            second = files.renew()
            await until(lambda: serves(second), GENEROUS)
            replace(keys, json.dumps({"second": {"role": "read", "key": "a-key-of-operators-2"}}).encode())

            async def changed() -> bool:
                mine = trusting(second, files.authority)
                asked = [
                    await shown(admin_port, mine, path="/admin/tiers", key=f"a-key-of-operators-{n}") for n in "2121"
                ]
                return asked == ["HTTP/1.1 200 OK", "HTTP/1.1 401 Unauthorized"] * 2

            await until(changed, GENEROUS)
            before = process.log().count("reloaded")
            process.process.send_signal(signal.SIGHUP)
            # Two workers, each with two listeners' certificates and the file of keys.
            await until(lambda: process.log().count("reloaded") >= before + 6, GENEROUS, process.log)
            assert await serves(second)
        finally:
            assert await process.end() == 0, process.log()
    assert "Traceback" not in process.log()
